"""Variants in processes of their own: what they answer, how they fail, how they are timed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelport.core.errors import EngineError
from modelport.core.package import Package
from modelport.core.tensors import Array
from modelport.engines.base import EngineOptions
from modelport.engines.onnxruntime import OnnxRuntimeEngine
from modelport.optimize.base import Variant
from modelport.optimize.measure.process import Worker, save_rows
from modelport.optimize.measure.timing import time_together


@pytest.fixture
def inputs(digits: tuple[Array, Array], tmp_path: Path) -> Path:
    save_rows(tmp_path / "rows.npz", {"input": digits[0][:50] / 16})
    return tmp_path / "rows.npz"


def variant(package: Package) -> Variant:
    return Variant("original", package.model_path.read_bytes())


def test_it_answers_what_the_engine_answers(
    perceptron: Package, digits: tuple[Array, Array], inputs: Path, tmp_path: Path
) -> None:
    engine = OnnxRuntimeEngine().load(perceptron.model_path, EngineOptions())
    expected = engine.run({"input": digits[0][:50] / 16})
    with Worker(variant(perceptron), "onnxruntime", 1, tmp_path) as worker:
        found = worker.answers(inputs, 7)  # the last batch is a smaller one
        assert worker.load_seconds > 0
        assert worker.best_load(2) > 0
        assert worker.peak_memory() > 10 << 20
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)


def test_what_does_not_load_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="ONNX Runtime cannot load the model"):
        Worker(Variant("broken", b"no model"), "onnxruntime", 1, tmp_path)


def test_what_does_not_run_says_why(perceptron: Package, tmp_path: Path) -> None:
    save_rows(tmp_path / "narrow.npz", {"input": np.zeros((2, 3), dtype=np.float32)})
    with (
        Worker(variant(perceptron), "onnxruntime", 1, tmp_path) as worker,
        pytest.raises(EngineError, match="ONNX Runtime failed"),
    ):
        worker.answers(tmp_path / "narrow.npz", 2)


def test_a_process_that_is_killed_is_told(
    perceptron: Package, inputs: Path, tmp_path: Path
) -> None:
    with Worker(variant(perceptron), "onnxruntime", 1, tmp_path) as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(EngineError, match="ended with signal 9") as caught:
            worker.answers(inputs, 8)
        assert "memory" in caught.value.hint


def test_a_process_that_hangs_is_ended(perceptron: Package, inputs: Path, tmp_path: Path) -> None:
    with Worker(variant(perceptron), "onnxruntime", 1, tmp_path, seconds=60) as worker:
        worker._seconds = 0.05
        with pytest.raises(EngineError, match="no answer after"):
            worker.times(inputs, 1, 50_000_000)


def test_the_same_model_is_as_fast_as_itself(
    perceptron: Package, inputs: Path, tmp_path: Path
) -> None:
    one, two = variant(perceptron), Variant("again", perceptron.model_path.read_bytes())
    with (
        Worker(one, "onnxruntime", 1, tmp_path) as first,
        Worker(two, "onnxruntime", 1, tmp_path) as second,
    ):
        times = time_together(
            {"original": first, "again": second}, "original",
            {"original": inputs, "again": inputs}, 1, rounds=5,
        )  # fmt: skip
    again = times["again"]
    assert times["original"].speedup == 1
    assert again.low <= again.speedup <= again.high
    assert 0.5 < again.speedup < 2  # not a bar: that the division is the right way round
    assert again.throughput == pytest.approx(1 / again.p50)
