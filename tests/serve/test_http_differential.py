"""The same bytes to both HTTP transports: two parsers that share no line must agree.

Where our own one refuses more than Granian (hyper) does, that is meant; where it would answer a
request that the other does not see, that would be smuggling.
"""

from __future__ import annotations

import http.client
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from . import onnx_models
from .http_faults import TRANSPORTS, Answers, chunked, post
from .packages import build_package
from .running import RunningServer
from .test_http1_reader import REFUSED, STREAMS

Pair = tuple[RunningServer, RunningServer]

LAST = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def pair(module_path: Path) -> Iterator[Pair]:
    golden = {"x": np.array([[1, 2]], np.float32)}
    model = onnx_models.identity("float32")
    path = build_package(module_path / "pair", "pair", model, golden).path
    flags = ["--max-body", "1000", "--body-timeout", "1"]
    with (
        RunningServer(module_path / "own", [path], [*flags, *TRANSPORTS["http1"]]) as own,
        RunningServer(module_path / "other", [path], [*flags, *TRANSPORTS["granian"]]) as other,
    ):
        yield own, other
        for server in (own, other):
            assert "Traceback" not in server.log()
            assert "defect" not in server.log()


def answers_to(server: RunningServer, pieces: list[bytes]) -> list[tuple[int, bytes]]:
    """Every answer until the connection ends, or nothing comes any more."""
    found: list[tuple[int, bytes]] = []
    with server.socket() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        answers = Answers(connection)
        connection.settimeout(3.0)  # damage may have taken the wish to close
        with suppress(OSError, http.client.HTTPException):
            while True:
                answer = answers.next()
                found.append((answer.status, answer.body))
    return found


def some_request(chance: random.Random) -> bytes:
    body = b'{"instances": [[%d, 2]]}' % chance.randrange(10**6)
    at = chance.randrange(1, len(body))
    return chance.choice(
        [
            post(body),
            post(body, b"X-Something: %d" % chance.randrange(99)),
            post(b"x" * chance.choice([0, 1, 50, 999])),
            chunked(body),
            chunked(body[:at], body[at:]),
            LAST.replace(b"Connection: close\r\n", b""),
            b"GET /v2/models/nothing HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\r\n" + post(body),
        ]
    )


@pytest.mark.parametrize("seed", range(40))
def test_good_requests_get_the_same_answers(pair: Pair, seed: int) -> None:
    chance = random.Random(seed)
    stream = b"".join(some_request(chance) for _ in range(chance.randrange(1, 20))) + LAST
    cuts = sorted(chance.sample(range(len(stream)), chance.randrange(8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    own, other = (answers_to(server, pieces) for server in pair)
    assert own == other
    assert own[-1][0] == 200


@pytest.mark.parametrize("stream", [stream for stream, _ in STREAMS.values()], ids=STREAMS)
def test_what_is_defined(pair: Pair, stream: bytes) -> None:
    own, other = ([status for status, _ in answers_to(server, [stream + LAST])] for server in pair)
    if stream == STREAMS["trailers"][0]:  # Granian cannot tell them from a body that broke off
        assert (own[0], other[0]) == (404, 400)
        return
    assert own == other or 400 <= own[-1] < 500


@pytest.mark.parametrize("stream", [stream for stream, _ in REFUSED.values()], ids=REFUSED)
def test_what_is_refused(pair: Pair, stream: bytes) -> None:
    """Ours answers nothing behind it, whatever the other does."""
    for server in pair:
        answers = answers_to(server, [stream + LAST])
        assert not [status for status, _ in answers if status >= 500]
        if server is pair[0]:
            assert [status for status, _ in answers if status < 400] == []
            assert len(answers) == 1


@pytest.mark.parametrize("seed", range(120))
def test_damaged_streams_are_never_seen_as_more(pair: Pair, seed: int) -> None:
    """What ours answers, the other answers alike, in this order; ours may stop earlier."""
    chance = random.Random(1000 + seed)
    stream = bytearray(b"".join(some_request(chance) for _ in range(3)) + LAST)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(stream))
        stream[at : at + chance.randrange(3)] = chance.choice(
            [b"\r", b"\n", b"\0", b" ", b":", b"0", b"\xff", b"\r\n", b"\r\n\r\n", b",", b"1", b";"]
        )
    own, other = (answers_to(server, [bytes(stream)]) for server in pair)
    good = [answer for answer in own if answer[0] == 200]
    theirs = [answer for answer in other if answer[0] == 200]
    assert good == theirs[: len(good)]
