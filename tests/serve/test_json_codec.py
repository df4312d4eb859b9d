"""JSON to arrays and back: exact, and the same whichever parser does it."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import simdjson
from hypothesis import given
from hypothesis import strategies as st

from modelport.core.errors import InputError, SignatureError
from modelport.core.tensors import NUMPY_DTYPES, STRING, Array, TensorSpec
from modelport.serve import json_codec
from modelport.serve.json_codec import Reader, dumps_array, fields, from_plain, parse_object

from .arrays import DTYPES, TEXT, assert_identical, spec_of, tensors

#: Makes a body larger than those that go through plain Python values.
PADDING = b" " * 2000

Nested = Any


@pytest.fixture(autouse=True)
def _as_the_server_does() -> Iterator[None]:
    with np.errstate(over="ignore", invalid="ignore"):
        yield


def read(body: bytes, spec: TensorSpec) -> Array:
    """The tensor under ``x`` of a document, as a protocol reads it."""
    reader = Reader(body)
    node = parse_object(body)["x"]
    tensor = reader.tensor(node, spec)
    reader.finish()
    return tensor


def read_all(body: bytes, count: int, spec: TensorSpec) -> list[Array]:
    """The tensors under ``x0``, ``x1`` …, read by one reader."""
    reader = Reader(body)
    parsed = parse_object(body)
    read_ones = [reader.tensor(parsed[f"x{i}"], spec) for i in range(count)]
    reader.finish()
    return read_ones


def document(value: Nested) -> bytes:
    return b'{"x":%b}' % json.dumps(value).encode()


def outcome(body: bytes, spec: TensorSpec) -> Array | None:
    """What a body says, None when it is refused."""
    try:
        return read(body, spec)
    except SignatureError:
        return None


def expected_outcome(value: Nested, spec: TensorSpec) -> Array | None:
    """The same by Python and NumPy alone: types of the leaves, then NumPy's own opinion."""
    allowed = {"f": (int, float), "b": (bool,), "O": (str,)}.get(spec.numpy_dtype.kind, (int,))
    leaves = [value]
    depth = 0
    while any(isinstance(leaf, list) for leaf in leaves):
        depth += 1
        leaves = [i for leaf in leaves for i in (leaf if isinstance(leaf, list) else [leaf])]
    for leaf in leaves:
        if not isinstance(leaf, allowed) or (isinstance(leaf, bool) and bool not in allowed):
            return None
    try:
        array = np.array(value, dtype=spec.numpy_dtype)
    except (ValueError, OverflowError):
        return None
    # As objects NumPy takes ragged lists too, down to where they are rectangular.
    inside = any(isinstance(item, list) for item in array.ravel()) if array.dtype == object else 0
    return None if inside else array


@given(st.data())
@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_round_trip(dtype: str, padding: bytes, data: st.DataObject) -> None:
    array = data.draw(tensors(dtype))
    if 0 in array.shape[:-1]:
        array = array.reshape(array.shape[::-1])  # JSON cannot tell what is inside of nothing
    if 0 in array.shape[:-1]:
        return
    body = padding + b'{"x":%b}' % dumps_array(array)
    assert_identical(read(body, spec_of(dtype)), array)


@given(st.data())
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_what_is_written_is_what_json_reads(dtype: str, data: st.DataObject) -> None:
    array = data.draw(tensors(dtype))
    plain = json.loads(dumps_array(array))
    assert_identical(np.array(plain, dtype=array.dtype).reshape(array.shape), array)


@given(st.data())
def test_arrays_need_not_be_contiguous(data: st.DataObject) -> None:
    array = data.draw(tensors(data.draw(DTYPES), min_dims=2))
    for view in (array.T, array[::-1], array[:, ::2]):
        assert dumps_array(view) == dumps_array(view.copy())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_special_values_are_bare_tokens(dtype: str) -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0, 1], dtype)
    assert dumps_array(array) == b"[NaN,Infinity,-Infinity,-0.0,1.0]"
    assert dumps_array(array[0].reshape(())) == b"NaN"


def test_bytes_are_written_as_text() -> None:
    assert dumps_array(np.array([b"a", "b", b"\xff"], object)) == '["a","b","\ufffd"]'.encode()


