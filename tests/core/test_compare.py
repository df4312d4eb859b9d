"""How far one set of answers is from another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelport.core.compare import (
    TOLERANCES,
    OutputComparison,
    Tolerance,
    compare,
    tolerance_from_json,
)
from modelport.core.tensors import Array

TOLERANCE = Tolerance(relative=1e-2, absolute=1e-3)


def one(expected: object, actual: object, dtype: object = np.float64) -> OutputComparison:
    before, after = np.asarray(expected, dtype), np.asarray(actual, dtype)
    (result,) = compare({"y": before}, {"y": after}, TOLERANCE)
    return result


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.bool_]),
        hnp.array_shapes(min_dims=0, min_side=0),
    )
)
def test_everything_agrees_with_itself(array: Array) -> None:
    """NaN, infinities and empty arrays among it."""
    (result,) = compare({"y": array}, {"y": array.copy()}, TOLERANCE)
    assert result.agrees
    assert result.differing == 0
    assert result.elements == array.size
    assert result.max_absolute == 0


@pytest.mark.parametrize(
    ("expected", "actual", "agrees"),
    [
        ([1.0], [1.0109], True),  # 1e-2 relative and 1e-3 absolute
        ([1.0], [1.0111], False),
        ([0.0], [0.0009], True),
        ([0.0], [0.0011], False),
        ([0.0, 100.0], [0.09, 100.0], True),  # near zero the largest terms count
        ([0.0, 100.0], [0.11, 100.0], False),
        ([0.0, np.inf], [0.0009, np.inf], True),
        ([0.0, np.inf], [0.0011, np.inf], False),
        ([np.nan], [np.nan], True),
        ([np.nan], [0.0], False),
        ([0.0], [np.nan], False),
        ([np.inf], [np.inf], True),
        ([np.inf], [-np.inf], False),
        ([np.inf], [1e308], False),
        ([1e308], [np.inf], False),
        ([], [], True),
        (3.0, 3.0, True),
        (3.0, 4.0, False),
    ],
)
def test_the_formula(expected: object, actual: object, agrees: bool) -> None:
    assert one(expected, actual).agrees is agrees


def test_columns_have_their_own_scale() -> None:
    """Two quantities in one matrix: euros must not excuse parts."""
    expected = np.stack([np.full(8, 1e6), np.full(8, 1e-3)], axis=1)
    actual = expected.copy()
    actual[3, 1] += 0.1
    assert not one(expected, actual).agrees
    assert one(expected, actual).worst == (3, 1)
    # Too few rows to tell: one scale in all.
    assert one(expected[:7], actual[:7]).agrees


def test_the_worst_element_is_in_units_of_its_tolerance() -> None:
    result = one([0.0, 1000.0], [2.0, 1020.0])
    assert result.worst == (0,)
    assert (result.expected, result.actual) == ("0.0", "2.0")
    assert result.differing == 2
    assert result.max_absolute == 20
    assert result.max_relative == pytest.approx(0.02)
    assert one([1.0, 2.0, 3.0], [1.0, np.nan, 9.0]).worst == (1,)


@pytest.mark.parametrize(
    ("dtype", "expected", "actual", "flips", "worst"),
    [
        (np.int64, [1, 2, 3], [1, 3, 4], 2, (1,)),
        (np.bool_, [[True, False]], [[True, True]], 1, (0, 1)),
        (object, ["a", "b"], ["a", "c"], 1, (1,)),
        (np.int64, [2**53], [2**53 + 1], 1, (0,)),
    ],
)
def test_labels_agree_only_when_equal(
    dtype: object, expected: list[object], actual: list[object], flips: int, worst: tuple[int, ...]
) -> None:
    result = one(expected, actual, dtype)
    assert result.exact
    assert (result.differing, result.worst) == (flips, worst)
    assert f"{flips} of {result.elements} differ; at {list(worst)}: expected" in result.describe()
    assert one(expected, expected, dtype).agrees


def test_missing_outputs_and_other_shapes() -> None:
    expected = {"y": np.zeros((2, 2)), "z": np.zeros(2)}
    missing, shape = compare(expected, {"z": np.zeros((2, 1)), "more": np.zeros(1)}, TOLERANCE)
    assert missing.describe() == "y: output is missing"
    assert shape.describe() == "z: shape is [2, 1], expected [2]"
    assert not missing.agrees
    assert not shape.agrees


def test_a_label_where_a_number_was() -> None:
    (result,) = compare({"y": np.array([1.0])}, {"y": np.array(["1"], object)}, TOLERANCE)
    assert not result.agrees


def test_descriptions() -> None:
    assert one([1.0], [1.0]).describe() == (
        "y: max error 0 absolute, 0 relative; 0 of 1 outside tolerance"
    )
    assert one([1.0], [2.0]).describe() == (
        "y: max error 1 absolute, 1 relative; 1 of 1 outside tolerance; "
        "at [0]: expected 1.0, got 2.0"
    )


def test_float16_does_not_overflow() -> None:
    result = one([65504.0, 1.0], [-65504.0, 1.0], np.float16)
    assert result.max_absolute == 131008
    assert not result.agrees


def test_plain_form() -> None:
    for tolerance in TOLERANCES.values():
        assert tolerance_from_json(tolerance.to_json()) == tolerance
