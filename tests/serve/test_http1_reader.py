"""The reader of HTTP/1.1 by itself: what it takes, what it refuses, however it is cut."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from modelport.adapters import find_adapter
from modelport.serve.base import Response

find_adapter("transport", "http1").load()

from importlib import import_module  # noqa: E402

reader_module: Any = import_module("modelport.serve.transports.http1.reader")
heads_module: Any = import_module("modelport.serve.transports.http1.heads")
answers_module: Any = import_module("modelport.serve.transports.http1.answers")
Head = heads_module.Head
BadRequest = heads_module.BadRequestError
BodyRefused = reader_module.BodyRefusedError

LIMIT = 1000
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def new_reader(heads: Any = None) -> Any:
    return reader_module.Reader(
        heads or heads_module.Heads(),
        100,
        LIMIT,
        lambda head, anything: None,
        lambda head: Response(413, b"too large"),
    )


def read_all(pieces: Iterable[bytes], heads: Any = None) -> list[Any]:
    """Requests as (method, path, body), and the status of what ends them all."""
    reader = new_reader(heads)
    found: list[Any] = []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (request := reader.next()) is not None:
                head, body = request
                found.append((head.method, head.path, body))
        except BadRequest as error:
            return [*found, error.status]
        except BodyRefused as refused:
            return [*found, refused.response.status]
    return [*found, "more"] if reader.begun else found


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def post(headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /p HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked\r\n"

#: Streams, and the requests that are in them.
STREAMS: dict[str, tuple[bytes, list[Any]]] = {
    "get": (GET, [("GET", "/a", b"")]),
    "pipelined": (GET * 50, [("GET", "/a", b"")] * 50),
    "empty lines before": (b"\r\n\r\n" + GET, [("GET", "/a", b"")]),
    "length": (post(b"Content-Length: 3\r\n", b"abc") + GET, [("POST", "/p", b"abc"), ("GET", "/a", b"")]),  # noqa: E501
    "length of zero": (post(b"Content-Length: 0\r\n") + GET, [("POST", "/p", b""), ("GET", "/a", b"")]),  # noqa: E501
    "no length": (post(b"") + GET, [("POST", "/p", b""), ("GET", "/a", b"")]),
    "large": (post(b"Content-Length: 900\r\n", b"a" * 900), [("POST", "/p", b"a" * 900)]),
    "chunks": (
        post(CHUNKED, b"3\r\nabc\r\n00A;x=y\r\n0123456789\r\n0\r\n\r\n") + GET,
        [("POST", "/p", b"abc0123456789"), ("GET", "/a", b"")],
    ),
    "no chunk": (post(CHUNKED, b"0\r\n\r\n") + GET, [("POST", "/p", b""), ("GET", "/a", b"")]),
    "chunks that look like requests": (
        post(CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(GET), GET)),
        [("POST", "/p", GET)],
    ),
    "trailers": (
        post(CHUNKED, b"1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n") + GET,
        [("POST", "/p", b"a"), ("GET", "/a", b"")],
    ),
    "chunked in capitals": (post(b"transfer-ENCODING:\t CHUNKED \r\n", b"0\r\n\r\n"), [("POST", "/p", b"")]),  # noqa: E501
    "absolute target": (b"GET http://h:1/a?b HTTP/1.1\r\nHost: x\r\n\r\n", [("GET", "/a", b"")]),
    "escapes": (b"GET /%61%20%c3%a9%ff%zz%2525 HTTP/1.1\r\nHost: x\r\n\r\n", [("GET", "/a é\ufffd%zz%25", b"")]),  # noqa: E501
    "HTTP/1.0": (b"GET /a HTTP/1.0\r\n\r\n", [("GET", "/a", b"")]),
    "upgrade": (b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n" + GET, [("GET", "/a", b"")] * 2),  # noqa: E501
    "cut in the head": (GET[:-2], ["more"]),
    "cut in the length": (post(b"Content-Length: 3\r\n", b"ab"), ["more"]),
    "cut in a chunk": (post(CHUNKED, b"3\r\nab"), ["more"]),
    "cut before the last chunk": (post(CHUNKED, b"3\r\nabc\r\n"), ["more"]),
    "cut in the end": (post(CHUNKED, b"3\r\nabc\r\n0\r\n\r"), ["more"]),
}  # fmt: skip

#: Streams that are refused, with the status; from every list of smuggling attacks.
REFUSED: dict[str, tuple[bytes, int]] = {
    "CL.TE": (post(b"Content-Length: 6\r\n" + CHUNKED, b"0\r\n\r\nG"), 400),
    "TE.CL": (post(CHUNKED + b"Content-Length: 6\r\n", b"0\r\n\r\nG"), 400),
    "two lengths": (post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"), 400),
    "two equal lengths": (post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"), 400),
    "a list of lengths": (post(b"Content-Length: 3, 3\r\n", b"abc"), 400),
    "two encodings": (post(CHUNKED + CHUNKED, b"0\r\n\r\n"), 400),
    **{
        f"encoding {value!r}": (post(b"Transfer-Encoding: " + value + b"\r\n", b"0\r\n\r\n"), 400)
        for value in (
            b"", b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked",
            b"xchunked", b"chunkedx", b"chunked;q=1", b'"chunked"', b"\x0bchunked", b"chunked\x0b",
            b"chunk", b"chunked,", b",chunked", b"\xa0chunked", b"identity, chunked",
        )
    },
    **{
        f"length {value!r}": (post(b"Content-Length: " + value + b"\r\n", b"abc"), 400)
        for value in (
            b"", b"-1", b"+3", b"3.0", b"0x3", b"3 3", b"three", b"3;a", b"\xb3", b"9" * 19,
            b"9" * 400, b"18446744073709551617", b"1_0", b"\x003",
        )
    },
    "a space before the colon": (post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), 400),
    "a tab before the colon": (post(b"Content-Length\t: 3\r\n", b"abc"), 400),
    "a folded header": (post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), 400),
    "a folded header, tab": (post(b"X: a\r\n\tb\r\n"), 400),
    "a space before the first header": (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: x\n\n" + GET, 400),
    "a bare line feed in a header": (post(b"X: a\nContent-Length: 3\r\n", b"abc"), 400),
    "a bare carriage return": (post(b"X: a\rContent-Length: 3\r\n", b"abc"), 400),
    "a null in a header": (post(b"X: a\0b\r\n"), 400),
    "a null in a name": (post(b"X\0: a\r\n"), 400),
    "a null in the path": (b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a space in the path": (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a name without a colon": (post(b"Xabc\r\n"), 400),
    "a header without a name": (post(b": a\r\n"), 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/0.9 named": (b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", 400),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/11": (b"GET / HTTP/11.1\r\nHost: x\r\n\r\n", 400),
    "small http": (b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
    "an unknown method": (b"FETCH / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a small method": (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "CONNECT": (b"CONNECT h:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "another scheme": (b"GET ftp://h/a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a path that is no ASCII": (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "another expectation": (post(b"Expect: cake\r\nContent-Length: 3\r\n", b"abc"), 417),
    "too many headers": (post(b"A: b\r\n" * 200), 431),
    "a huge head": (post(b"A: " + b"b" * 70_000 + b"\r\n"), 431),
    "a huge path": (b"GET /" + b"a" * 70_000, 431),
    "a huge body": (post(CHUNKED, b"3e9\r\n"), 413),
    "a body that grows too large": (post(CHUNKED, b"64\r\n" + b"a" * 100 + b"\r\n385\r\n"), 413),
    "garbage": (b"\x00\xff garbage", 400),
    "TLS": (b"\x16\x03\x01\x02\x00", 400),
    **{
        f"chunk {lines[:20]!r}": (post(CHUNKED, lines), 400)
        for lines in (
            b"zz\r\n", b"\r\n", b" 3\r\nabc\r\n", b"3 \r\nabc\r\n", b"+3\r\nabc\r\n", b"-3\r\nabc\r\n",  # noqa: E501
            b"0x3\r\nabc\r\n", b"3\nabc\r\n", b"3\rabc\r\n\n", b"3\r\nabcd\r\n", b"3\r\nab\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n", b"3\r\nabcX0\r\n\r\n", b"f" * 16 + b"\r\n", b"3;\0\r\nabc\r\n",
            b"3;a\rb\r\nabc\r\n", b"3;" + b"a" * 5000 + b"\r\n", b"0\r\nX\r\n\r\n", b"0\r\n X: a\r\n\r\n",  # noqa: E501
            b"0\r\nX : a\r\n\r\n", b"0\n\r\n", b"0\r\nX: a\n\r\n", b"1_0\r\n", b"\xd9\xa3\r\nabc\r\n",  # noqa: E501
            (b"1;" + b"a" * 2000 + b"\r\na\r\n") * 9, b"0\r\n" + (b"X: " + b"a" * 2000 + b"\r\n") * 9,  # noqa: E501
        )
    },
}  # fmt: skip


@pytest.mark.parametrize(("stream", "requests"), STREAMS.values(), ids=STREAMS)
def test_requests(stream: bytes, requests: list[Any]) -> None:
    assert read_all([stream]) == requests
    assert read_all(one_by_one(stream)) == requests


@pytest.mark.parametrize(("stream", "status"), REFUSED.values(), ids=REFUSED)
def test_refusals(stream: bytes, status: int) -> None:
    """Nothing of it is answered, and not what follows either."""
    assert read_all([stream + GET]) == [status]
    assert read_all([*one_by_one(stream[:2000]), stream[2000:], GET]) == [status]
    assert read_all([GET + stream + GET]) == [("GET", "/a", b""), status]


@pytest.mark.parametrize("seed", range(50))
def test_every_cut_is_read_alike(seed: int) -> None:
    """Also when heads are known already."""
    chance = random.Random(seed)
    whole = [item for item in STREAMS.values() if "more" not in item[1]]
    chosen = chance.choices(whole, k=30)
    stream = b"".join(part for part, _ in chosen)
    expected = [request for _, requests in chosen for request in requests]
    heads = heads_module.Heads()
    for _ in range(3):
        cuts = sorted(chance.sample(range(len(stream)), 40))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        assert read_all(pieces, heads) == expected


@pytest.mark.parametrize("seed", range(30))
def test_damage_is_refused_or_read_alike(seed: int) -> None:
    """Whatever the bytes are, how they are cut decides nothing; and nothing else is raised."""
    chance = random.Random(seed)
    streams = [*STREAMS.values(), *((stream, None) for stream, _ in REFUSED.values())]
    for _ in range(100):
        stream = bytearray(b"".join(part for part, _ in chance.choices(streams, k=3))[:3000])
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(stream))
            stream[at : at + chance.randrange(3)] = chance.choice(
                [b"\r", b"\n", b"\0", b" ", b":", b"0", b"\xff", b"\r\n", b"\r\n\r\n", b","]
            )
        data = bytes(stream)
        at = chance.randrange(len(data))
        assert read_all([data]) == read_all([data[:at], data[at:]]) == read_all(one_by_one(data))


def test_what_a_head_says() -> None:
    heads = heads_module.Heads()
    data = (
        b"POST /a%2Fb?c=%20&d#e HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\nKey: \xc3\xa9\xff\r\n"
        b"Expect: 100-Continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    )
    head = heads.read(data)
    assert (head.method, head.path, head.query) == ("POST", "/a/b", "c=%20&d")
    assert head.headers["x-a"] == "1, 2"
    assert head.headers["key"] == "é\\xff"
    assert (head.length, head.keep_alive, head.old, head.expects) == (5, False, False, True)
    assert heads.read(data) is head


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", "", True), ("1.1", "close", False), ("1.1", "Close, x", False),
        ("1.0", "", False), ("1.0", "keep-alive", True), ("1.0", "Keep-Alive", True),
    ],
)  # fmt: skip
def test_who_goes_on(version: str, connection: str, kept: bool) -> None:
    data = f"GET / HTTP/{version}\r\nHost: x\r\nConnection: {connection}\r\n\r\n".encode()
    assert heads_module.Heads().read(data).keep_alive is kept


def test_blanks_behind_a_value_are_none_of_it() -> None:
    """RFC 9110 §5.5; llhttp leaves them."""
    data = b"POST /a HTTP/1.1\r\nHost: x\r\nX-API-Key:  a key \t \r\nContent-Length: 3 \r\n\r\nabc"
    reader = new_reader()
    reader.feed(data)
    head, body = reader.next()
    assert (head.headers["x-api-key"], body) == ("a key", b"abc")


def test_not_everything_is_remembered() -> None:
    heads = heads_module.Heads()
    for number in range(2000):
        heads.read(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
    heads.read(b"GET / HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"a" * 5000))
    assert len(heads._known) <= 512
    assert max(map(len, heads._known)) <= 2048


@pytest.mark.parametrize("value", ["a\r\nx: b", "a\nb", "a\0", "\x7f"])
def test_no_answer_forges_headers(value: str) -> None:
    answers = answers_module.Answers()
    with pytest.raises(ValueError, match="control character"):
        answers.write(Response(200, b"", (("x-a", value),)))


def test_answers() -> None:
    answers = answers_module.Answers()
    (text,) = answers.write(Response(200, b"{}"), b"connection: close\r\n")
    first, date, *rest = text.split(b"\r\n")
    assert first == b"HTTP/1.1 200 OK"
    assert date.startswith(b"date: ")
    assert date.endswith(b" GMT")
    assert rest == [
        b"content-type: application/json", b"connection: close", b"content-length: 2", b"", b"{}",
    ]  # fmt: skip
    (text,) = answers.write(Response(200, b""), to_head=True)
    assert b"content-length" not in text
    (text,) = answers.write(Response(404, b"{}"), to_head=True)
    assert text.endswith(b"content-length: 2\r\n\r\n")
    (text,) = answers.write(Response(204, b""))
    assert b"content-length" not in text
    assert b"".join(answers.write(Response(200, bytes(100_000)))).endswith(bytes(100_000))
    (text,) = answers.write(Response(299, b"", [("x", "y")]))  # type: ignore[arg-type]
    assert text.startswith(b"HTTP/1.1 299 \r\n")