def ragged(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Nested]:
    """Nested lists, rectangular or nearly."""
    rectangular = st.builds(
        _fill,
        st.lists(st.integers(0, 3), min_size=1, max_size=4),
        st.lists(leaf, min_size=1, max_size=8),
    )
    anyhow = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3), max_leaves=12)
    damaged = st.builds(_replace, rectangular, st.lists(st.integers(0, 3), max_size=4), anyhow)
    return rectangular | damaged | anyhow


def _fill(shape: list[int], leaves: list[Any]) -> Nested:
    position = iter(range(10**6))

    def level(sizes: list[int]) -> Nested:
        if not sizes:
            return leaves[next(position) % len(leaves)]
        return [level(sizes[1:]) for _ in range(sizes[0])]

    return level(shape)


def _replace(value: Nested, path: list[int], by: Nested) -> Nested:
    """`value` with `by` in place of what stands at `path`."""
    if not path or not isinstance(value, list) or not value:
        return by
    position = path[0] % len(value)
    inside = _replace(value[position], path[1:], by)
    return [*value[:position], inside, *value[position + 1 :]]


INTEGERS = st.integers(-3, 3) | st.sampled_from(
    [127, 128, 255, 256, -129, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1]
)
NO_NUL = st.characters(exclude_characters="\0")
INT64 = st.integers(-(2**63), 2**64 - 1)
LEAVES = {
    "f": st.floats() | INTEGERS | st.sampled_from([1e39, 10**400, 16777217, True, "1", None]),
    "i": INTEGERS | st.sampled_from([1.0, True, math.nan, "1", None]),
    "u": INTEGERS | st.sampled_from([1.0, True, math.nan, "1", None]),
    "b": st.booleans() | st.sampled_from([0, 1, 1.0, "true", None]),
    "O": TEXT | st.sampled_from([0, True, None]),
}
GOOD_LEAVES = {
    "f": st.floats(width=16) | st.integers(-9, 9),
    "i": st.integers(0, 9),
    "u": st.integers(0, 9),
    "b": st.booleans(),
    "O": TEXT,
}


@given(st.data())
@pytest.mark.parametrize("leaves", [GOOD_LEAVES, LEAVES], ids=["good leaves", "any leaves"])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_all_paths_agree(dtype: str, leaves: dict[str, Any], data: st.DataObject) -> None:
    """The fast path, the path of small bodies, and Python with NumPy, on the same lists."""
    spec = spec_of(dtype)
    value = data.draw(ragged(leaves[spec.numpy_dtype.kind]))
    expected = expected_outcome(value, spec)
    for body in (document(value), PADDING + document(value)):
        got = outcome(body, spec)
        if expected is None or got is None:
            assert got is None, f"accepted as {got!r}"
            assert expected is None, f"refused, NumPy reads {expected!r}"
        else:
            assert_identical(got, expected)


@given(st.data())
def test_several_tensors_in_one_body(data: st.DataObject) -> None:
    """A ragged one is found beside others, also where only the count of lists betrays it."""
    spec = spec_of("float32")
    values = data.draw(st.lists(ragged(GOOD_LEAVES["f"]), min_size=1, max_size=4))
    body = PADDING + json.dumps({f"x{i}": value for i, value in enumerate(values)}).encode()
    expected = [expected_outcome(value, spec) for value in values]
    if any(array is None for array in expected):
        with pytest.raises(SignatureError):
            read_all(body, len(values), spec)
        return
    for tensor, wanted in zip(read_all(body, len(values), spec), expected, strict=True):
        assert wanted is not None
        assert_identical(tensor, wanted)


