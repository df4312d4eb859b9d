"""Compressed bodies, both ways: what headers say, and real servers."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zstandard

from modelport.core.errors import InputError, LimitError, MediaTypeError
from modelport.serve.base import Response
from modelport.serve.compression import compress, decompress

from . import onnx_models
from .packages import build_package
from .running import RunningServer

BODY = json.dumps({"instances": [[1.5] * 8] * 1000}).encode()
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": zstandard.decompress,
}
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}
MAX_BODY = 1_000_000


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("deflate", "deflate"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("gzip ; q=0.5 , deflate ; q=0.6", "deflate"),
        ("*", "zstd"),
        ("zstd;q=0, *", "gzip"),
        ("zstd;q=0, gzip;q=0.000, *;q=0.1", "deflate"),
        ("*;q=0", None),
        ("gzip;q=0", None),
        ("gzip;q=0, *;q=0", None),
        ("identity", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("identity;q=0", None),
        ("identity;q=0, *", "zstd"),
        ("br", None),
        ("", None),
        (",,;q=1,", None),
        ("gzip;q=nan", None),
        ("gzip;q=-1", None),
        ("gzip;q=2", None),
        ("gzip;q=", None),
        ("gzip;q=x, deflate", "deflate"),
        ("gzip;level=9", "gzip"),
    ],
)
def test_what_a_client_accepts(accepted: str, chosen: str | None) -> None:
    answer = compress(Response(200, BODY), accepted)
    headers = dict(answer.headers)
    assert headers["content-type"] == "application/json"
    assert headers.get("content-encoding") == chosen
    assert (headers.get("vary") == "accept-encoding") == (chosen is not None)
    assert (DECODERS[chosen](answer.body) if chosen else answer.body) == BODY


def test_what_has_a_coding_stays() -> None:
    response = Response(200, BODY, (("content-encoding", "br"),))
    assert compress(response, "gzip") is response


@pytest.mark.parametrize("coding", [*ENCODERS, "x-gzip", "GZIP", " gzip ", "identity, gzip,"])
def test_requests(coding: str) -> None:
    encoder = ENCODERS.get(coding, gzip.compress)
    assert decompress(encoder(BODY), coding, MAX_BODY) == BODY


def test_codings_within_codings() -> None:
    """They are undone from the last to the first, and each is bounded."""
    nested = zstandard.compress(gzip.compress(BODY))
    assert decompress(nested, "gzip, zstd", MAX_BODY) == BODY
    with pytest.raises(InputError):
        decompress(nested, "zstd, gzip", MAX_BODY)
    bomb = gzip.compress(gzip.compress(bytes(50 * MAX_BODY), 9), 9)
    assert len(bomb) < 5000
    with pytest.raises(LimitError):
        decompress(bomb, "gzip, gzip", MAX_BODY)
    with pytest.raises(MediaTypeError, match="3 codings"):
        decompress(nested, "gzip, gzip, gzip", MAX_BODY)


@pytest.mark.parametrize("coding", ["br", "gzip, br", "compress", "gzip;q=1", "*", "x" * 1000])
def test_unknown_codings(coding: str) -> None:
    with pytest.raises(MediaTypeError, match="known here: zstd, gzip, x-gzip, deflate") as caught:
        decompress(BODY, coding, MAX_BODY)
    assert len(caught.value.line) < 200


def test_an_empty_body_stays_empty() -> None:
    assert decompress(b"", "gzip", MAX_BODY) == b""


@pytest.fixture(scope="module", params=[[], ["--http2"]], ids=["http1", "http2"])
def server(request: pytest.FixtureRequest, module_path: Path) -> Iterator[RunningServer]:
    golden = {"x": np.array([[1, 2]], np.float32)}
    name = f"pair-{len(request.param)}"
    model = onnx_models.identity("float32")
    path = build_package(module_path / name, "pair", model, golden).path
    flags = ["--max-body", str(MAX_BODY), "--compress-above", "1000", *request.param]
    with RunningServer(module_path / f"server-{name}", [path], flags) as running:
        yield running
        assert "Traceback" not in running.log()


PATH = "/v1/models/pair:predict"
ROWS = {"instances": [[1.5, 2.0]] * 500}


@pytest.mark.parametrize("coding", ENCODERS)
def test_a_server_both_ways(server: RunningServer, coding: str) -> None:
    body = ENCODERS[coding](json.dumps(ROWS).encode())
    headers = {"Content-Encoding": coding, "Accept-Encoding": coding}
    answer = server.request("POST", PATH, body, headers)
    assert (answer.status, answer.headers["content-encoding"]) == (200, coding)
    assert json.loads(DECODERS[coding](answer.body)) == {"predictions": ROWS["instances"]}


def test_small_answers_stay_as_they_are(server: RunningServer) -> None:
    answer = server.post(PATH, {"instances": [[1, 2]]}, {"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] is None
    assert answer.json() == {"predictions": [[1.0, 2.0]]}


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", b"{}", 400),
        ("gzip", gzip.compress(b"{}")[:-1], 400),
        ("gzip", gzip.compress(bytes(50 * MAX_BODY), 9), 413),
        ("gzip, gzip", gzip.compress(gzip.compress(bytes(50 * MAX_BODY), 9), 9), 413),
        ("deflate", zlib.compress(bytes(50 * MAX_BODY), 9), 413),
        ("zstd", zstandard.compress(bytes(50 * MAX_BODY)), 413),
        ("zstd", b"(\xb5/\xfd", 400),
        ("br", b"{}", 415),
    ],
)
def test_a_server_refuses(server: RunningServer, coding: str, body: bytes, status: int) -> None:
    answer = server.request("POST", PATH, body, {"Content-Encoding": coding})
    assert answer.status == status
    assert list(answer.json()) == ["error"]
    assert server.post(PATH, {"instances": [[1, 2]]}).status == 200
