"""Broken, slow and hostile clients against both HTTP transports; the others never notice."""

from __future__ import annotations

import http.client
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import onnx_models
from .conftest import Serve
from .http_faults import (
    BODY,
    GOOD,
    PATH,
    TRANSPORTS,
    Answers,
    ask_raw,
    chunked,
    in_flight,
    post,
    read_answer,
    requests_total,
    sending,
)
from .packages import build_package
from .running import LIMIT, RunningServer, ask

#: Steps of the laborious model that take from a second to several.
LONG = 400_000
MAX_BODY = 100_000
#: Of the servers here, so that nobody has to wait long.
BODY_SECONDS = "1"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def packages(module_path: Path) -> list[Path]:
    pair = {"x": np.array([[1, 2]], np.float32)}
    slow = {"n": np.array([0])}
    return [
        build_package(module_path / "pair", "pair", onnx_models.identity("float32"), pair).path,
        build_package(module_path / "slow", "slow", onnx_models.laborious(), slow).path,
    ]


def start(packages: list[Path], module_path: Path, transport: str) -> RunningServer:
    flags = ["--max-body", str(MAX_BODY), "--body-timeout", BODY_SECONDS, *TRANSPORTS[transport]]
    return RunningServer(module_path / f"server-{transport}", packages, flags)


@pytest.fixture(scope="module", params=TRANSPORTS)
def server(
    request: pytest.FixtureRequest, packages: list[Path], module_path: Path
) -> Iterator[RunningServer]:
    with start(packages, module_path, request.param) as running:
        yield running
        assert requests_total(running).get("500", 0) == 0
        log = running.log()
        assert "Traceback" not in log
        assert "defect" not in log


@pytest.fixture(scope="module")
def http1(packages: list[Path], module_path: Path) -> Iterator[RunningServer]:
    """The transport of our own, for what only it promises."""
    home = module_path / "own"
    flags = ["--max-body", str(MAX_BODY), "--body-timeout", BODY_SECONDS]
    with RunningServer(home, packages, flags) as running:
        yield running
        assert requests_total(running).get("500", 0) == 0
        assert "Traceback" not in running.log()
        assert "defect" not in running.log()


def assert_well(server: RunningServer) -> None:
    answer = server.request("POST", PATH, BODY)
    assert (answer.status, answer.json()) == (200, GOOD)


def test_one_byte_at_a_time(server: RunningServer) -> None:
    for request in (post(), chunked(BODY[:5], BODY[5:])):
        with server.socket() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(len(request)):
                connection.sendall(request[at : at + 1])
            assert read_answer(connection).json() == GOOD


@pytest.mark.parametrize("count", [2, 1000])
def test_pipelined_requests_are_answered_in_order(server: RunningServer, count: int) -> None:
    bodies = [b'{"instances": [[%d, 0]]}' % number for number in range(count)]
    stream = b"".join(
        chunked(body[:3], body[3:]) if number % 3 == 0 else post(body)
        for number, body in enumerate(bodies)
    )
    with server.socket() as connection:
        sender = threading.Thread(target=connection.sendall, args=(stream,), daemon=True)
        sender.start()
        answers = Answers(connection)
        for number in range(count):
            assert answers.next().json() == {"predictions": [[float(number), 0.0]]}
        sender.join(LIMIT)


def test_pipelined_behind_a_slow_one(server: RunningServer) -> None:
    slow = post(b'{"inputs": [20000]}', path="/v1/models/slow:predict")
    with sending(server, slow + post() + LIVE + post()) as connection:
        answers = Answers(connection)
        assert answers.next().json() == {"outputs": [22000.0]}
        assert answers.next().json() == GOOD
        assert answers.next().status == 200
        assert answers.next().json() == GOOD


BROKEN = {
    "length": post()[:-3],
    "chunk": chunked(BODY, end=b"")[:-4],
    "last chunk": chunked(BODY, end=b""),
    "no chunk": chunked(end=b""),
}


@pytest.mark.parametrize("request_bytes", BROKEN.values(), ids=BROKEN)
def test_bodies_that_break_off_are_counted_and_refused(
    server: RunningServer, request_bytes: bytes
) -> None:
    """Never answered as if they were whole: a part of a table may be a table."""
    before = requests_total(server)
    answer = ask_raw(server, [request_bytes], half_close=True)
    assert answer.status == 400
    assert "broke off" in answer.json()["error"]
    after = requests_total(server)
    assert after["400"] == before.get("400", 0) + 1
    assert_well(server)


