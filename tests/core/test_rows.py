"""Rows of a file become the inputs of a signature, or it is said why not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from modelport.core.errors import InputError, SignatureError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import Array, TensorSpec


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, (TensorSpec("y", "float32", ("N",)),))


MATRIX = signature(TensorSpec("x", "float32", ("N", 2)))
NAMED = signature(TensorSpec("x", "float32", ("N", 2), columns=("height", "weight")))
TWO = signature(
    TensorSpec("age", "int64", ("N", 1)), TensorSpec("city", "string", ("N",))
)  # fmt: skip


def bound(rows: Rows, to: Signature) -> dict[str, list[object]]:
    return {name: array.tolist() for name, array in rows.bind(to).items()}


def test_one_array_fits_one_input() -> None:
    matrix = np.array([[1.0, 2], [3, 4]])
    assert bound(Rows({"": matrix}), MATRIX) == {"x": [[1, 2], [3, 4]]}
    assert bound(Rows({"x": matrix}), MATRIX) == {"x": [[1, 2], [3, 4]]}
    assert bound(Rows({"anything": matrix}), MATRIX) == {"x": [[1, 2], [3, 4]]}
    # `numpy.savez` without names writes arr_0; names of columns say nothing about it.
    assert bound(Rows({"arr_0": matrix}), NAMED) == {"x": [[1, 2], [3, 4]]}
    assert Rows({"": matrix}).unnamed is matrix
    assert Rows({"x": matrix}).unnamed is None


def test_columns_are_stacked_by_their_names() -> None:
    rows = Rows({"weight": np.array([3, 4]), "id": np.array([7, 8]), "height": np.array([1, 2])})
    assert bound(rows, NAMED) == {"x": [[1, 3], [2, 4]]}
    assert rows.unused(NAMED) == ["id"]


def test_unnamed_columns_are_stacked_in_order() -> None:
    rows = Rows({"a": np.array([1, 2]), "b": np.array([3, 4])})
    assert bound(rows, MATRIX) == {"x": [[1, 3], [2, 4]]}
    assert rows.unused(MATRIX) == []


def test_several_inputs_take_their_columns() -> None:
    rows = Rows(
        {
            "city": np.array(["Bonn", None, float("nan"), 3], object),
            "age": np.array([1.0, 2, 3, 4]),
            "more": np.zeros(4),
        }
    )
    assert bound(rows, TWO) == {"age": [[1], [2], [3], [4]], "city": ["Bonn", "", "", "3"]}
    assert rows.unused(TWO) == ["more"]


@pytest.mark.parametrize(
    ("columns", "to", "message"),
    [
        (
            {"age": np.zeros(1)},
            TWO,
            "columns are missing: city; the model takes age, city; the data has age",
        ),
        ({"": np.zeros((1, 2))}, TWO, "the data has one array without a name"),
        ({"height": np.zeros(1)}, NAMED, "columns are missing: weight; the data has height"),
        ({"a": np.zeros(1)}, MATRIX, "1 columns do not fit input x [N, 2]; the data has a"),
        (
            {name: np.zeros(1) for name in "abc"},
            MATRIX,
            "3 columns do not fit input x [N, 2]; the data has a, b, c",
        ),
        ({"": np.zeros((1, 3))}, MATRIX, "input x has shape [1, 3], expected [N, 2]"),
    ],
)
def test_columns_that_do_not_fit(columns: dict[str, Array], to: Signature, message: str) -> None:
    with pytest.raises(SignatureError, match=re.escape(message)) as caught:
        Rows(columns, where="data.csv").bind(to)
    assert caught.value.where == "data.csv"


def test_long_lists_of_columns_are_cut() -> None:
    columns = {f"c{i}": np.zeros(1) for i in range(30)}
    with pytest.raises(SignatureError, match="c19, …"):
        Rows(columns).bind(MATRIX)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("float32", np.array([1, 2]), [1.0, 2.0]),
        ("float32", np.array(["1.5", "2"]), [1.5, 2.0]),
        ("float32", np.array([1, None], object), [1.0, np.nan]),
        ("float32", np.array([1e300, -1e300]), [np.inf, -np.inf]),
        ("int64", np.array([1.0, 2.0]), [1, 2]),
        ("int8", np.array([-128, 127]), [-128, 127]),
        ("uint8", np.array(["7"], object), [7]),
        ("bool", np.array([0, 1]), [False, True]),
        ("bool", np.array([1.0]), [True]),
        ("string", np.array([1, 2]), ["1", "2"]),
        ("string", np.array([b"a", "b"], object), ["a", "b"]),
        ("string", np.array(["a", "bc"]), ["a", "bc"]),
    ],
)
def test_values_are_cast_where_nothing_is_lost(
    dtype: str, values: Array, expected: list[object]
) -> None:
    to = signature(TensorSpec("x", dtype, ("N",)))
    got = Rows({"x": values}).bind(to)["x"]
    assert got.dtype == to.inputs[0].numpy_dtype
    np.testing.assert_array_equal(got, np.array(expected, got.dtype))


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int64", np.array([1.5])),
        ("int64", np.array([np.nan])),
        ("int64", np.array([2.0**63])),
        ("int8", np.array([128])),
        ("uint8", np.array([-1])),
        ("uint64", np.array([-1])),
        ("int64", np.array([2**63], np.uint64)),
        ("uint64", np.array([2.0**64])),
        ("bool", np.array([2])),
        ("bool", np.array([np.nan])),
    ],
)
def test_values_that_would_be_changed_are_refused(dtype: str, values: Array) -> None:
    to = signature(TensorSpec("x", dtype, ("N",)))
    with pytest.raises(SignatureError, match=f"input x needs {dtype} and the data has other"):
        Rows({"x": values}).bind(to)


@pytest.mark.parametrize(
    "values",
    [
        np.array(["1", "two"]),
        np.array([b"\xff"]),
        np.array([[1], {}], object),
        np.array([10**400], object),
    ],
)
def test_text_that_is_no_number(values: Array) -> None:
    to = signature(TensorSpec("x", "float32", ("N",)))
    with pytest.raises(SignatureError, match="input x needs numbers"):
        Rows({"x": values}, where="data.csv").bind(to)


@pytest.mark.parametrize("kind", [np.int64, object, np.str_, np.bytes_])
def test_large_integers_are_not_rounded(kind: type) -> None:
    to = signature(TensorSpec("x", "int64", ("N",)))
    values = np.array([2**53 + 1, -(2**63)])
    assert Rows({"x": values.astype(kind)}).bind(to)["x"].tolist() == values.tolist()
    to = signature(TensorSpec("x", "uint64", ("N",)))
    largest = np.array([2**64 - 1, 2**53 + 1], np.uint64)
    if kind is not np.int64:
        assert Rows({"x": largest.astype(kind)}).bind(to)["x"].tolist() == largest.tolist()


def test_bytes_that_are_no_text() -> None:
    to = signature(TensorSpec("x", "string", ("N",)))
    with pytest.raises(SignatureError, match="input x needs text"):
        Rows({"x": np.array([b"\xff"], object)}).bind(to)


def test_tensors_need_not_have_one_length() -> None:
    rows = Rows({"x": np.zeros((4, 3)), "state": np.zeros((2, 4, 8)), "rate": np.asarray(16000)})
    to = Signature(
        (
            TensorSpec("x", "float32", ("N", 3)),
            TensorSpec("state", "float32", (2, "N", 8)),
            TensorSpec("rate", "int64", ()),
        ),
        (TensorSpec("y", "float32", ("N",)),),
    )
    assert rows.bind(to)["state"].shape == (2, 4, 8)
    with pytest.raises(SignatureError, match="N"):
        Rows({**rows.columns, "x": np.zeros((5, 3))}).bind(to)


def test_rows_have_one_length() -> None:
    assert len(Rows({"a": np.zeros(3), "b": np.zeros((3, 2))})) == 3
    assert len(Rows({"": np.float32(1)})) == 1
    with pytest.raises(InputError, match=r"columns differ in length: {'a': 3, 'b': 2}"):
        Rows({"a": np.zeros(3), "b": np.zeros(2)})
    for nothing in ({}, {"a": np.zeros(0)}, {"a": np.zeros((0, 3))}):
        with pytest.raises(InputError, match="there are no rows"):
            Rows(nothing)


@pytest.mark.parametrize(
    ("column", "fit", "blur"),
    [
        (np.asarray([1.5, 2.0, np.nan, np.inf]), True, False),
        (np.asarray([1.0, 2.1]), False, False),
        (np.asarray([1600000003, 1600100000]), False, True),
        (np.asarray([[0.5, 1.6e9], [0.5, 1.6e9 + 3]]), False, True),
        (np.asarray([5.1, 5.1]), False, False),
        (np.asarray(["a", None, 2.1], dtype=object), False, False),
        (np.asarray(["a", "b"]), True, False),
        (np.asarray([True, False]), True, False),
        (np.asarray(3.5), True, False),
    ],
)
def test_what_float32_does_to_rows(column: Array, fit: bool, blur: bool) -> None:
    rows = Rows({"x": column})
    assert (rows.fit_float32, rows.blur_in_float32) == (fit, blur)
