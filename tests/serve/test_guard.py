"""Nobody without a key gets past the guard: every route, path and method of HTTP."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelport.core.options import MIB
from modelport.serve.base import Route, WireProtocol

from . import running
from .guarded import (
    ACCEPTED,
    KEY,
    NAME,
    REFUSED,
    ROUTES,
    Guarded,
    assert_no_key,
    path_of,
    write_guarded_package,
    write_keys,
)
from .routes import FLAGS, routes_of
from .running import Answer, RunningServer


@pytest.fixture(scope="module")
def package(module_path: Path) -> Path:
    return write_guarded_package(module_path)


@pytest.fixture(scope="module")
def keys(module_path: Path) -> Path:
    return write_keys(module_path)


TRANSPORTS = ("--no-http2", "--http2")


@pytest.fixture(scope="module", params=TRANSPORTS)
def server(
    request: pytest.FixtureRequest, module_path: Path, package: Path, keys: Path
) -> Iterator[RunningServer]:
    """Health routes are open."""
    flags = [*FLAGS, "--api-key-file", keys, request.param]
    with Guarded(module_path / f"server{request.param}", [package], flags) as running:
        yield running
        assert_no_key(running.log())


@pytest.fixture(scope="module", params=TRANSPORTS)
def closed(
    request: pytest.FixtureRequest, module_path: Path, package: Path, keys: Path
) -> Iterator[RunningServer]:
    """Health routes are guarded."""
    flags = [*FLAGS, "--api-key-file", keys, "--guard-health", request.param]
    with Guarded(module_path / f"closed{request.param}", [package], flags) as running:
        yield running
        assert_no_key(running.log())


def assert_refused(answer: Answer) -> None:
    assert answer.status == 401, answer.body
    assert answer.headers["www-authenticate"] == "Bearer"
    assert b"no valid API key" in answer.body
    assert_no_key(answer.body)


@ROUTES
def test_every_route_wants_a_key(
    server: RunningServer, protocol: WireProtocol, route: Route
) -> None:
    connection = server.connect()
    with contextlib.closing(connection):
        for headers in REFUSED.values():
            answer = running.ask(connection, route.method, path_of(route), b"", headers)
            if route.health:
                assert answer.status != 401, answer.body
            else:
                assert_refused(answer)


@ROUTES
def test_health_routes_can_be_guarded(
    closed: RunningServer, protocol: WireProtocol, route: Route
) -> None:
    connection = closed.connect()
    with contextlib.closing(connection):
        for headers in REFUSED.values():
            assert_refused(running.ask(connection, route.method, path_of(route), b"", headers))
        for headers in ACCEPTED.values():
            answer = running.ask(connection, route.method, path_of(route), b"", headers)
            assert answer.status != 401, answer.body
            assert "www-authenticate" not in answer.headers
            assert_no_key(answer.body)


def test_probes_need_no_key_by_default() -> None:
    """The routes that a platform's probe asks, and no others."""
    open_routes = {route.example for _, route in routes_of("protocol") if route.health}
    assert {"/", "/v2/health/live", "/v2/health/ready"} <= open_routes
    assert not {path for path in open_routes if re.search("metrics|openapi|infer|predict", path)}
    assert all(route.answer is not None for _, route in routes_of("protocol") if route.health)


@pytest.mark.parametrize(
    "path",
    ["/v1/models/other", "/v2/models/other/ready", f"/v2/models/{NAME}/versions/7/ready"],
)
def test_probes_learn_no_names(server: RunningServer, path: str) -> None:
    answer = server.get(path)
    assert answer.status == 404
    told = answer.json()["error"]
    assert "there is" not in told
    assert told.count("other") <= 1
    headers = {"X-API-Key": KEY}
    assert "; there is: " in server.request("GET", path, None, headers).json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/v1", "/v2/nothing", "/v1/models", "/v2/models/other/infer", "//", "/%2f",
        "//v2/models/guarded/infer", "/v2//models/guarded/infer", "/V2/MODELS/guarded/INFER",
        "/v2/models/guarded/infer/", "/v2/models/guarded/infer%00", "/v2/health/live/../../models",
        "/v2/health/live%2f..%2f..%2fmodels", "/v2/health/live;/v2/models", "/v2/health/live%3f",
        "/%76%32/models/guarded/infer", "/v2/models/guarded%2finfer", "/V1/Models/guarded:PREDICT",
        "/v2/models/guarded/infer?key=" + KEY, "/metrics?x=/v2/health/live", "/metrics#",
        "/v2/health/live\\", "/./metrics", "/v2/health/%6cive/", "/\xff", "/%ff%fe",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PATCH", "BREW"])
