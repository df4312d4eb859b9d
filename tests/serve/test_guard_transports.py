"""Nobody without a key gets past the guard: ASGI, Lambda, gRPC, multi-model endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import grpc
import pytest

from modelport.core.errors import UnauthenticatedError
from modelport.serve.app import App
from modelport.serve.asgi import Application, create_app
from modelport.serve.awslambda import Handler, create_handler
from modelport.serve.base import Request, Route, WireProtocol
from modelport.serve.embed import load_app

from . import running
from .guarded import (
    ACCEPTED,
    KEY,
    REFUSED,
    ROUTES,
    Guarded,
    assert_no_key,
    path_of,
    write_guarded_package,
    write_keys,
)
from .routes import MULTI_MODEL, OPTIONS, label, routes_of


@pytest.fixture(scope="module")
def package(module_path: Path) -> Path:
    return write_guarded_package(module_path)


@pytest.fixture(scope="module")
def keys(module_path: Path) -> Path:
    return write_keys(module_path)


@pytest.fixture(scope="module")
def multi_model(package: Path) -> App:
    """Every route that there is where SageMaker has several models, without a transport."""
    return load_app([package], replace(MULTI_MODEL, api_key=KEY))


@pytest.mark.parametrize(
    ("protocol", "route"),
    [
        pytest.param(*item, id=label(*item))
        for item in routes_of("protocol", MULTI_MODEL)
        if not item[1].health
    ],
)
def test_routes_of_multi_model_endpoints(
    multi_model: App, protocol: WireProtocol, route: Route
) -> None:
    for headers in REFUSED.values():
        response = multi_model.answer(Request(route.method, path_of(route), headers, b""))
        assert response.status == 401, response.body
        assert ("www-authenticate", "Bearer") in response.headers


@pytest.fixture(scope="module")
def asgi(package: Path) -> Application:
    return create_app([package], options=replace(OPTIONS, api_key=KEY))


async def ask_asgi(
    app: Application, method: str, path: str, headers: Mapping[str, str]
) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of one request whose body nobody should ask for."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": pairs, "client": None, "server": None,
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


@ROUTES
def test_every_route_over_asgi(asgi: Application, protocol: WireProtocol, route: Route) -> None:
    async def all_of_them() -> None:
        for headers in REFUSED.values():
            status, told = await ask_asgi(asgi, route.method, path_of(route), headers)
            assert (status == 401) is not route.health
            assert (told.get(b"www-authenticate") == b"Bearer") is not route.health
        if not route.control:
            status, _ = await ask_asgi(asgi, route.method, path_of(route), ACCEPTED["bearer"])
            assert status != 401

    asyncio.run(all_of_them())


@pytest.fixture(scope="module")
def handler(package: Path) -> Handler:
    return create_handler([package], options=replace(OPTIONS, api_key=KEY))


def event_v1(method: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Of a REST API, as in AWS's "Input format of a Lambda function for proxy integration"."""
    return {
        "resource": "/{proxy+}", "path": path, "httpMethod": method, "headers": dict(headers),
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None, "multiValueQueryStringParameters": None,
        "pathParameters": None, "stageVariables": None, "body": None, "isBase64Encoded": False,
        "requestContext": {"resourceId": "x", "apiId": "x", "stage": "$default", "path": path,
                           "httpMethod": method, "identity": {"sourceIp": "127.0.0.1"}},
    }  # fmt: skip


def event_v2(method: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Of an HTTP API or a function URL: payload format version 2.0."""
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": dict(headers), "isBase64Encoded": False,
        "requestContext": {"apiId": "x", "stage": "$default", "requestId": "x",
                           "http": {"method": method, "path": path, "protocol": "HTTP/1.1",
                                    "sourceIp": "127.0.0.1", "userAgent": ""}},
    }  # fmt: skip


def event_alb(method: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Of a load balancer."""
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:x"}}, "httpMethod": method,
        "path": path, "queryStringParameters": {}, "headers": dict(headers), "body": "",
        "isBase64Encoded": False,
    }  # fmt: skip


@pytest.mark.parametrize("event", [event_v1, event_v2, event_alb])
@ROUTES
def test_every_route_over_lambda(
    handler: Handler, protocol: WireProtocol, route: Route, event: Any
) -> None:
    for headers in REFUSED.values():
        reply = handler(event(route.method, path_of(route), headers))
        assert (reply["statusCode"] == 401) is not route.health, reply
        assert_no_key(str(reply))
    if not route.control:
        reply = handler(event(route.method, path_of(route), ACCEPTED["key"]))
        assert reply["statusCode"] != 401


def test_bare_documents_over_lambda(handler: Handler) -> None:
    """What is no HTTP event brings no header, so it cannot show a key."""
    with pytest.raises(UnauthenticatedError):
        handler({"instances": [[1] * 8]})


class GuardedGrpc(Guarded):
    """A guarded server that speaks gRPC, too."""

    def start(self) -> Self:
        self.grpc_port = running.free_port()
        self._flags = [*self._flags[: self._own], "--grpc-port", str(self.grpc_port)]
        return super().start()

    def __init__(self, home: Path, models: list[Path], flags: list[Any]) -> None:
        super().__init__(home, models, flags)
        self._own = len(flags)

    def code(self, route: Route, metadata: Mapping[str, str]) -> tuple[grpc.StatusCode, str]:
        """How a call with an empty message ends, or that it is answered."""
        pairs = tuple(metadata.items())
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            try:
                if route.stream:
                    answers = channel.stream_stream(route.example)
                    next(answers(iter([b""]), metadata=pairs, timeout=running.LIMIT))
                elif route.watch:
                    answers = channel.unary_stream(route.example)
                    next(answers(b"", metadata=pairs, timeout=running.LIMIT))
                else:
                    channel.unary_unary(route.example)(b"", metadata=pairs, timeout=running.LIMIT)
            except grpc.RpcError as error:
                return error.code(), error.details()
        return grpc.StatusCode.OK, ""


@pytest.fixture(scope="module")
def grpc_server(module_path: Path, package: Path, keys: Path) -> Iterator[GuardedGrpc]:
    with GuardedGrpc(module_path / "grpc", [package], ["--api-key-file", keys]) as server:
        yield server
        assert_no_key(server.log())


@pytest.fixture(scope="module")
def closed_grpc_server(module_path: Path, package: Path, keys: Path) -> Iterator[GuardedGrpc]:
    flags = ["--api-key-file", keys, "--guard-health"]
    with GuardedGrpc(module_path / "grpc-closed", [package], flags) as server:
        yield server
        assert_no_key(server.log())


RPCS = pytest.mark.parametrize(
    ("protocol", "route"), [pytest.param(*item, id=label(*item)) for item in routes_of("rpc")]
)


@RPCS
def test_every_rpc_wants_a_key(
    grpc_server: GuardedGrpc, protocol: WireProtocol, route: Route
) -> None:
    for metadata in REFUSED.values():
        code, text = grpc_server.code(route, metadata)
        assert (code is grpc.StatusCode.UNAUTHENTICATED) is not route.health, text
        assert_no_key(text)


@RPCS
def test_health_rpcs_can_be_guarded(
    closed_grpc_server: GuardedGrpc, protocol: WireProtocol, route: Route
) -> None:
    for metadata in REFUSED.values():
        code, text = closed_grpc_server.code(route, metadata)
        assert code is grpc.StatusCode.UNAUTHENTICATED, text
    for metadata in ACCEPTED.values():
        code, text = closed_grpc_server.code(route, metadata)
        assert code is not grpc.StatusCode.UNAUTHENTICATED, text
        assert_no_key(text)
