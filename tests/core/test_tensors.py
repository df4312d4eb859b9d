"""Element types and specifications of tensors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelport.core.errors import SignatureError
from modelport.core.tensors import NUMPY_DTYPES, Array, TensorSpec, dtype_name


@pytest.mark.parametrize("name", NUMPY_DTYPES)
def test_every_type_has_a_name(name: str) -> None:
    assert dtype_name(np.zeros(2, NUMPY_DTYPES[name])) == name
    assert TensorSpec("x", name, ()).numpy_dtype == NUMPY_DTYPES[name]


def test_text_is_string() -> None:
    assert dtype_name(np.array(["a"])) == "string"
    assert dtype_name(np.array([b"a"])) == "string"


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "timedelta64[s]", "longdouble"])
def test_types_that_no_signature_holds(dtype: str) -> None:
    with pytest.raises(SignatureError, match="unsupported element type"):
        dtype_name(np.zeros(1, dtype))


def test_unknown_types_are_named() -> None:
    with pytest.raises(SignatureError, match="bfloat16") as caught:
        TensorSpec("x", "bfloat16", ())
    assert "float32" in caught.value.hint


SPECS = st.builds(
    TensorSpec,
    st.text(min_size=1),
    st.sampled_from(sorted(NUMPY_DTYPES)),
    st.lists(st.integers(0, 9) | st.text(min_size=1), max_size=4).map(tuple),
    st.lists(st.text(), max_size=3).map(tuple),
    st.sampled_from([(), ("nan",), ("nan", "infinity")]),
)


@given(SPECS)
def test_plain_form(spec: TensorSpec) -> None:
    assert TensorSpec.from_json(spec.to_json()) == spec


def test_the_plain_form_holds_no_defaults() -> None:
    spec = TensorSpec("x", "float32", ("N", 3))
    assert spec.to_json() == {"name": "x", "dtype": "float32", "shape": ["N", 3]}
    assert spec.shape_text == "[N, 3]"


@pytest.mark.parametrize(
    ("shape", "spec", "fits"),
    [
        ((2, 3), ("N", 3), True),
        ((0, 3), ("N", 3), True),
        ((2, 4), ("N", 3), False),
        ((3,), ("N", 3), False),
        ((1, 2, 3), ("N", 3), False),
        ((), (), True),
        ((1,), (), False),
        ((2, 5), ("N", "M"), True),
        ((2, 3), (2, 3), True),
        ((1, 3), (2, 3), False),
    ],
)
def test_shapes(shape: tuple[int, ...], spec: tuple[int | str, ...], fits: bool) -> None:
    array = np.zeros(shape, np.float32)
    expected = TensorSpec("x", "float32", spec)
    if fits:
        assert expected.check(array) is array
    else:
        with pytest.raises(SignatureError) as caught:
            expected.check(array)
        assert caught.value.message == (
            f"input x has shape {list(shape)}, expected {expected.shape_text}"
        )


def test_a_column_may_come_without_its_last_dimension() -> None:
    column = np.arange(3, dtype=np.float32)
    checked = TensorSpec("x", "float32", ("N", 1)).check(column)
    assert checked.shape == (3, 1)
    assert np.shares_memory(checked, column)
    with pytest.raises(SignatureError):
        TensorSpec("x", "float32", ("N", 3)).check(column)
    with pytest.raises(SignatureError):
        TensorSpec("x", "float32", (3, 1)).check(np.zeros((3, 1, 1), np.float32))


@pytest.mark.parametrize("dtype", ["float64", "int32", "bool"])
def test_no_type_is_converted(dtype: str) -> None:
    with pytest.raises(SignatureError, match=f"element type {dtype}, expected float32"):
        TensorSpec("x", "float32", ("N",)).check(np.zeros(1, dtype))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
    ),
    st.sampled_from([("nan",), ("infinity",), ("nan", "infinity"), ()]),
)
def test_values_that_the_model_refuses(array: Array, refuses: tuple[str, ...]) -> None:
    """Found wherever they stand; the largest finite numbers are not taken for infinity."""
    shape = tuple(f"d{axis}" for axis in range(array.ndim))
    spec = TensorSpec("x", array.dtype.name, shape, refuses=refuses)
    bad = ("nan" in refuses and np.isnan(array)) | ("infinity" in refuses and np.isinf(array))
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.any(bad):
            assert spec.check(array) is array
            return
        with pytest.raises(SignatureError) as caught:
            spec.check(array)
    position = [int(axis[0]) for axis in np.nonzero(np.atleast_1d(bad))][: array.ndim]
    assert f"at {position}; " in caught.value.message


def test_infinity_and_nan_may_be_refused_apart() -> None:
    infinite = np.array([np.inf, -np.inf])
    assert TensorSpec("x", "float64", ("N",), refuses=("nan",)).check(infinite) is infinite
    with pytest.raises(SignatureError, match="holds -inf at"):
        TensorSpec("x", "float64", ("N",), refuses=("infinity",)).check(infinite[1:])
    missing = np.array([np.nan])
    assert TensorSpec("x", "float64", ("N",), refuses=("infinity",)).check(missing) is missing


def test_integers_are_always_finite() -> None:
    array = np.array([2**62, 2**62])
    assert TensorSpec("x", "int64", ("N",), refuses=("nan", "infinity")).check(array) is array