def test_other_paths_and_methods(server: RunningServer, method: str, path: str) -> None:
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    status, headers = status_of(server, head.encode("latin-1"))
    assert status in (400, 401), head
    if status == 400:  # the transport itself refuses what is no URI, or no method
        assert method == "BREW" or "\\" in path or "#" in path or "\xff" in path
    else:
        assert "www-authenticate: bearer" in headers.lower()


@pytest.mark.parametrize(
    "head",
    [
        "GET http://elsewhere/metrics HTTP/1.1\r\nhost: elsewhere",
        "POST http://elsewhere/v2/models/guarded/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 0",
        "GET http://elsewhere/v2/health/live@metrics HTTP/1.1\r\nhost: x",
        "OPTIONS * HTTP/1.1\r\nhost: x",
        "CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere:443",
        "CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: 127.0.0.1:22",
        "TRACE /metrics HTTP/1.1\r\nhost: x",
        "GET /metrics HTTP/1.0",
        "GET /metrics HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "GET /metrics HTTP/1.1\r\nhost: x\r\nx-original-url: /v2/health/live",
        "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nx-http-method-override: GET",
        "GET /v2/models HTTP/1.1\r\nhost: x\r\nx-api-key: wrong\r\nx-api-key: wronger",
    ],
)
def test_unusual_requests(server: RunningServer, head: str) -> None:
    status, _ = status_of(server, head.encode() + b"\r\n\r\n")
    assert status in (400, 401, 405), head
    if status == 405:  # nobody is connected to anywhere
        assert head.startswith("CONNECT")


@pytest.mark.parametrize(
    "length", [f"content-length: {8 * MIB}", f"content-length: {128 * MIB}",
               "transfer-encoding: chunked"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v2/models/guarded/infer", "/v1/models/other:predict", "/no"])
def test_no_body_is_waited_for_without_a_key(server: RunningServer, path: str, length: str) -> None:
    """The answer is there before a byte of the body was sent."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n"
    status, headers = status_of(server, head.encode())
    assert status == 401
    assert "www-authenticate: bearer" in headers.lower()


def test_large_bodies_with_a_key(server: RunningServer) -> None:
    rows = np.ones((20_000, 8), np.float32).tolist()
    answer = server.post(f"/v1/models/{NAME}:predict", {"inputs": rows}, ACCEPTED["bearer"])
    assert answer.status == 200
    assert len(answer.json()["outputs"]) == 20_000


def status_of(server: RunningServer, request: bytes) -> tuple[int, str]:
    """Send bytes as they are; status and headers of the answer."""
    with server.socket() as connection:
        connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received and (part := connection.recv(65536)):
            received += part
    head = received.partition(b"\r\n\r\n")[0].decode("latin-1")
    return int(head.split()[1]), head


def test_a_known_path_is_guarded_again(server: RunningServer) -> None:
    """The server remembers where paths lead; whoever asked first had a key."""
    path = f"/v2/models/{NAME}/infer"
    document = {"inputs": [{"name": "x", "shape": [1, 8], "datatype": "FP32", "data": [[1] * 8]}]}
    for _ in range(3):
        assert server.post(path, document, ACCEPTED["bearer"]).status == 200
        assert_refused(server.post(path, document))
        assert_refused(server.post(path, document, REFUSED["wrong bearer"]))


def test_the_key_is_shown_nowhere(server: RunningServer) -> None:
    headers = ACCEPTED["bearer"]
    assert_no_key(server.request("GET", "/metrics", headers=headers).body)
    assert_no_key(server.request("GET", "/openapi.json", headers=headers).body)
    assert_no_key(server.request("GET", f"/{KEY[:5]}", headers=headers).body)
    assert_no_key(Path(f"/proc/{server.process.pid}/cmdline").read_bytes())
    broken = server.post(f"/v1/models/{NAME}:predict", b"{", headers)
    assert broken.status == 400
    assert_no_key(broken.body)