@pytest.mark.parametrize(
    "value",
    [
        "[1, [2]]",
        "[[1], 2]",
        "[[1, 2], [3]]",
        "[[[1], [2]], [[3]]]",
        "[[[1, 2], [3]], [[4, 5], [6, 7, 8]]]",
        "[[1, 2], [3, [4]]]",
        "[[1, 2], [3, []]]",
        "[[1, [2, 3]], [[4, 5], 6]]",
        "[[], [1]]",
        "[[1], []]",
        "[[[]], []]",
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
def test_ragged_lists_are_refused(value: str, dtype: str, padding: bytes) -> None:
    with pytest.raises(SignatureError, match="input x holds lists of different length"):
        read(padding + b'{"x": %b}' % value.encode(), spec_of(dtype))


@pytest.mark.parametrize("text", ["[[1, 2]]", "[", "]]]"])
def test_brackets_in_strings_do_no_harm(text: str) -> None:
    body = PADDING + json.dumps({"x": [[1, 2]], "note": text, text: 1}).encode()
    assert read(body, spec_of("float32")).tolist() == [[1, 2]]


@pytest.mark.parametrize("depth", [31, 32, 33, 63, 64, 65, 200, 1000])
@pytest.mark.parametrize("dtype", ["float32", "bool", STRING])
@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
def test_deep_lists_never_overflow(depth: int, dtype: str, padding: bytes) -> None:
    leaf = {"bool": True, STRING: "a"}.get(dtype, 1)
    body = padding + b'{"x":%b%b%b}' % (b"[" * depth, json.dumps(leaf).encode(), b"]" * depth)
    try:
        assert read(body, spec_of(dtype)).ndim == depth
    except SignatureError:
        assert depth > 31


@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
@pytest.mark.parametrize("digits", [20, 40, 308, 309, 400, 4300, 4301, 100_000])
def test_integers_of_any_length(digits: int, padding: bytes) -> None:
    body = padding + b'{"x":[[1,%b]]}' % (b"9" * digits)
    with pytest.raises(InputError):
        read(body, spec_of("int64"))
    if digits < 309:
        assert read(body, spec_of("float64"))[0, 1] == float("9" * digits)
    else:
        with pytest.raises(InputError):
            read(body, spec_of("float64"))


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode).map(lambda t: b'{"x":%b}' % t))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for padded in (body, PADDING + body):
        with contextlib.suppress(InputError):
            assert isinstance(parse_object(padded), dict)


@given(st.dictionaries(st.text(NO_NUL, max_size=4), INT64 | TEXT | st.lists(INT64)))
def test_both_parsers_read_the_same(value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()

    def parsed(text: bytes) -> dict[str, Any] | None:
        try:
            return {k: json_codec.plain(v) for k, v in fields(parse_object(text)).items()}
        except InputError:
            return None

    assert parsed(body) == parsed(PADDING + body)


def test_keys_with_a_nul_character_are_read() -> None:
    body = PADDING + rb'{"\u0000": 1, "a\u0000b": 2, "x": [[3]]}'
    assert parse_object(body).keys() == {"\0", "a\0b", "x"}
    assert read(body, spec_of("float32")).tolist() == [[3]]


def test_many_keys_take_no_longer_each() -> None:
    """simdjson looks for a key among all of them: 100,000 would take 20 s, one after the other."""
    names = [f"key{number}" for number in range(100_000)]
    started = time.process_time()
    assert list(fields(parse_object(json.dumps(dict.fromkeys(names, 1)).encode()))) == names
    assert time.process_time() - started < 5


def test_a_parser_is_free_again_after_an_error() -> None:
    """Nodes that an error in flight still holds must not block the next body."""
    body = PADDING + b'{"x": [[1, 2]]}'
    held = parse_object(body)
    assert isinstance(held, dict)
    assert isinstance(held["x"], simdjson.Array)
    for _ in range(3):
        assert read(body, spec_of("float32")).tolist() == [[1, 2]]


def test_the_largest_bodies_have_a_parser_of_their_own() -> None:
    body = b" " * (9 << 20) + b'{"x": [[1, 2]]}'
    assert read(body, spec_of("float32")).tolist() == [[1, 2]]
    assert json_codec._parser is not None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": ["b" * 100]}, "…"),
        (None, "holds null"),
        ("text", 'holds "text"'),
    ],
)
def test_messages_show_the_value_briefly(value: Any, message: str) -> None:
    with pytest.raises(SignatureError) as caught:
        from_plain([value], spec_of("float32"))
    assert message in caught.value.message
    assert len(caught.value.message) < 100
