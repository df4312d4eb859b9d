"""gRPC over TLS, and with certificates of clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from clients import run_client

from . import onnx_models
from .certificates import Certificates
from .grpc_caller import INFERENCE, Caller
from .packages import build_package
from .running import RunningServer, free_port


@pytest.fixture(scope="module")
def certificates(module_path: Path) -> Certificates:
    return Certificates(module_path / "certificates")


@pytest.fixture(scope="module")
def port(module_path: Path, certificates: Certificates) -> Iterator[int]:
    ones = {"x": np.ones((2, 8), np.float32)}
    package = build_package(module_path / "dense", "dense", onnx_models.dense(), ones)
    grpc_port = free_port()
    flags = [
        *("--grpc-port", str(grpc_port), "--tls-cert", certificates["server"]),
        *("--tls-key", certificates["server.key"], "--tls-client-ca", certificates["ca"]),
    ]
    running = RunningServer(module_path / "server", [package.path], flags).start()
    try:
        running.wait_for("readiness", lambda: "listening" in running.log())
        yield grpc_port
    finally:
        running.close()


def credentials(certificates: Certificates, client: str) -> Any:
    shown: list[bytes] = []
    if client:
        shown = [certificates[name].read_bytes() for name in (f"{client}.key", client)]
    return grpc.ssl_channel_credentials(certificates["ca"].read_bytes(), *shown)


def test_a_client_with_a_certificate_is_answered(port: int, certificates: Certificates) -> None:
    with Caller(port, credentials=credentials(certificates, "client")) as caller:
        assert caller.unary(f"{INFERENCE}/ServerReady").ready


@pytest.mark.parametrize("client", ["", "stranger"])
def test_others_are_not(port: int, certificates: Certificates, client: str) -> None:
    with (
        Caller(port, credentials=credentials(certificates, client)) as caller,
        pytest.raises(grpc.RpcError) as caught,
    ):
        caller.unary(f"{INFERENCE}/ServerLive")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_nothing_is_answered_in_the_clear(port: int) -> None:
    with Caller(port) as caller, pytest.raises(grpc.RpcError) as caught:
        caller.unary(f"{INFERENCE}/ServerLive")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_tritonclient(port: int, certificates: Certificates) -> None:
    """With its own options for certificates."""
    files = [certificates[name] for name in ("ca", "client.key", "client")]
    assert run_client("grpc_mtls", f"localhost:{port}", *files).splitlines() == ["mutual TLS"]


def test_a_missing_key_is_said_before_anything_listens(
    module_path: Path, certificates: Certificates
) -> None:
    flags = [*("--grpc-port", str(free_port()), "--tls-cert", certificates["server"])]
    running = RunningServer(module_path / "other", [module_path / "dense"], flags).start()
    try:
        assert running.wait_exit() == 2
        assert "--tls-key" in running.log()
    finally:
        running.close()
