"""Nothing that a client sends may stop the server, show its insides or disturb others."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .bad_bodies import (
    GOOD_HEAD,
    HEADER,
    INSIDES,
    NO_OBJECT,
    OIP,
    PADDING,
    TFSERVING,
    Bad,
    assert_refused,
    assert_unharmed,
    binary_request,
    path_of,
    write_packages,
)
from .running import LIMIT, Answer, RunningServer, ask

MAX_BODY = 64 << 20


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    with RunningServer(module_path / "server", write_packages(module_path)) as running:
        yield running
        # Whatever the tests sent, nothing was unforeseen.
        assert "Traceback" not in running.log()
        assert "defect" not in running.log()


@pytest.fixture(scope="module")
def bystander(server: RunningServer) -> Iterator[http.client.HTTPConnection]:
    """A connection of somebody who sends good requests all along."""
    connection = server.connect()
    yield connection
    connection.close()


SIZES = pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
Bystander = http.client.HTTPConnection


@SIZES
@pytest.mark.parametrize("protocol", ["tfserving", "oip"])
@pytest.mark.parametrize("body", NO_OBJECT.values(), ids=NO_OBJECT)
def test_no_request_at_all(
    server: RunningServer, bystander: Bystander, protocol: str, body: bytes, padding: bytes
) -> None:
    assert_refused(server.request("POST", path_of(protocol, "pair"), padding + body))
    assert_unharmed(bystander)


@SIZES
@pytest.mark.parametrize("bad", TFSERVING.values(), ids=TFSERVING)
def test_tfserving(server: RunningServer, bystander: Bystander, bad: Bad, padding: bytes) -> None:
    path = path_of("tfserving", bad.model)
    error = assert_refused(server.request("POST", path, padding + bad.body))
    assert bad.message in error
    assert_unharmed(bystander)


@SIZES
@pytest.mark.parametrize("bad", OIP.values(), ids=OIP)
def test_oip(server: RunningServer, bystander: Bystander, bad: Bad, padding: bytes) -> None:
    path = path_of("oip", bad.model)
    error = assert_refused(server.request("POST", path, padding + bad.body))
    assert bad.message in error
    assert_unharmed(bystander)


@pytest.mark.parametrize(
    ("model", "head", "buffers", "header"),
    [
        *(
            pytest.param("pair", GOOD_HEAD, b"\0" * 8, header, id=f"header {header[:12]!r}")
            for header in (
                "-1", "+1", "1.0", "0x10", "one", "", "1 2", "1,2", "²", "١", "9" * 5000, "1e1",
                str(len(GOOD_HEAD) - 1), str(len(GOOD_HEAD) + 1), str(len(GOOD_HEAD) + 9),
                "9223372036854775808",
            )
        ),
        pytest.param("pair", GOOD_HEAD, b"\0" * 7, None, id="a byte too few"),
        pytest.param("pair", GOOD_HEAD, b"\0" * 9, None, id="a byte too many"),
        pytest.param("pair", GOOD_HEAD, b"", None, id="no bytes"),
        pytest.param("pair", binary_request([1, 2], 4), b"\0" * 4, None, id="size too small"),
        pytest.param("pair", binary_request([1, 2], 12), b"\0" * 12, None, id="size too large"),
        pytest.param("pair", binary_request([3], 12), b"\0" * 12, None, id="wrong rank"),
        pytest.param("pair", binary_request([1, 2], 2**70), b"\0" * 8, None, id="huge size"),
        pytest.param("pair", binary_request([2**40, 2**40], 8), b"\0" * 8, None, id="huge shape"),
        pytest.param("finite", GOOD_HEAD, b"\0\0\xc0\x7f" * 2, None, id="NaN"),
        pytest.param("flags", binary_request([1, 2], 2, kind="BOOL"), b"\1\2", None, id="BOOL 2"),
        *(
            pytest.param(
                "text", binary_request([1, 2], len(data), kind="BYTES"), data, None,
                id=f"BYTES {name}",
            )
            for name, data in {
                "cut in a length": b"\1\0\0\0a\1\0",
                "cut in a string": b"\1\0\0\0a\4\0\0\0b",
                "of 4 GiB": b"\1\0\0\0a\xff\xff\xff\xff",
                "one too few": b"\1\0\0\0a",
                "one too many": b"\1\0\0\0a" * 3,
                "broken UTF-8": b"\1\0\0\0a\1\0\0\0\xff",
            }.items()
        ),
    ],
)  # fmt: skip
def test_binary_requests(
    server: RunningServer,
    bystander: Bystander,
    model: str,
    head: bytes,
    buffers: bytes,
    header: str | None,
) -> None:
    value = str(len(head)) if header is None else header
    request = (
        f"POST {path_of('oip', model)} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
        f"Content-Length: {len(head + buffers)}\r\n{HEADER}: {value}\r\n\r\n"
    ).encode()
    assert_refused(send(server, request + head + buffers))
    assert_unharmed(bystander)


def send(server: RunningServer, *parts: bytes) -> Answer:
    """Send bytes as they are and read one answer, even when not all can be sent."""
    with server.socket() as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connection.sendall(part)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return Answer(response.status, response.headers, response.read())


@pytest.mark.parametrize("protocol", ["tfserving", "oip"])
@pytest.mark.parametrize("framing", ["length", "chunked", "announced"])
def test_bodies_of_100_megabytes(
    server: RunningServer, bystander: Bystander, protocol: str, framing: str
) -> None:
    head = f"POST {path_of(protocol, 'pair')} HTTP/1.1\r\nHost: test\r\n".encode()
    mebibyte = b" " * (1 << 20)
    if framing == "chunked":
        chunk = b"100000\r\n" + mebibyte + b"\r\n"
        parts = [head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 100, b"0\r\n\r\n"]
    elif framing == "length":
        parts = [head + b"Content-Length: 104857600\r\n\r\n", *[mebibyte] * 100]
    else:
        # Not one byte of it: the server must not wait for what it will not read.
        parts = [head + b"Content-Length: 104857600\r\nExpect: 100-continue\r\n\r\n"]
    error = assert_refused(send(server, *parts), (413,))
    assert str(MAX_BODY) in error
    assert_unharmed(bystander)


def test_the_largest_body_that_is_allowed(server: RunningServer, bystander: Bystander) -> None:
    good = b'{"instances": [[1.5, 2]]}'
    body = b" " * (MAX_BODY - len(good)) + good
    for extra, status in ((b"", 200), (b" ", 413)):
        head = (
            f"POST {path_of('tfserving', 'pair')} HTTP/1.1\r\nHost: test\r\n"
            f"Content-Length: {len(body + extra)}\r\n\r\n"
        )
        assert send(server, head.encode(), body, extra).status == status
    assert_unharmed(bystander)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\xff\xfe garbage\r\n\r\n",
        b"POST /v1/models/pair:predict HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n{}",
        b"POST /v1/models/pair:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /v1/models/pair:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\n\r\n"
        % (b"9" * 30),
        b"POST /v1/models/pair:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
        b"Content-Length: 3\r\n\r\n{} ",
        b"POST /v1/models/pair:predict HTTP/1.1\r\nHost: x\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/models/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 300_000),
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: %b\r\n\r\n" % (b"a" * 3_000_000),
        b"GET  HTTP/9.9\r\n\r\n",
    ],
    ids=[
        "TLS",
        "garbage",
        "length of letters",
        "negative length",
        "huge length",
        "two lengths",
        "bad chunk",
        "path that is no ASCII",
        "long path",
        "large header",
        "bad version",
    ],
)
def test_no_http(server: RunningServer, bystander: Bystander, request_bytes: bytes) -> None:
    answer = send(server, request_bytes)
    assert 400 <= answer.status < 500
    assert not INSIDES.search(answer.body.decode())
    assert_unharmed(bystander)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("reset", [False, True])
def test_clients_that_leave_in_the_middle(
    server: RunningServer, bystander: Bystander, framing: bytes, reset: bool
) -> None:
    for _ in range(10):
        with server.socket() as connection:
            connection.sendall(
                b"POST /v1/models/pair:predict HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n1\r\n{" % framing
            )
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert_unharmed(bystander)


def test_a_model_that_fails_says_so(server: RunningServer, bystander: Bystander) -> None:
    for protocol, body in (
        ("tfserving", b'{"instances": [3, 99]}'),
        ("oip", b'{"inputs": [{"name":"i","shape":[1],"datatype":"INT64","data":[-11]}]}'),
    ):
        answer = server.request("POST", path_of(protocol, "lookup"), body)
        error = assert_refused(answer, (500,))
        assert "out of data bounds" in error
    assert server.post("/v1/models/lookup:predict", {"instances": [3]}).status == 200
    assert_unharmed(bystander)


def test_equal_keys(server: RunningServer) -> None:
    """The last one counts, whichever parser reads the body."""
    body = b'{"instances": [["a", 1]], "instances": [[3, 4]]}'
    nested = b'{"inputs": {"x": [[1]], "x": [[3, 4]]}}'
    for padding in (b"", PADDING):
        answer = server.request("POST", path_of("tfserving", "pair"), padding + body)
        assert answer.json() == {"predictions": [[3.0, 4.0]]}
        answer = server.request("POST", path_of("tfserving", "pair"), padding + nested)
        assert answer.json() == {"outputs": [[3.0, 4.0]]}


def test_bad_requests_at_the_same_time_as_good_ones(server: RunningServer) -> None:
    """Half of the clients send nonsense; the other half never notices."""
    bodies = [bad.body for bad in TFSERVING.values() if bad.model == "pair"]
    wrong: list[Any] = []

    def attack(offset: int) -> None:
        connection = server.connect()
        for body in bodies[offset:] + bodies[:offset]:
            answer = ask(connection, "POST", path_of("tfserving", "pair"), body)
            if answer.status != 400:
                wrong.append((body, answer))
        connection.close()

    def use(seed: int) -> None:
        connection = server.connect()
        for number in range(len(bodies)):
            row = [float(seed), float(number)]
            body = json.dumps({"instances": [row]}).encode()
            answer = ask(connection, "POST", path_of("tfserving", "pair"), body)
            if answer.json() != {"predictions": [row]}:
                wrong.append((row, answer))
        connection.close()

    run_together([partial(job, number) for job in (attack, use) for number in range(4)])
    assert not wrong


def run_together(jobs: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
