"""The node tests of ONNX: every pass keeps within its tolerance, or declares that it cannot."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelport.core.errors import ModelportError
from modelport.core.tensors import Array
from modelport.engines.base import EngineOptions
from modelport.engines.onnxruntime import OnnxRuntimeEngine
from modelport.optimize.base import Pass, Subject, Variant
from modelport.optimize.passes import float16, weight_only
from modelport.optimize.passes.float16 import Float16Pass
from modelport.optimize.passes.int8_dynamic import Int8DynamicPass
from modelport.optimize.passes.int8_static import Int8StaticPass
from modelport.optimize.passes.load import LoadPass
from modelport.optimize.passes.weight_only import WeightOnlyPass
from modelport.optimize.quantize import dynamic

#: Each with the least number of variants that the suite must get out of it.
PASSES = {
    LoadPass: 700, Float16Pass: 200, Int8DynamicPass: 4, Int8StaticPass: 10, WeightOnlyPass: 4
}  # fmt: skip
#: Outputs that are drawn by chance.
RANDOM = ("bernoulli", "random", "multinomial", "dropout", "training")
#: Its weights are boxes that overlap by exactly the threshold.
ON_THE_EDGE = ("nonmaxsuppression_iou_threshold_boundary",)


@cache
def cases() -> list[tuple[str, bytes, dict[str, Array]]]:
    """Models that ONNX Runtime runs, the first input as rows and all others as weights."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        tests = load_model_tests(kind="node")
    found = []
    for test in tests:
        if any(word in test.name for word in (*RANDOM, *ON_THE_EDGE)) or not test.data_sets:
            continue
        model, inputs = test.model, test.data_sets[0][0]
        arrays = [array for array in inputs if isinstance(array, np.ndarray)]
        if len(arrays) != len(inputs) or not inputs or inputs[0].ndim == 0:
            continue
        frozen = onnx.ModelProto()
        frozen.CopyFrom(model)
        names = [value.name for value in model.graph.input]
        for name, array in list(zip(names, inputs, strict=True))[1:]:
            frozen.graph.initializer.append(numpy_helper.from_array(array, name))
            frozen.graph.input.remove(next(v for v in frozen.graph.input if v.name == name))
        content, rows = frozen.SerializeToString(), {names[0]: inputs[0]}
        if answers(content, rows) is not None:
            found.append((test.name, content, rows))
    return found


def answers(model: bytes, rows: dict[str, Array]) -> dict[str, Array] | None:
    try:
        return OnnxRuntimeEngine().load(model, EngineOptions(threads=1)).run(rows)
    except ModelportError:
        return None


def far(wanted: Any, found: Any) -> float:
    """The largest error as a share of the range of what was wanted; infinite: something else."""
    if wanted.dtype != found.dtype or wanted.shape != found.shape:
        return np.inf
    if wanted.dtype.kind not in "fiu" or not wanted.size:
        return 0.0 if np.array_equal(wanted, found) else np.inf
    one, other = wanted.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return np.inf
    if not finite.any():
        return 0.0
    span = max(float(np.abs(one[finite]).max()), 1e-3)
    return float(np.abs(one[finite] - other[finite]).max() / span)


@pytest.fixture(autouse=True)
def everything_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of the suite are tiny."""
    monkeypatch.setattr(float16, "_LEAST", 1)
    monkeypatch.setattr(dynamic, "_LEAST", 1)
    monkeypatch.setattr(dynamic, "_LEAST_TABLE", 1)
    monkeypatch.setattr(weight_only, "_LEAST", 1)


@pytest.mark.parametrize("kind", PASSES, ids=lambda kind: kind.name)
def test_within_the_tolerance_or_a_reason(kind: type[Any]) -> None:
    one: Pass = kind()
    wrong: list[str] = []
    made, reasons = 0, Counter[str]()
    for name, model, rows in cases():
        loaded = OnnxRuntimeEngine().load(model, EngineOptions(threads=1))
        wanted = loaded.run(rows)
        about = Subject(Variant("original", model), loaded.signature, "onnxruntime", rows, wanted)
        why = one.refuses(about)
        if why:
            reasons[why] += 1
            continue
        try:
            for variant in one.variants(about, lambda line: None):
                made += 1
                found = answers(variant.model, rows)
                if found is None:
                    wrong.append(f"{name}: {variant.name} does not run")
                    continue
                error = max((far(wanted[key], found[key]) for key in wanted), default=0.0)
                if error > kind.tolerance:
                    wrong.append(f"{name}: {variant.name} is off by {error:.3g}")
        except ModelportError as error:
            reasons[error.message[:40]] += 1
    assert not wrong, "\n".join(wrong)
    assert made >= PASSES[kind], (made, reasons)
