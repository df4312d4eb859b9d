"""Every operator: ONNX's own node tests, each a model with inputs and expected outputs."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from modelport.convert.stage import convert
from modelport.core.errors import InputError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source

pytestmark = pytest.mark.slow

OUTCOMES = ("packed", "as ONNX says", "takes lists", "ONNX Runtime does not run it")
REFUSALS = ("not a tensor", "cannot be served", "there are no rows", "differ in length")


def node_tests() -> list[Any]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # some make their inputs with deprecated NumPy
        from onnx.backend.test.case.node import collect_testcases

        return list(collect_testcases(None))


def session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def test_every_node_that_onnx_runtime_runs_is_packed_or_refused_for_a_reason() -> None:
    outcomes: Counter[str] = Counter()
    for case in node_tests():
        content = case.model.SerializeToString()
        given, expected = case.data_sets[0]
        feeds = dict(zip((value.name for value in case.model.graph.input), given, strict=False))
        try:
            answers = session(content).run(None, feeds)
        except Exception:  # ONNX Runtime has no common base class for its errors
            outcomes["ONNX Runtime does not run it"] += 1
            continue
        if not all(isinstance(value, np.ndarray | np.generic) for value in feeds.values()):
            outcomes["takes lists"] += 1
            continue
        source = Source("model.onnx", Path("model.onnx"), content=content)
        try:
            rows = Rows({name: np.asarray(value) for name, value in feeds.items()})
            artifact = convert(AuditedSource(source, "onnx"), rows)
        except (UnsupportedError, InputError) as error:
            outcomes[next((part for part in REFUSALS if part in error.message), str(error))] += 1
            continue
        (file,) = artifact.files.values()
        served = session(file).run(None, feeds)
        for one, other in zip(served, answers, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=case.name)
        for spec, array in zip(artifact.signature.outputs, served, strict=True):
            assert len(spec.shape) == array.ndim, case.name
            assert all(
                isinstance(d, str) or d == n for d, n in zip(spec.shape, array.shape, strict=True)
            ), case.name
        outcomes["packed"] += 1
        outcomes["as ONNX says"] += all(
            agrees(one, other, case) for one, other in zip(served, expected, strict=False)
        )
    assert outcomes["packed"] > 1200, outcomes
    assert outcomes["as ONNX says"] > 0.97 * outcomes["packed"], outcomes
    assert outcomes.keys() <= {*REFUSALS, *OUTCOMES}
    assert sum(outcomes[part] for part in REFUSALS) < 30, outcomes


def agrees(one: Any, other: Any, case: Any) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    if one.dtype == object or other.dtype == object:
        return one.tolist() == other.tolist()
    return one.shape == other.shape and np.allclose(
        one.astype(np.complex128),
        other.astype(np.complex128),
        rtol=case.rtol or 1e-3,
        atol=case.atol or 1e-7,
        equal_nan=True,
    )
