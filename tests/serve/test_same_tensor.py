"""Every inference route of every protocol answers the same tensor, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import pytest

from modelport.core.tensors import Array
from modelport.serve.base import Route, WireProtocol

from . import onnx_models
from .asks import Ask
from .http_asks import HTTP_ASKS
from .packages import build_package, reference
from .routes import FLAGS, label, routes_of
from .rpc_asks import RPC_ASKS
from .running import LIMIT, RunningServer, free_port

ASKS = HTTP_ASKS | RPC_ASKS

#: Values that a careless codec changes: digits that float64 has too many of, numbers beyond
#: 2^53, the ends of the types, a negative zero, numbers too small for their exponent.
VALUES: dict[str, Array] = {
    "bool": np.array([[True, False], [False, False], [True, True]]),
    "float32": np.array(
        [[0.1, 1e-38], [3.4e38, -0.0], [1e-45, -1 / 3], [16777217, 5e-324], [1e16, 1.1754944e-38]],
        np.float32,
    ),
    "float64": np.array(
        [[0.1, -0.0], [5e-324, 1.7976931348623157e308], [2**53 + 1, 1 / 3], [1e22, 1e23]]
    ),
    "int64": np.array([[2**53 + 1, -(2**53) - 1], [2**63 - 1, -(2**63)], [0, -1]]),
    "uint64": np.array([[2**53 + 1, 2**64 - 1], [2**63, 0]], np.uint64),
    "string": np.array(
        [["", "grüße"], ["日本語😀", 'quo"te\\ and, comma'], [" 1.0 ", "\n\t\x00"]], object
    ),
}


def inference_routes() -> list[tuple[WireProtocol, Route]]:
    return [
        (protocol, route)
        for kind in ("protocol", "rpc")
        for protocol, route in routes_of(kind)
        if route.answer is None
    ]


def models(dtype: str) -> dict[str, bytes]:
    """Two models that change nothing; the first is the default."""
    return {
        "same": onnx_models.identity(dtype),
        "column": onnx_models.identity(dtype, ("N", 1)),
    }


def shaped(model: str, dtype: str) -> Array:
    """The values in rows of two, or of one."""
    return VALUES[dtype] if model == "same" else VALUES[dtype].reshape(-1, 1)


class GrpcServer(RunningServer):
    """A server that speaks gRPC, too."""

    def start(self) -> Self:
        self.grpc_port = free_port()
        self._flags = [*self._flags[: len(FLAGS)], "--grpc-port", str(self.grpc_port)]
        return super().start()

    def call(self, route: Route, message: bytes) -> bytes:
        """The answer to one message; of a stream, the only one."""
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            if not route.stream:
                answer: bytes = channel.unary_unary(route.example)(message, timeout=LIMIT)
                return answer
            answers = channel.stream_stream(route.example)(iter([message]), timeout=LIMIT)
            (answer,) = answers
            return answer


CASES = [
    pytest.param(protocol, route, way, dtype, id=f"{label(protocol, route)} {way.name} {dtype}")
    for protocol, route in inference_routes()
    for way in ASKS.get((protocol.name, route.example), ())
    for dtype in way.dtypes
]


@pytest.fixture(scope="module")
def server_of(module_path: Path) -> Iterator[Callable[[str], GrpcServer]]:
    """A server for each element type, started when it is first asked for."""
    servers: dict[str, GrpcServer] = {}
    with ExitStack() as stack:

        def start(dtype: str) -> GrpcServer:
            if dtype not in servers:
                folder = module_path / dtype
                paths = [
                    build_package(folder / name, name, model, {"x": shaped(name, dtype)}).path
                    for name, model in models(dtype).items()
                ]
                servers[dtype] = stack.enter_context(GrpcServer(folder / "server", paths, FLAGS))
            return servers[dtype]

        yield start


@pytest.mark.parametrize(
    ("protocol", "route"),
    [pytest.param(*item, id=label(*item)) for item in inference_routes()],
)
def test_no_route_is_forgotten(protocol: WireProtocol, route: Route) -> None:
    assert (protocol.name, route.example) in ASKS, (
        "say in http_asks.py or rpc_asks.py how this route is asked"
    )


def test_no_route_is_made_up() -> None:
    assert set(ASKS) == {(protocol.name, route.example) for protocol, route in inference_routes()}


@pytest.mark.parametrize(("protocol", "route", "way", "dtype"), CASES)
def test_the_same_tensor(
    server_of: Callable[[str], GrpcServer],
    protocol: WireProtocol,
    route: Route,
    way: Ask,
    dtype: str,
) -> None:
    rows = shaped(way.model, dtype)
    asked = way.build(rows, dtype)
    if protocol.carrier == "grpc":
        body, headers = server_of(dtype).call(route, asked.body), {}
    else:
        path = route.example.replace("{model}", way.model)
        answer = server_of(dtype).request(route.method, path, asked.body, asked.headers)
        assert answer.status == 200, answer.body
        body, headers = answer.body, {k.lower(): v for k, v in answer.headers.items()}
    assert_same_bits(way.read(body, headers, dtype), rows)


def assert_same_bits(found: Array, expected: Array) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if expected.dtype == object:
        assert found.tolist() == expected.tolist()
    else:
        assert found.astype(expected.dtype.newbyteorder("=")).tobytes() == expected.tobytes()


def test_the_engine_keeps_these_bits() -> None:
    for dtype, rows in VALUES.items():
        if dtype != "string":
            assert_same_bits(reference(onnx_models.identity(dtype), {"x": rows})["y"], rows)
