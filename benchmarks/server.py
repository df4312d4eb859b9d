"""A server under measurement: pinned to a core, watched from outside, ended with its children."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import grpc_load
import payloads
import processes
from models import Model

HOST: Final = "127.0.0.1"
START_LIMIT: Final = 60.0
_STOP_LIMIT: Final = 10.0
_IDLE_LIMIT: Final = 30.0
_POLL: Final = 0.005
_LOG_TAIL: Final = 3000


class BenchmarkError(Exception):
    """A server did not start, did not answer, or answered wrongly."""


def pinned(command: Sequence[str], core: int, scheduler: str) -> list[str]:
    """`command`, bound to one core, under the scheduling policy ``other`` or ``batch``."""
    flag = {"other": "--other", "batch": "--batch"}[scheduler]
    return ["taskset", "--cpu-list", str(core), "chrt", flag, "0", *command]


def free_port(span: int = 3) -> int:
    """A port that nobody listens on, and neither on the next ``span - 1``.

    Servers that insist on ports for gRPC and metrics take those.
    """
    for _ in range(2000):
        with socket.socket() as first:
            first.bind((HOST, 0))
            port: int = first.getsockname()[1]
        if port + span > 65535:
            continue
        try:
            for offset in range(span):
                with socket.socket() as probe:
                    # Closed connections that linger on a port do not keep a server from it.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((HOST, port + offset))
        except OSError:
            continue
        return port
    raise BenchmarkError("found no free ports")


def ask(url: str, protocol: str, model: Model, timeout: float = 30.0) -> None:
    """Send one request and check the answer.

    Raises
    ------
    BenchmarkError
        When the status is not 200 or the numbers are not those of raw onnxruntime.
    OSError, http.client.HTTPException
        When there is no answer.
    """
    payload = payloads.encode(protocol, model)
    if url.startswith(grpc_load.SCHEME):
        payloads.check(protocol, model, {}, grpc_load.ask(url, payload.body, timeout))
        return
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or HOST, parts.port, timeout=timeout)
    try:
        connection.request("POST", parts.path, payload.body, dict(payload.headers))
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise BenchmarkError(f"{url} answered {response.status}: {body[:500]!r}")
    try:
        headers = {name.lower(): value for name, value in response.getheaders()}
        payloads.check(protocol, model, headers, body)
    except (ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{url}: {error!r}: {body[:500]!r}") from error


class Server:
    """A server process, from its start to the end of its last child; use it in a ``with``.

    Parameters
    ----------
    command : sequence of str
        What starts it.
    environment : mapping of str to str
        What is added to this process's environment.
    core : int
        Where it and its children run.
    scheduler : str
        ``other`` or ``batch``: the policy it is started under.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], core: int, scheduler: str
    ) -> None:
        self._command = pinned(command, core, scheduler)
        self._environment = {**os.environ, **environment}

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(
            prefix="modelport-bench-", ignore_cleanup_errors=True
        )
        self._log = Path(self._folder.name) / "log"
        with self._log.open("wb") as log:
            self._started = time.perf_counter()
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._folder.name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        members = processes.started(self._process.pid)
        self._process.terminate()
        try:
            self._process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Children whose parent has gone are still known by their session, or from before.
        members |= processes.started(self._process.pid)
        for pid, since in members:
            if processes.is_running(pid, since):
                os.kill(pid, signal.SIGKILL)
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The process that everything else descends from."""
        return self._process.pid

    def log(self) -> str:
        """The last lines that it printed."""
        return self._log.read_text(errors="replace")[-_LOG_TAIL:]

    def wait_until_correct(self, url: str, protocol: str, model: Model) -> float:
        """Ask until the answer is right; seconds since the process was started.

        Raises
        ------
        BenchmarkError
            When the process ends or `START_LIMIT` passes; with what it printed.
        """
        problem: Exception | None = None
        while time.perf_counter() - self._started < START_LIMIT:
            status = self._process.poll()
            if status is not None:
                raise BenchmarkError(f"ended with status {status} unanswered:\n{self.log()}")
            try:
                ask(url, protocol, model)
            except (OSError, http.client.HTTPException, BenchmarkError) as error:
                problem = error
                time.sleep(_POLL)
            else:
                return time.perf_counter() - self._started
        raise BenchmarkError(
            f"no correct answer in {START_LIMIT:.0f} s; the last: {problem!r}\n{self.log()}"
        )

    def wait_until_idle(self) -> None:
        """Wait, within limits, for the end of the work that an earlier measurement left behind."""
        deadline = time.perf_counter() + _IDLE_LIMIT
        used = processes.processor_seconds(self.pid)
        while time.perf_counter() < deadline:
            time.sleep(0.25)
            before, used = used, processes.processor_seconds(self.pid)
            if used - before <= 0.02:
                return
