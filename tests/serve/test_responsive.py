"""Probes are answered while a slow inference runs and the queue is full.

How fast: ``benchmarks/responsive.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from modelport.serve.base import Route

from . import onnx_models
from .packages import build_package
from .routes import FLAGS, label, routes_of
from .running import LIMIT, RunningServer, free_port

#: Steps of the slow model that take from a second to several.
LONG = 1_000_000
QUEUE = 3


def documents(steps: int) -> dict[str, Any]:
    return {"inputs": [steps]}


class Busy:
    """A server whose only thread runs one long inference, while the queue is full."""

    def __init__(self, server: RunningServer, grpc_port: int) -> None:
        self.server = server
        self.grpc_port = grpc_port
        self.answers: list[int] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Busy:
        self._ask(LONG, 1)
        for number in range(QUEUE):
            self._ask(0, number + 2)
        refused = self.server.post("/v1/models/slow:predict", documents(0))
        assert refused.status == 503, "the queue is full"
        return self

    def __exit__(self, *error: object) -> None:
        for thread in self._threads:
            thread.join(LIMIT)
        assert self.answers == [200] * (QUEUE + 1)

    def _ask(self, steps: int, in_flight: int) -> None:
        def ask() -> None:
            answer = self.server.post("/v1/models/slow:predict", documents(steps))
            self.answers.append(answer.status)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        self._threads.append(thread)
        self.server.wait_for("the request", lambda: self.in_flight() == in_flight)

    def in_flight(self) -> int:
        """Requests to the model that are not answered yet."""
        lines = self.server.get("/metrics").body.decode().splitlines()
        name = 'modelport_requests_in_flight{model="slow"'
        return sum(int(line.split()[-1]) for line in lines if line.startswith(name))

    def assert_still(self) -> None:
        assert not self.answers, "the long inference had ended: nothing is shown by this"


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[tuple[RunningServer, int]]:
    golden = {"n": np.array([0])}
    path = build_package(module_path / "slow", "slow", onnx_models.laborious(), golden).path
    port = free_port()
    flags = [*FLAGS, "--threads", "1", "--max-queue", QUEUE, "--grpc-port", port]
    with RunningServer(module_path / "server", [path], flags) as running:
        yield running, port


def test_probes_of_http(server: tuple[RunningServer, int]) -> None:
    routes = [item for item in routes_of("protocol") if item[1].health]
    assert len(routes) > 5
    with Busy(*server) as busy:
        for protocol, route in routes:
            answer = busy.server.get(route.example.replace("{model}", "slow"))
            assert answer.status == 200, label(protocol, route)
        busy.assert_still()


def test_probes_of_grpc(server: tuple[RunningServer, int]) -> None:
    routes = [item for item in routes_of("rpc") if item[1].health]
    assert len(routes) > 3
    with (
        Busy(*server) as busy,
        grpc.insecure_channel(f"127.0.0.1:{busy.grpc_port}") as channel,
    ):
        for protocol, route in routes:
            # TF Serving wants to know which model.
            answered = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
            assert probe(channel, route) in answered, label(protocol, route)
        busy.assert_still()


def probe(channel: grpc.Channel, route: Route) -> grpc.StatusCode:
    """How a health RPC answers an empty message."""
    try:
        if route.watch:
            next(channel.unary_stream(route.example)(b"", timeout=LIMIT))
        else:
            channel.unary_unary(route.example)(b"", timeout=LIMIT)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
