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

from modelport.adapters import Adapter, adapters_of, find_adapter
from modelport.core.errors import ModelportError
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import EngineOptions
from modelport.engines.onnxruntime import OnnxRuntimeEngine
from modelport.optimize.base import Pass, Subject, Variant
from modelport.optimize.passes import float16, weight_only
from modelport.optimize.quantize import products

#: The least number of variants that the suite must get out of a pass, for those that graphs of one
#: operator and a few rows give something to do.
LEAST = {
    "load": 300, "float16": 200, "int8-dynamic": 4, "int8-static": 10, "weight-only": 4,
    "trees": 2,
}  # fmt: skip
#: Outputs that are drawn by chance.
RANDOM = ("bernoulli", "random", "multinomial", "dropout", "training")
#: Its weights are boxes that overlap by exactly the threshold.
ON_THE_EDGE = ("nonmaxsuppression_iou_threshold_boundary",)


@cache
def cases() -> list[tuple[str, Subject]]:
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
        try:
            loaded = OnnxRuntimeEngine().load(content, EngineOptions(threads=1))
            wanted = loaded.run(rows)
        except ModelportError:
            continue
        subject = Subject(Variant("original", content), loaded.signature, rows, wanted)
        found.append((test.name, subject))
    return found


def answers(variant: Variant, rows: Tensors) -> dict[str, Array] | None:
    """What it answers on its own engine; None: it does not load, or not run."""
    engine = find_adapter("engine", variant.engine).load()
    try:
        found: dict[str, Array] = engine.load(variant.model, EngineOptions(threads=1)).run(rows)
    except ModelportError:
        return None
    return found


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


def wrong_with(variant: Variant, about: Subject, tolerance: float) -> str:
    """What is wrong with its answers; empty: nothing."""
    wanted, found = about.answers, answers(variant, about.rows)
    if found is None:
        return "does not run"
    if not np.isfinite(tolerance):
        kinds = [
            {name: (array.shape, array.dtype) for name, array in some.items()}
            for some in (wanted, found)
        ]
        return "" if kinds[0] == kinds[1] else f"answers {kinds[1]} instead of {kinds[0]}"
    error = max((far(wanted[name], found[name]) for name in wanted), default=0.0)
    return f"is off by {error:.3g}" if error > tolerance else ""


@pytest.fixture(autouse=True)
def everything_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of the suite are tiny, and processes of their own would take minutes."""
    monkeypatch.setattr(float16, "_LEAST", 1)
    monkeypatch.setattr(float16, "_answers_apart", answers)
    monkeypatch.setattr(products, "_LEAST", 1)
    monkeypatch.setattr(products, "_LEAST_TABLE", 1)
    monkeypatch.setattr(weight_only, "_LEAST", 1)


@pytest.mark.parametrize("adapter", adapters_of("pass"), ids=lambda adapter: adapter.name)
def test_within_the_tolerance_or_a_reason(adapter: Adapter) -> None:
    one: Pass = adapter.load()
    wrong: list[str] = []
    made, reasons = 0, Counter[str]()
    for name, about in cases():
        why = one.refuses(about)
        try:
            for variant in () if why else one.variants(about, lambda line: None):
                made += 1
                found = wrong_with(variant, about, one.tolerance)
                if found:
                    wrong.append(f"{name}: {variant.name} {found}")
        except ModelportError as error:
            why = error.line
        if why:
            assert "\n" not in why.strip(), name
            reasons[why[:40]] += 1
    assert not wrong, "\n".join(wrong)
    assert made >= LEAST.get(one.name, 0), (made, reasons)
    assert made or reasons
