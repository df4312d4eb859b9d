"""A server process of somebody else's that serves our application, for the scripts beside."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LIMIT = 60.0


class Running:
    """A server on a port."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: str) -> None:
        self.port = port
        self.process = process
        self._log = log

    def log(self) -> str:
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own; status, headers in lower case, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()

    def wait(self) -> None:
        """Wait until the port is open."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            time.sleep(0.05)
        raise AssertionError(self.log())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], *, wait: bool = True, folder: str | None = None, **variables: str
) -> Iterator[Running]:
    """Run a command; ``{port}`` in it is a free port. It is gone when this ends."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        path = os.path.join(home, "log")
        with open(path, "wb") as log:
            process = subprocess.Popen(
                [part.format(port=port) for part in command],
                env={**os.environ, **variables},
                cwd=folder or home,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        server = Running(port, process, path)
        try:
            if wait:
                server.wait()
            yield server
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LIMIT / 4)
            process.kill()
            process.wait(LIMIT)


def chunks(parts: Sequence[bytes]) -> Iterator[bytes]:
    """A body of unknown length."""
    yield from parts
