"""Rows and columns of every element type, there and back."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelport.core.errors import InputError
from modelport.core.signature import Signature
from modelport.core.tensors import NUMPY_DTYPES, Array, TensorSpec
from modelport.serve.json_codec import Reader, parse_object
from modelport.serve.tfserving.instances import read, write
from modelport.serve.tfserving.rapid_json import parse_leniently

DTYPES = [*NUMPY_DTYPES, "bytes"]


@st.composite
def tensors(draw: Any) -> list[tuple[str, Array]]:
    """One to three tensors with the same number of rows, each with its element type."""
    count = draw(st.integers(1, 4))
    return [
        draw(tensor((count, *draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)))))
        for _ in range(draw(st.integers(1, 3)))
    ]


@st.composite
def tensor(draw: Any, shape: tuple[int, ...]) -> tuple[str, Array]:
    dtype = draw(st.sampled_from(DTYPES))
    if dtype not in ("string", "bytes"):
        return dtype, draw(hnp.arrays(NUMPY_DTYPES[dtype], shape))
    size = int(np.prod(shape))
    items = st.text() if dtype == "string" else st.binary()
    array = np.empty(size, object)
    array[:] = draw(st.lists(items, min_size=size, max_size=size))
    return dtype, array.reshape(shape)


def spec_of(name: str, dtype: str, array: Array) -> TensorSpec:
    return TensorSpec(name, dtype, ("N", *array.shape[1:]))


def written(arrays: dict[str, Array], by_row: bool) -> Any:
    body = write(arrays, by_row=by_row, key="values")
    return json.loads(body)["values"]


def same(left: Array, right: Array) -> None:
    assert left.shape == right.shape
    assert left.dtype == right.dtype
    if left.dtype.kind == "f":
        np.testing.assert_array_equal(left, right)
        finite = ~np.isnan(left)
        assert (np.signbit(left) == np.signbit(right))[finite].all()
    else:
        assert left.tolist() == right.tolist()


@given(tensors(), st.booleans(), st.booleans(), st.booleans())
def test_round_trip(
    chosen: list[tuple[str, Array]], by_row: bool, named: bool, large: bool
) -> None:
    # Outputs with these names write bytes as Base64, which is how inputs take them.
    names = [f"t{i}_bytes" if dtype == "bytes" else f"t{i}" for i, (dtype, _) in enumerate(chosen)]
    arrays = dict(zip(names, (array for _, array in chosen), strict=True))
    signature = Signature(
        tuple(spec_of(n, d, a) for n, (d, a) in zip(names, chosen, strict=True)),
        (TensorSpec("y", "float32", ("N",)),),
    )
    values = written(arrays, by_row)
    if named and len(arrays) == 1:
        (name,) = names
        values = [{name: row} for row in values] if by_row else {name: values}
    body = json.dumps({"instances" if by_row else "inputs": values}).encode()
    body = b" " * 2000 * large + body
    document = parse_object(body)
    reader = Reader(body)
    got, rows = read(document, signature, reader)
    reader.finish()
    assert rows is by_row
    for name, array in arrays.items():
        same(got[name], array)


@given(st.lists(st.text(), min_size=1))
def test_text_may_come_in_base64(texts: list[str]) -> None:
    signature = Signature(
        (TensorSpec("x", "string", ("N",)),), (TensorSpec("y", "float32", ("N",)),)
    )
    encoded = [{"b64": base64.b64encode(text.encode()).decode().rstrip("=")} for text in texts]
    for key in ("instances", "inputs"):
        body = json.dumps({key: encoded}).encode()
        got, _ = read(parse_object(body), signature, Reader(body))
        assert got["x"].tolist() == texts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.binary(), st.booleans())
def test_what_is_read_leniently(document: dict[str, Any], rest: bytes, spaced: bool) -> None:
    """The first value counts, and a short infinity only outside of text."""
    text = json.dumps(document, ensure_ascii=not spaced)
    body = b" \n" * spaced + text.encode() + b" " + rest
    assert repr(parse_leniently(body)) == repr(json.loads(text))
    short = text.replace("Infinity", "Inf")
    if "Inf" not in json.dumps([*_texts(document)]):
        assert repr(parse_leniently(short.encode())) == repr(json.loads(text))


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *_texts(item))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


@given(st.binary())
def test_garbage_is_refused(body: bytes) -> None:
    with contextlib.suppress(InputError):  # and nothing else
        assert isinstance(parse_leniently(body), dict)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The document is empty"),
        (b" \n", "The document is empty"),
        (b"[Inf]", "not a JSON object"),
        (b'{"a": Infinit}', "at offset: 6"),
        (b'{"a": inf}', "at offset: 6"),
        (b'{"a": "\xff"}', "Invalid encoding"),
        (rb'{"a": "\ud800"}', "Invalid encoding"),
        (b'{"a": %b}' % (b"9" * 5000), "too big"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        # An endless text does not take endless time.
        (b'{"a": "' + b'\\"Inf' * 200_000, "at offset"),
    ],
    ids=range(10),
)
def test_refusals_have_offsets(body: bytes, text: str) -> None:
    with pytest.raises(InputError, match=text):
        parse_leniently(body)
