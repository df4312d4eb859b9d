"""The node tests of ONNX: passes for classic models keep the answers, or say that they cannot."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import pytest

from modelport.core.errors import ModelportError
from modelport.core.tensors import Tensors
from modelport.optimize.base import Pass, Subject, Variant
from modelport.optimize.passes.dead_features import DeadFeaturesPass
from modelport.optimize.passes.linear import LinearPass
from modelport.optimize.passes.student import StudentPass
from modelport.optimize.passes.trees import TreesPass
from modelport.optimize.passes.vocabulary import VocabularyPass

OPERATORS = (
    "TreeEnsemble", "TfIdfVectorizer", "LabelEncoder", "ArrayFeatureExtractor", "Binarizer",
    "MatMul", "Gemm", "Concat", "Gather", "Softmax", "Sigmoid",
)  # fmt: skip
PASSES: tuple[type[Pass], ...] = (
    TreesPass, LinearPass, DeadFeaturesPass, VocabularyPass, StudentPass
)  # fmt: skip


@cache
def _tests() -> list[Any]:
    """All of them: asked for one operator's, onnx would have no others for the whole process."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return list(collect_testcases(None))


def _cases(operator: str) -> list[tuple[str, bytes, Tensors]]:
    found = []
    for test in _tests():
        if operator not in {node.op_type for node in test.model.graph.node}:
            continue
        names = [value.name for value in test.model.graph.input]
        inputs = test.data_sets[0][0]
        if len(names) == len(inputs) and all(np.ndim(array) for array in inputs):
            rows = {n: np.asarray(a) for n, a in zip(names, inputs, strict=True)}
            found.append((test.name, test.model.SerializeToString(), rows))
    return found


def _run(content: bytes, rows: Tensors) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(rows)), strict=True))


@pytest.mark.parametrize("operator", OPERATORS)
def test_answers_are_kept_or_the_pass_says_why(operator: str) -> None:
    made: Counter[str] = Counter()
    for name, content, rows in _cases(operator):
        try:
            expected = _run(content, rows)
        except Exception:
            continue
        if not all(isinstance(array, np.ndarray) for array in expected.values()):
            continue
        subject = Subject(Variant("original", content), None, rows, expected)  # type: ignore[arg-type]
        for one in (kind() for kind in PASSES):
            why = one.refuses(subject)
            if why:
                assert "\n" not in why
                continue
            try:
                variants = list(one.variants(subject, lambda _: None))
            except ModelportError:
                continue
            for variant in variants:
                made[one.name] += 1
                for output, array in _run(variant.model, rows).items():
                    np.testing.assert_allclose(
                        array, expected[output], rtol=1e-4, atol=1e-4, err_msg=name
                    )
    if operator == "TreeEnsemble":
        assert made["trees"] >= 2
