"""A real server: ``python -m modelport serve …`` in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: Seconds after which a process or a socket of these tests is given up: a bound, no measure.
LIMIT = 60.0
_POLL_SECONDS = 0.02
_PORT_ATTEMPTS = 5


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(home: Path) -> dict[str, str]:
    """The environment of the command, with a registry of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MODELPORT_")}
    return {
        **kept,
        "MODELPORT_REGISTRY": str(home / "registry"),
        "MODELPORT_CACHE": str(home / "cache"),
        "PYTHONFAULTHANDLER": "1",
    }


class RunningServer:
    """A server process; a context manager that leaves nothing running.

    Parameters
    ----------
    home : Path
        For its log, registry and cache.
    models, flags : sequence of str or Path
    """

    def __init__(
        self, home: Path, models: Sequence[str | Path], flags: Sequence[str | Path] = ()
    ) -> None:
        self.home = home
        self.port = 0
        self._models = [str(model) for model in models]
        self._flags = [str(flag) for flag in flags]
        self._log = home / "server.log"

    def start(self) -> Self:
        """Start the process; it may not listen yet."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "modelport", "serve", *self._models),
                    *("--port", str(self.port), *self._flags),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment(self.home),
                cwd=self.home,
                start_new_session=True,
            )
        return self

    def __enter__(self) -> Self:
        """Start and wait until it is ready."""
        for attempt in range(_PORT_ATTEMPTS):
            self.start()
            try:
                self.wait_ready()
            except AssertionError:
                # Somebody took the port between its choice and its use.
                last = attempt == _PORT_ATTEMPTS - 1
                if last or "cannot listen" not in self.log() or self.process.poll() != 2:
                    self.close()
                    raise
            else:
                return self
        raise AssertionError("unreachable")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and its workers, whatever state they are in."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(LIMIT / 2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(LIMIT)

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self) -> None:
        self.wait_for("readiness", lambda: self.get("/v2/health/ready").status == 200)

    def wait_for(self, what: str, condition: Any) -> None:
        """Poll until `condition` holds; connection errors mean "not yet"."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            code = self.process.poll()
            assert code is None, f"ended with {code} before {what}:\n{self.log()}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                if condition():
                    return
            time.sleep(_POLL_SECONDS)
        raise AssertionError(f"no {what} within {LIMIT} s:\n{self.log()}")

    def wait_exit(self) -> int:
        """The exit code, once the process has ended by itself."""
        return self.process.wait(LIMIT)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        connection = self.connect()
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(
        self, path: str, document: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """POST bytes as they are, anything else as JSON."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.request("POST", path, body, headers)


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())
