from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from modelport.core.compare import TOLERANCES
from modelport.core.digest import sha256_bytes
from modelport.core.manifest import FileEntry, Manifest
from modelport.core.package import Package, write_package
from modelport.core.signature import Signature
from modelport.core.tensors import TensorSpec
from modelport.registry.stage import Registry
from modelport.stores.local import LocalStore

#: Seconds after which a subprocess of these tests is killed: a bound, never a measure.
LIMIT = 120

MakePackage = Callable[..., Package]
RunTogether = Callable[[str, Sequence[Sequence[object]]], list[str]]


def write_small_package(folder: Path, name: str, label: str) -> Package:
    """A package of three files; packages with different labels differ in one of them."""
    files = {
        "model/model.onnx": f"the model {label}".encode(),
        "baseline.json": b"{}",
        "README.md": b"the same card in all of them",
    }
    manifest = Manifest(
        name=name,
        engine="onnxruntime",
        model_file="model/model.onnx",
        files={path: FileEntry(sha256_bytes(data), len(data)) for path, data in files.items()},
        signature=Signature(
            inputs=(TensorSpec("x", "float32", ("N", 2)),),
            outputs=(TensorSpec("y", "float32", ("N",)),),
        ),
        task="regression",
        tolerance=TOLERANCES["float32"],
        row_independent=True,
        parity={},
        provenance={"label": label},
    )
    return write_package(folder, manifest, files)


@pytest.fixture
def make_package(tmp_path: Path) -> MakePackage:
    def make(label: object = "a", name: str = "demo") -> Package:
        return write_small_package(tmp_path / "packages" / f"{name}-{label}", name, str(label))

    return make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(root: Path) -> Registry:
    return Registry(LocalStore(root))


@pytest.fixture
def filled(registry: Registry, make_package) -> Registry:
    """Versions 1 to 3 of demo; champion went 1, 2, 3 and back to 2; candidate is 3."""
    for label in "abc":
        registry.push(make_package(label))
    for version in (1, 2, 3):
        registry.promote("demo", version, "champion", why=f"why {version}")
    registry.rollback("demo", "champion", why="errors")
    registry.promote("demo", 3, "candidate", evidence={"accuracy": 0.5, "rows": [1, 2]})
    return registry


@contextmanager
def worker(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed ``ready`` and waits for a line; dead afterwards."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        limit = threading.Timer(LIMIT, process.kill)
        limit.start()
        try:
            yield process
        finally:
            process.kill()
            limit.cancel()


@pytest.fixture
def start_worker() -> Callable[..., object]:
    return worker


@pytest.fixture
def run_together() -> RunTogether:
    """Run one script in several processes that all start their work at the same moment."""

    def run(script: str, arguments: Sequence[Sequence[object]]) -> list[str]:
        with ExitStack() as stack:
            workers = [stack.enter_context(worker(script, *each)) for each in arguments]
            for process in workers:
                assert process.stdout is not None
                first = process.stdout.readline()
                assert first == "ready\n", first + process.stdout.read()
            for process in workers:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            outputs = [process.communicate(timeout=LIMIT)[0] for process in workers]
            codes = [process.returncode for process in workers]
        assert codes == [0] * len(codes), "\n".join(outputs)
        return outputs

    return run
