"""Clients that misbehave, on sockets: what the tests of the HTTP transports share."""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from .running import Answer, RunningServer

PATH = "/v1/models/pair:predict"
BODY = b'{"instances": [[1.5, 2]]}'
GOOD = {"predictions": [[1.5, 2.0]]}
#: Flags that choose each transport.
TRANSPORTS: dict[str, list[str]] = {"http1": [], "granian": ["--http2"]}


def post(body: bytes = BODY, *headers: bytes, path: str = PATH) -> bytes:
    """A request with a length, as bytes."""
    lines = [b"POST %b HTTP/1.1" % path.encode(), b"Host: x", b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, *headers, b"", body])


def chunked(*chunks: bytes, path: str = PATH, end: bytes = b"0\r\n\r\n") -> bytes:
    """A request in chunks, as bytes."""
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def read_answer(connection: socket.socket) -> Answer:
    """One answer; ConnectionError when there is none."""
    return Answers(connection).next()


class Answers:
    """Answers on one connection, one after the other: their reader may read ahead."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = io.BufferedReader(_Bytes(connection))

    def makefile(self, mode: str) -> _Kept:
        return _Kept(self._file)

    def next(self, method: str = "POST") -> Answer:
        response = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]
        response.begin()
        return Answer(response.status, response.headers, response.read())

    def ended(self) -> bool:
        """Whether the server closed, with nothing left to read."""
        with suppress(ConnectionError):
            return self._file.read() == b""
        return True


class _Bytes(io.RawIOBase):
    """What comes on a socket that somebody else closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.recv_into(buffer)


class _Kept:
    """A file that stays open when an answer is through with it."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        pass


@contextmanager
def sending(server: RunningServer, *parts: bytes) -> Iterator[socket.socket]:
    """A connection on which these bytes were sent, if the server let them."""
    with server.socket() as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connection.sendall(part)
        yield connection


def ask_raw(server: RunningServer, parts: Sequence[bytes], *, half_close: bool = False) -> Answer:
    """Send bytes, and read the one answer."""
    with sending(server, *parts) as connection:
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return read_answer(connection)


def requests_total(server: RunningServer) -> dict[str, float]:
    """Requests by code, over all models."""
    counts: dict[str, float] = {}
    for line in server.get("/metrics").body.decode().splitlines():
        if line.startswith("modelport_requests_total{"):
            labels, _, number = line.rpartition(" ")
            code = labels.partition('code="')[2].partition('"')[0]
            counts[code] = counts.get(code, 0.0) + float(number)
    return counts


def in_flight(server: RunningServer, model: str) -> float:
    for line in server.get("/metrics").body.decode().splitlines():
        if line.startswith(f'modelport_requests_in_flight{{model="{model}"'):
            return float(line.rpartition(" ")[2])
    return 0.0
