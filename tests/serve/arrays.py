"""Hypothesis strategies for tensors of every element type."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelport.core.tensors import NUMPY_DTYPES, STRING, Array, TensorSpec

#: Text that JSON and UTF-8 can carry.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)

DTYPES = st.sampled_from(sorted(NUMPY_DTYPES))


def spec_of(dtype: str) -> TensorSpec:
    return TensorSpec("x", dtype, ())


def tensors(dtype: str, min_dims: int = 0, min_side: int = 0) -> st.SearchStrategy[Array]:
    """Arrays of every shape and value: NaN, infinities, -0.0 and subnormals among them."""
    shapes = hnp.array_shapes(min_dims=min_dims, max_dims=4, min_side=min_side, max_side=4)
    elements = TEXT if dtype == STRING else hnp.from_dtype(NUMPY_DTYPES[dtype])
    return hnp.arrays(NUMPY_DTYPES[dtype], shapes, elements=elements)


def raw(array: Array) -> bytes:
    """The bytes of a tensor as the V2 binary extension lays them out."""
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<")).tobytes()
    texts = [text.encode() for text in array.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def assert_identical(got: Array, expected: Array) -> None:
    """Equal bit by bit, but for the payload of a NaN."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if got.dtype == object:
        assert got.tolist() == expected.tolist()
        return
    nan = np.isnan(expected) if expected.dtype.kind == "f" else np.zeros(expected.shape, bool)
    if expected.dtype.kind == "f":
        assert np.array_equal(np.isnan(got), nan)
    assert got[~nan].tobytes() == expected[~nan].tobytes()