@pytest.mark.parametrize("line", [b"zz\r\n", b"-1\r\n", b"5\r\nabcdefgh\r\n"])
def test_chunks_that_are_none(server: RunningServer, line: bytes) -> None:
    before = requests_total(server)
    answer = ask_raw(server, [chunked(BODY, end=b"") + line])
    assert answer.status == 400
    assert list(answer.json()) == ["error"]
    assert requests_total(server)["400"] == before.get("400", 0) + 1
    assert_well(server)


@pytest.mark.parametrize("request_bytes", [post()[:-3], chunked(BODY, end=b"")])
def test_bodies_that_never_end(server: RunningServer, request_bytes: bytes) -> None:
    """Answered with 408 although bytes keep coming, and the connection is closed."""
    with server.socket() as connection:
        connection.sendall(request_bytes[:-20])
        stop = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                for byte in request_bytes[-20:-2]:
                    if stop.wait(0.2):
                        return
                    connection.sendall(bytes([byte]))

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        answers = Answers(connection)
        answer = answers.next()
        assert answer.status == 408
        assert "did not arrive within 1 s" in answer.json()["error"]
        assert answer.headers["connection"] == "close"
        stop.set()
        dripping.join(LIMIT)
        assert answers.ended()
    assert_well(server)


def test_heads_that_never_end(server: RunningServer) -> None:
    with server.socket() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        with suppress(OSError):
            while True:
                connection.sendall(b"X: a\r\n")
                time.sleep(0.1)
        with suppress(OSError):
            connection.recv(65536)
    assert_well(server)


def test_a_slow_head_is_told_so(http1: RunningServer) -> None:
    before = requests_total(http1)
    assert ask_raw(http1, [b"GET / HTTP/1.1\r\nHo"]).status == 408
    assert requests_total(http1)["408"] == before.get("408", 0) + 1


def test_connections_without_a_request_are_closed(http1: RunningServer) -> None:
    with http1.socket() as connection:
        assert connection.recv(10) == b""


def test_connections_that_are_idle_stay(http1: RunningServer) -> None:
    """The limit is for requests; between them there is more time."""
    connection = http1.connect()
    assert ask(connection, "POST", PATH, BODY).json() == GOOD
    with http1.socket() as other:
        assert other.recv(10) == b""  # a limit of the other kind is over meanwhile
    kept = connection.sock
    assert ask(connection, "POST", PATH, BODY).json() == GOOD
    assert connection.sock is kept
    connection.close()


def test_ten_thousand_connections_come_and_go(server: RunningServer) -> None:
    kinds = [b"", b"G", LIVE, post()[:-5], b"\0\1\2", post()]
    for number in range(10_000):
        with server.socket() as connection:
            if number % 3 == 0:  # a reset, and no port in TIME-WAIT
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(kinds[number % len(kinds)])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert_well(server)
    server.wait_for("an end of the requests", lambda: in_flight(server, "pair") == 0)


def test_half_closed_after_a_request(http1: RunningServer) -> None:
    """Clients that close their half at once are answered, if the answer is quick."""
    for request in (post(), chunked(BODY), LIVE + post() + LIVE):
        assert ask_raw(http1, [request], half_close=True).status == 200


def test_a_client_that_leaves_is_not_computed_for(http1: RunningServer) -> None:
    """Of ten that left, hardly one is computed: those in the queue are given up."""
    slow = post(b'{"inputs": [%d]}' % LONG, path="/v1/models/slow:predict")
    connections = [http1.socket() for _ in range(10)]
    for connection in connections:
        connection.sendall(slow)
    http1.wait_for("their start", lambda: in_flight(http1, "slow") == 10)
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    http1.wait_for("their end", lambda: in_flight(http1, "slow") == 0)
    assert requests_total(http1)["other"] >= 10  # 499
    assert_well(http1)


def test_a_client_that_closes_politely_is_given_up_too(http1: RunningServer) -> None:
    before = requests_total(http1)
    with sending(http1, post(b'{"inputs": [%d]}' % (LONG * 100), path="/v1/models/slow:predict")):
        http1.wait_for("its start", lambda: in_flight(http1, "slow") == 1)
    http1.wait_for("its end", lambda: in_flight(http1, "slow") == 0)
    assert requests_total(http1)["other"] == before.get("other", 0) + 1


GARBAGE = [
    b"\0" * 100,
    b"\xff\xfe\xfd",
    b"HELO x\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"{}\r\n\r\n",
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_before_and_after(server: RunningServer, garbage: bytes) -> None:
    assert ask_raw(server, [garbage + post()]).status == 400
    with sending(server, post() + garbage) as connection:
        answers = Answers(connection)
        assert answers.next().json() == GOOD
        with suppress(http.client.HTTPException, ConnectionError):
            assert answers.next().status == 400
        assert answers.ended()
    assert_well(server)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 1_000_000),
        b"GET / HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"a" * 1_000_000),
        b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % (b"X: a\r\n" * 100_000),
        b"G" * 1_000_000,
    ],
    ids=["path", "value", "headers", "method"],
)
def test_giant_heads(server: RunningServer, head: bytes) -> None:
    assert ask_raw(server, [head]).status in (400, 414, 431)
    assert_well(server)


