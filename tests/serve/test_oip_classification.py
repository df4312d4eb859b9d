"""The best classes of an output, as Triton writes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelport.core.errors import InputError
from modelport.core.tensors import Array, TensorSpec
from modelport.serve.oip.classification import check_classes, class_count, classify

NUMBERS = [f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)]
NUMBERS += ["float16", "float32", "float64"]


def spec_of(dtype: str, columns: tuple[str, ...] = ()) -> TensorSpec:
    return TensorSpec("y", dtype, ("N", "K"), columns)


@given(st.data(), st.integers(1, 9))
@pytest.mark.parametrize("dtype", NUMBERS)
def test_the_best_come_first(dtype: str, data: st.DataObject, count: int) -> None:
    """Against sorting in Python; NaN is the worst."""
    shapes = hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=5)
    array: Array = data.draw(hnp.arrays(dtype, shapes))
    texts = classify(array, spec_of(dtype), count, batched=True)
    classes = math.prod(array.shape[1:])
    assert texts.shape == (array.shape[0], min(count, classes))
    for row, best in zip(array.reshape(array.shape[0], classes), texts, strict=True):
        values = [-math.inf if value != value else value for value in row.tolist()]
        order = sorted(range(classes), key=lambda i: -values[i])[:count]
        assert [int(text.split(":")[1]) for text in best] == order
        for text, i in zip(best, order, strict=True):
            value = row[i].item()
            expected = f"{value:f}" if isinstance(value, float) else str(value)
            assert text == f"{expected}:{i}"


def test_labels() -> None:
    array = np.array([[0.25, 0.5], [1, 0]], np.float32)
    labelled = spec_of("float32", ("cat", "dog:big"))
    texts = classify(array, labelled, 2, batched=True)
    assert texts.tolist() == [
        ["0.500000:1:dog:big", "0.250000:0:cat"], ["1.000000:0:cat", "0.000000:1:dog:big"],
    ]  # fmt: skip
    for columns in (("cat",), ("a", "b", "c")):
        texts = classify(array, spec_of("float32", columns), 1, batched=True)
        assert texts.tolist() == [["0.500000:1"], ["1.000000:0"]], "labels that do not fit"


def test_without_a_batch() -> None:
    array = np.array([[1, 9], [4, 2]])
    assert classify(array, spec_of("int64"), 2, batched=False).tolist() == ["9:1", "4:2"]
    scalar = classify(np.array(2.5), spec_of("float64"), 2, batched=True)
    assert scalar.tolist() == ["2.500000:0"]


def test_extremes() -> None:
    array = np.array([[np.nan, np.inf, -np.inf, 2.0**127]], np.float32)
    texts = classify(array, spec_of("float32"), 4, batched=True)[0]
    assert texts[0] == "inf:1"
    assert texts[1] == f"{2.0**127:f}:3"
    assert {text.split(":")[0] for text in texts[2:]} == {"nan", "-inf"}
    large = np.array([[2**64 - 1, 0]], np.uint64)
    assert classify(large, spec_of("uint64"), 1, batched=True)[0, 0] == f"{2**64 - 1}:0"


@pytest.mark.parametrize("value", [-1, True, None, 1.0, "1", [1], {}])
def test_counts_are_integers(value: object) -> None:
    with pytest.raises(InputError, match="classification"):
        class_count(value)


@pytest.mark.parametrize("dtype", ["bool", "string", "bytes"])
def test_what_has_no_classes(dtype: str) -> None:
    with pytest.raises(InputError, match="class result not available for output y"):
        check_classes(spec_of(dtype))
    check_classes(spec_of("float16"))
