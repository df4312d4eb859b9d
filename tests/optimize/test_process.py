"""Variants in processes of their own: what they answer, how they fail, how they are timed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from modelport.core.errors import EngineError
from modelport.core.package import Package
from modelport.core.tensors import Array
from modelport.engines.base import EngineOptions
from modelport.engines.onnxruntime import OnnxRuntimeEngine
from modelport.optimize.base import Variant
from modelport.optimize.evaluate import Bench, Measured, Rows
from modelport.optimize.measure.process import Worker, save_rows
from modelport.optimize.measure.timing import time_together


@pytest.fixture
def inputs(digits: tuple[Array, Array], tmp_path: Path) -> Path:
    save_rows(tmp_path / "rows", {"input": digits[0][:50] / 16})
    return tmp_path / "rows"


def variant(package: Package) -> Variant:
    return Variant("original", package.model_path.read_bytes())


def test_it_answers_what_the_engine_answers(
    perceptron: Package, digits: tuple[Array, Array], inputs: Path, tmp_path: Path
) -> None:
    engine = OnnxRuntimeEngine().load(perceptron.model_path, EngineOptions())
    expected = engine.run({"input": digits[0][:50] / 16})
    with Worker(variant(perceptron), 1, tmp_path) as worker:
        found = worker.answers(inputs, 7)  # the last batch is a smaller one
        assert worker.load_seconds > 0
        assert worker.best_load(2) > 0
        assert worker.peak_memory() > 10 << 20
        assert {len(array) for array in found.values()} == {50}  # none that filled the last batch
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)


def test_what_does_not_load_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="ONNX Runtime cannot load the model"):
        Worker(Variant("broken", b"no model"), 1, tmp_path)


def test_what_does_not_run_says_why(perceptron: Package, tmp_path: Path) -> None:
    save_rows(tmp_path / "narrow", {"input": np.zeros((2, 3), dtype=np.float32)})
    with (
        Worker(variant(perceptron), 1, tmp_path) as worker,
        pytest.raises(EngineError, match="ONNX Runtime failed"),
    ):
        worker.answers(tmp_path / "narrow", 2)


def test_a_process_that_is_killed_is_told(
    perceptron: Package, inputs: Path, tmp_path: Path
) -> None:
    with Worker(variant(perceptron), 1, tmp_path) as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(EngineError, match="ended with signal 9") as caught:
            worker.answers(inputs, 8)
        assert "memory" in caught.value.hint


def test_a_process_that_hangs_is_ended(perceptron: Package, inputs: Path, tmp_path: Path) -> None:
    with Worker(variant(perceptron), 1, tmp_path, seconds=60) as worker:
        worker._seconds = 0.05
        with pytest.raises(EngineError, match="no answer after"):
            worker.times(inputs, 1, 50_000_000)


def test_the_same_model_is_as_fast_as_itself(
    perceptron: Package, inputs: Path, tmp_path: Path
) -> None:
    one, two = variant(perceptron), Variant("again", perceptron.model_path.read_bytes())
    with (
        Worker(one, 1, tmp_path) as first,
        Worker(two, 1, tmp_path) as second,
    ):
        times = time_together(
            {"original": first, "again": second}, "original",
            {"original": inputs, "again": inputs}, 1, rounds=5,
        )  # fmt: skip
    again = times["again"]
    assert times["original"].speedup == 1
    assert again.low <= again.speedup <= again.high
    assert 0.2 < again.speedup < 5  # not a bar: that the division is the right way round
    assert again.throughput == pytest.approx(1 / again.p50)


def test_intervals_are_widened_by_what_two_processes_of_the_original_differ(
    perceptron: Package, inputs: Path, tmp_path: Path
) -> None:
    """The other process of the original is made to run three rows for every one."""

    class Slow(Worker):
        def times(self, rows: Path, batch: int, times: int) -> Array:
            return super().times(rows, batch, times) * 3

    one = variant(perceptron)
    with (
        Worker(one, 1, tmp_path) as first,
        Slow(one, 1, tmp_path) as twin,
        Worker(one, 1, tmp_path) as third,
    ):
        workers = {"original": first, "twin": twin, "other": third}
        times = time_together(
            workers, "original", dict.fromkeys(workers, inputs), 1, twin="twin", rounds=5
        )
    assert set(times) == {"original", "other"}
    assert times["other"].low * 1.5 < times["other"].speedup < times["other"].high / 1.5


def test_an_engine_that_prints_disturbs_nobody(
    perceptron: Package, inputs: Path, tmp_path: Path
) -> None:
    """The folder that people are in is not searched for modules, and stdout is the answers' own."""
    engine = tmp_path / "sitecustomize.py"
    engine.write_text("import os; os.write(2, b'started'); print('noise')")
    (tmp_path / "modelport.py").write_text("raise SystemExit('the wrong module')")
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        with Worker(variant(perceptron), 1, tmp_path) as worker:
            assert len(worker.answers(inputs, 8)["label"]) == 50
    finally:
        os.chdir(here)


def test_what_an_engine_prints_goes_beside_the_answers(tmp_path: Path) -> None:
    script = (
        "import os; from modelport.optimize.measure.worker import _Parent; p = _Parent();"
        "print('noise'); os.write(1, b'more'); p.say({'load': 1})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b'{"load": 1}\n'
    assert b"noise" in done.stderr
    assert b"more" in done.stderr


def test_no_process_and_no_file_is_left(perceptron: Package, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for content in (perceptron.model_path.read_bytes(), b"no model"):
        with contextlib.suppress(EngineError), Worker(Variant("one", content), 1, tmp_path):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):  # none is there to wait for
        os.waitpid(-1, os.WNOHANG)


def test_rows_are_not_part_of_the_memory(perceptron: Package, tmp_path: Path) -> None:
    save_rows(tmp_path / "many", {"input": np.zeros((400_000, 64), dtype=np.float32)})
    with Worker(variant(perceptron), 1, tmp_path) as worker:
        worker.answers(tmp_path / "many", 4096)
        assert worker.peak_memory() < 95 << 20  # the rows alone are 102 MB


def test_a_model_that_takes_one_batch_size_only(tmp_path: Path) -> None:
    made = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "fixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 2])],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    rows = {"x": np.arange(20, dtype=np.float32).reshape(10, 2)}
    one = Variant("fixed", model.SerializeToString())
    bench = Bench(1, 0.01, fixed=4)
    np.testing.assert_array_equal(bench.answers(one, rows)["y"], -rows["x"])
    judged = Rows(lambda variant: rows, dict, None, None, 10)  # type: ignore[arg-type]
    (first,) = bench.time(Measured(one, 100), [], judged, lambda line: None)
    assert first.single is not None
    assert first.single.batch == 4
    assert first.bulk is None


def test_a_variant_that_fails_while_it_is_timed_stops_nobody(
    perceptron: Package, inputs: Path, digits: tuple[Array, Array]
) -> None:
    rows = {"input": digits[0][:50] / 16}
    content = perceptron.model_path.read_bytes()
    judged = Rows(lambda variant: rows, dict, None, None, 50)  # type: ignore[arg-type]
    others = [Measured(Variant("broken", b"no model"), 1), Measured(Variant("good", content), 1)]
    first, broken, good = Bench(1, 0.01).time(
        Measured(Variant("original", content), 1), others, judged, lambda line: None
    )
    assert first.single is not None
    assert broken.single is None
    assert "cannot load" in broken.failed
    assert good.single is not None
    assert not good.failed