@pytest.mark.parametrize("framing", ["length", "chunks", "announced"])
def test_bodies_over_the_limit(server: RunningServer, framing: str) -> None:
    large = b" " * (10 * MAX_BODY)
    if framing == "length":
        parts = [post(large)]
    elif framing == "chunks":
        parts = [chunked(*[large[:50_000]] * 20)]
    else:
        parts = [post(large, b"Expect: 100-continue").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"]
    before = requests_total(server)
    answer = ask_raw(server, parts)
    assert answer.status == 413
    assert str(MAX_BODY) in answer.json()["error"]
    assert requests_total(server)["413"] == before.get("413", 0) + 1
    assert_well(server)


def test_expect_continue(server: RunningServer) -> None:
    head, _, body = post(BODY, b"Expect: 100-continue").partition(b"\r\n\r\n")
    with sending(server, head + b"\r\n\r\n") as connection:
        expected = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert connection.recv(len(expected), socket.MSG_WAITALL) == expected
        connection.sendall(body)
        assert read_answer(connection).json() == GOOD


@pytest.mark.parametrize("path", ["/v2", "/v2/health/ready", "/metrics", "/nothing"])
def test_head_has_no_body(server: RunningServer, path: str) -> None:
    request = b"HEAD %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()
    with sending(server, request + LIVE) as connection:
        answers = Answers(connection)
        first = answers.next("HEAD")
        assert first.status == server.get(path).status
        assert first.body == b""
        assert answers.next("GET").status == 200


def test_who_closes(server: RunningServer) -> None:
    with sending(server, post(BODY, b"Connection: close") + post()) as connection:
        answers = Answers(connection)
        assert answers.next().headers["connection"] == "close"
        assert answers.ended()
    old = b"GET /v2/health/live HTTP/1.0\r\nHost: x\r\n"
    with sending(server, old + b"\r\n") as connection:
        answers = Answers(connection)
        assert answers.next().status == 200
        assert answers.ended()
    with sending(server, old + b"Connection: keep-alive\r\n\r\n" + LIVE) as connection:
        answers = Answers(connection)
        assert answers.next().headers["connection"].lower() == "keep-alive"
        assert answers.next().status == 200


def test_a_client_that_does_not_read(http1: RunningServer) -> None:
    """It is asked for no more requests than fit, and cut in the end; the others go on."""
    with http1.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.2)
        with suppress(OSError):
            for _ in range(100_000):
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        assert_well(http1)
        with suppress(TimeoutError):  # it is still sending when it is cut
            connection.settimeout(LIMIT)
            with pytest.raises(ConnectionError):
                send_for_ever(connection)
    assert_well(http1)


def test_more_connections_than_files(packages: list[Path], module_path: Path) -> None:
    """Those that are idle make room, and those that never ask end by themselves."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (160, limits[1]))  # the server inherits it
    try:
        server = RunningServer(module_path / "few", packages, ["--body-timeout", BODY_SECONDS])
        server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with closing(server), ExitStack() as stack:
        server.wait_ready()
        connections = [stack.enter_context(server.socket()) for _ in range(400)]
        for connection in connections[-5:]:
            connection.sendall(post())
            assert read_answer(connection).json() == GOOD
        for connection in connections:
            with suppress(OSError):
                connection.sendall(b"POST / HT")
        server.wait_for("room", lambda: server.request("POST", PATH, BODY).status == 200)
        assert "Traceback" not in server.log()


def send_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(LIVE)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_draining_under_load(
    packages: list[Path], serve: Serve, transport: str, workers: str
) -> None:
    """Whatever was asked is answered rightly or not at all, and the server ends with 0."""
    server = serve(packages, ["--workers", workers, *TRANSPORTS[transport]])
    wrong: list[Any] = []
    answered = [0] * 8

    def client(number: int) -> None:
        connection = server.connect()
        try:
            while True:
                answer = ask(connection, "POST", PATH, BODY)
                if (answer.status, answer.json()) != (200, GOOD):
                    wrong.append(answer)
                answered[number] += 1
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    server.wait_for("a load", lambda: min(answered) > 20)
    server.process.terminate()
    assert server.wait_exit() == 0
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert not wrong
    assert "Traceback" not in server.log()
