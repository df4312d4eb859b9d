"""Labels of scores, against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelport.adapters import find_adapter
from modelport.core.compare import TOLERANCES
from modelport.core.errors import InputError
from modelport.core.signature import Signature
from modelport.core.steps import LabelsStep
from modelport.core.tensors import Array, TensorSpec
from modelport.processing.base import Facts
from modelport.processing.labels import LabelsTransform

ABC = ("a", "b", "c")


def opened(
    spec: TensorSpec, *others: TensorSpec, scores: Array | None = None, **fields: Any
) -> LabelsTransform:
    signature = Signature((TensorSpec("x", "float32", ("N",)),), (spec, *others))
    facts = Facts(signature, answers={} if scores is None else {spec.name: scores})
    processor = find_adapter("processor", "labels").load()
    transform: LabelsTransform = processor.open(processor.fit(LabelsStep(**fields), facts), facts)
    return transform


def spec(*shape: int | str, dtype: str = "float32", name: str = "scores") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


def test_the_best() -> None:
    scores = np.float32([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]])
    transform = opened(spec("N", 3), labels=ABC, scores=scores)
    found = transform.run({"scores": scores})
    assert found["label"].tolist() == ["b", "a"]
    np.testing.assert_array_equal(found["probability"], np.float32([0.7, 0.5]))
    assert [s.to_json() for s in transform.gives] == [
        {"name": "label", "dtype": "string", "shape": ["N"]},
        {"name": "probability", "dtype": "float32", "shape": ["N"]},
    ]


def test_the_best_few_and_ties_in_order() -> None:
    scores = np.float32([[0.25, 0.5, 0.25], [1, 1, 1]])
    transform = opened(spec("N", 3), labels=ABC, top_k=3, activation="none")
    found = transform.run({"scores": scores})
    assert found["labels"].tolist() == [["b", "a", "c"], ["a", "b", "c"]]
    assert found["probabilities"].tolist() == [[0.5, 0.25, 0.25], [1, 1, 1]]


@pytest.mark.parametrize("large", [1.0, 1000.0, 3e38])
def test_softmax(large: float) -> None:
    scores = np.float32([[0, large, -large], [large, large, large]])
    transform = opened(spec("N", 3), labels=ABC, scores=scores, top_k=3)
    found = transform.run({"scores": scores})["probabilities"]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[1], 1 / 3, rtol=1e-6)


def test_sigmoid_of_several_labels() -> None:
    scores = np.float32([[0, 2, -900]])
    found = opened(spec("N", 3), labels=ABC, activation="sigmoid", top_k=3).run({"scores": scores})
    np.testing.assert_allclose(found["probabilities"], [[1 / (1 + np.exp(-2)), 0.5, 0]], rtol=1e-6)


@pytest.mark.parametrize("shape", [("N",), ("N", 1)])
@pytest.mark.parametrize(
    ("scores", "activation", "labels", "probabilities"),
    [
        ([0.2, 0.5, 0.9], "none", ["no", "no", "yes"], [0.8, 0.5, 0.9]),
        ([-2, 0, 800], "sigmoid", ["no", "no", "yes"], [1 / (1 + np.exp(-2)), 0.5, 1]),
    ],
)
def test_one_score_of_two_labels(
    shape: tuple[int | str, ...],
    scores: list[float],
    activation: str,
    labels: list[str],
    probabilities: list[float],
) -> None:
    array = np.float32(scores).reshape(3, *shape[1:])
    transform = opened(spec(*shape), labels=("no", "yes"), scores=array)
    found = transform.run({"scores": array})
    assert found["label"].tolist() == labels
    np.testing.assert_allclose(found["probability"], probabilities, rtol=1e-6)
    chosen = opened(spec(*shape), labels=("no", "yes"), activation=activation)
    np.testing.assert_array_equal(chosen.run({"scores": array})["label"], found["label"])


def test_no_number_is_no_crash() -> None:
    scores = np.full((1, 3), np.nan, np.float32)
    found = opened(spec("N", 3), labels=ABC, activation="softmax").run({"scores": scores})
    assert found["label"].tolist() == ["a"]
    assert np.isnan(found["probability"]).all()


def test_names_that_are_taken() -> None:
    label, other = spec("N", dtype="int64", name="label"), spec("N", 3, name="probabilities")
    for top_k, names in ((0, ["top_label", "top_probability"]),
                         (2, ["top_labels", "top_probabilities"])):  # fmt: skip
        transform = opened(other, label, labels=ABC, top_k=top_k)
        assert [s.name for s in transform.gives] == names


def test_which_output_it_is() -> None:
    embedding = spec("N", 512, name="embedding")
    assert opened(embedding, spec("N", 3), labels=ABC).takes[0].name == "scores"
    with pytest.raises(InputError, match="no telling which output holds the scores of 3 labels"):
        opened(spec("N", 3), spec("N", 3, name="others"), labels=ABC)
    with pytest.raises(InputError, match="no telling"):
        opened(spec("N", dtype="int64"), labels=ABC)
    with pytest.raises(InputError, match="no 2 best"):
        opened(spec("N", 1), labels=("no", "yes"), top_k=2)
    with pytest.raises(InputError, match="one score has no softmax"):
        opened(spec("N", 1), labels=("no", "yes"), activation="softmax")
    with pytest.raises(InputError, match="output scores has 5 scores per row"):
        opened(spec("N", "classes"), labels=ABC, scores=np.ones((1, 5), np.float32))


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(-5, 5, width=32)
    ),
    st.integers(0, 2),
    st.sampled_from(["none", "softmax", "sigmoid"]),
    st.integers(0, 2**32 - 1),
)
def test_clear_rows_stand_any_error_within_the_tolerance(
    scores: Array, top_k: int, activation: str, seed: int
) -> None:
    tolerance = TOLERANCES["float16"]
    transform = opened(spec("N", 3), labels=ABC, top_k=top_k, activation=activation)
    clear = transform.clear({"scores": scores}, tolerance)
    scale = max(1.0, float(np.abs(scores).max()))
    error = tolerance.relative * np.abs(scores) + tolerance.absolute * scale
    moved = scores + error * np.random.default_rng(seed).choice([-0.99, 0.99], size=scores.shape)
    name = transform.gives[0].name
    before = transform.run({"scores": scores})[name]
    after = transform.run({"scores": moved.astype(np.float64).astype(np.float32)})[name]
    np.testing.assert_array_equal(before[clear], after[clear])


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 6), st.just(3)), elements=st.floats(-9, 9, width=32)
    )
)
def test_rows_do_not_depend_on_each_other(scores: Array) -> None:
    transform = opened(spec("N", 3), labels=ABC, top_k=3, activation="softmax")
    together = transform.run({"scores": scores})
    for row in range(len(scores)):
        alone = transform.run({"scores": scores[row : row + 1]})
        for name, array in alone.items():
            np.testing.assert_array_equal(array[0], together[name][row])
