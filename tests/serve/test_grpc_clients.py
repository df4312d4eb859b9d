"""Real gRPC clients of V2 against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import run_client

from . import onnx_models
from .packages import build_package
from .running import RunningServer, free_port

TYPES = (*onnx_models.NUMERIC_TYPES, "string")
ROWS = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)


@pytest.fixture(scope="module")
def models(module_path: Path) -> list[Path]:
    def package(name: str, model: bytes, folder: str = "", **golden: Any) -> Path:
        inputs = {key: np.asarray(value) for key, value in golden.items()}
        return build_package(module_path / "store" / (folder or name), name, model, inputs).path

    ones = np.ones((1, 2), np.float32)
    package("later", onnx_models.dense(5), x=ROWS)
    return [
        package("dense", onnx_models.dense(0), x=ROWS),
        package("dense", onnx_models.dense(1), "dense-newer", x=ROWS),
        package("classifier", onnx_models.classifier(), x=ROWS[:, :3]),
        package("cube", onnx_models.identity("float32", ("N", "M", 2)), x=ones[None]),
        package("scalar", onnx_models.identity("float32", ()), x=np.float32(1)),
        package("lookup", onnx_models.lookup(), i=np.array([1, 2])),
        *(
            package(
                f"same-{dtype}",
                onnx_models.identity(dtype),
                x=np.array([["a", "b"]], object) if dtype == "string" else ones.astype(dtype),
            )
            for dtype in TYPES
        ),
    ]


@pytest.fixture(scope="module")
def address(module_path: Path, models: list[Path]) -> Iterator[str]:
    port = free_port()
    flags = ["--model-control", "--model-store", module_path / "store", "--grpc-port", port]
    with RunningServer(module_path / "server", models, flags) as running:
        yield f"127.0.0.1:{port}"
    assert "Traceback" not in running.log()


def test_tritonclient(address: str, models: list[Path]) -> None:
    """Sync and aio: every datatype, compression, streams, every extension, and refusals."""
    printed = run_client("tritonclient_grpc", address, len(models))
    assert len(printed.splitlines()) == 2 * 14 + 3


def test_kserve(address: str) -> None:
    assert len(run_client("grpc_kserve", address).splitlines()) == 4
