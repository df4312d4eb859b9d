"""Raw tensors of the Open Inference Protocol: exact both ways, and strict."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.core.errors import InputError, ModelportError, SignatureError
from modelport.core.tensors import BYTES, NUMPY_DTYPES, STRING, TensorSpec
from modelport.serve.oip.codec import (
    Buffers,
    decode,
    decode_bfloat16,
    decode_whole,
    encode,
    encode_bfloat16,
    split,
)

from .arrays import DTYPES, assert_identical, raw, spec_of, tensors


@given(st.data(), st.integers(0, 8))
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_round_trip(dtype: str, data: st.DataObject, offset: int) -> None:
    """Bit by bit, at any alignment."""
    array = data.draw(tensors(dtype))
    encoded = encode(array)
    assert encoded == raw(array)
    buffer = memoryview(b"\xff" * offset + encoded)[offset:]
    decoded = decode(buffer, spec_of(dtype), array.size)
    assert decoded.flags.aligned
    assert encode(decoded) == encoded
    assert_identical(decoded.reshape(array.shape), array)


def test_nan_keeps_its_payload() -> None:
    payload = bytes.fromhex("4523c17f 010080ff 000080ff".replace(" ", ""))
    assert encode(decode(memoryview(payload), spec_of("float32"), 3)) == payload


@given(st.lists(st.binary(max_size=9), max_size=5))
def test_bytes_round_trip(items: list[bytes]) -> None:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    decoded = decode(memoryview(encode(array)), TensorSpec("x", BYTES, ("N",)), len(items))
    assert decoded.tolist() == items


def test_every_bfloat16_round_trips() -> None:
    """All 65536 of them; they are the floats whose lower half is zero."""
    raw = np.arange(2**16, dtype="<u2").tobytes()
    for offset in range(4):
        buffer = memoryview(b"\xff" * offset + raw)[offset:]
        floats = decode_bfloat16(buffer, spec_of("float32"), 2**16)
        assert floats.dtype == np.float32
        assert floats.flags.aligned
        assert not (floats.view(np.uint32) & 0xFFFF).any()
        assert floats.view(np.uint32)[0x3F80] == 0x3F800000
        back = np.frombuffer(encode_bfloat16(floats), "<u2")
        nan = np.isnan(floats)
        assert (back == np.arange(2**16))[~nan].all()
        assert np.isnan(
            decode_bfloat16(memoryview(back.tobytes()), spec_of("float32"), 2**16)[nan]
        ).all()


@given(st.floats(width=32))
def test_bfloat16_is_the_nearest(number: float) -> None:
    (near,) = decode_bfloat16(
        memoryview(encode_bfloat16(np.array([number], np.float32))), spec_of("float32"), 1
    ).tolist()
    if number != number:
        assert near != near
        return
    assert math.copysign(1, near) == math.copysign(1, number)
    upper = np.float32(number).view(np.uint32) & np.uint32(0xFFFF0000)
    below = float(upper.view(np.float32))
    # One step away from zero; beyond the largest float there is infinity.
    above = float((upper + np.uint32(0x10000)).view(np.float32)) if math.isfinite(below) else below
    assert near in (below, above)
    if math.isfinite(above):
        assert abs(near - number) == min(abs(below - number), abs(above - number))
        if abs(below - number) == abs(above - number) and below != above:
            assert not np.float32(near).view(np.uint32) & 0x10000, "ties go to even"


@given(st.binary(max_size=12), st.integers(0, 6))
def test_any_bytes_are_bfloat16_or_refused(buffer: bytes, count: int) -> None:
    if len(buffer) == 2 * count:
        assert len(decode_bfloat16(memoryview(buffer), spec_of("float32"), count)) == count
    else:
        with pytest.raises(SignatureError, match="of BF16"):
            decode_bfloat16(memoryview(buffer), spec_of("float32"), count)


def test_bfloat16_of_any_layout() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    expected = np.array([0, 3, 1, 4, 2, 5], np.float32)
    assert encode_bfloat16(array) == encode_bfloat16(expected)


@given(st.data())
def test_arrays_need_not_be_contiguous_or_native(data: st.DataObject) -> None:
    array = data.draw(tensors(data.draw(DTYPES), min_dims=2))
    for view in (array.T, array[::-1], array[:, ::2]):
        assert encode(view) == raw(view.copy())
    if array.dtype != object:
        assert encode(array.astype(array.dtype.newbyteorder(">"))) == raw(array)


def test_bytes_are_encoded_as_they_are() -> None:
    assert encode(np.array([b"\xff\x00", "é"], object)) == b"\2\0\0\0\xff\0\2\0\0\0\xc3\xa9"


@given(st.data(), st.binary(max_size=40), st.integers(0, 12))
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_any_bytes_are_decoded_or_refused(
    dtype: str, data: st.DataObject, buffer: bytes, count: int
) -> None:
    with contextlib.suppress(SignatureError):
        array = decode(memoryview(buffer), spec_of(dtype), count)
        assert array.shape == (count,)
        assert encode(array) == buffer


@given(st.binary(max_size=30), st.text(max_size=8) | st.integers(-3, 40).map(str))
def test_splitting(body: bytes, header: str) -> None:
    if header.isascii() and header.isdigit() and int(header) <= len(body):
        head, rest = split(body, header)
        assert len(head) == int(header)
        assert head + bytes(rest) == body
    else:
        with pytest.raises(InputError, match="Inference-Header-Content-Length"):
            split(body, header)


def test_splitting_without_the_header() -> None:
    assert split(b"{}", None) == (b"{}", b"")
    with pytest.raises(InputError, match="empty"):
        split(b"", None)
    with pytest.raises(InputError, match="'9999"):
        split(b"{}", "9" * 5000)


def test_buffers_are_taken_in_order() -> None:
    buffers = Buffers(memoryview(b"abcdef"))
    assert bytes(buffers.take(2, "a")) == b"ab"
    assert bytes(buffers.take(0, "b")) == b""
    assert bytes(buffers.take(3, "c")) == b"cde"
    with pytest.raises(InputError, match="1 bytes of binary data belong to no input"):
        buffers.finish()
    with pytest.raises(InputError, match="input d announces 2 bytes, 1 are left"):
        buffers.take(2, "d")
    assert bytes(buffers.take(1, "d")) == b"f"
    buffers.finish()


@pytest.mark.parametrize("size", [-1, True, 1.0, "1", None, [1]])
def test_sizes_are_integers(size: object) -> None:
    with pytest.raises(InputError, match="binary_data_size"):
        Buffers(memoryview(b"abc")).take(size, "x")


@pytest.mark.parametrize(
    ("shape", "data", "expected"),
    [
        (("N", 2), b"\1\2\3\4", (2, 2)),
        (("N",), b"\1\2\3", (3,)),
        (("N", 3, "M"), b"\1\2\3\4\5\6", (1, 3, 2)),
        ((2, "M"), b"\1\2\3\4", (2, 2)),
        ((2, 2), b"\1\2\3\4", (2, 2)),
        ((), b"\1", ()),
        (("N", 2), b"", (0, 2)),
    ],
)
def test_a_whole_body(shape: tuple[int | str, ...], data: bytes, expected: tuple[int, ...]) -> None:
    array = decode_whole(memoryview(data), TensorSpec("x", "uint8", shape))
    assert array.shape == expected
    assert array.tobytes() == data


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [
        ("uint8", ("N", 2), b"\1\2\3"),
        ("uint8", ("N", "M", "K"), b"\1\2"),
        ("uint8", (), b"\1\2"),
        ("uint8", (2, 2), b""),
        ("uint16", ("N",), b"\1\2\3"),
        ("bool", ("N",), b"\1\2"),
        (STRING, (1,), b"\1\0\0\0a"),
    ],
)
def test_a_whole_body_that_does_not_fit(
    dtype: str, shape: tuple[int | str, ...], data: bytes
) -> None:
    with pytest.raises(ModelportError):
        decode_whole(memoryview(data), TensorSpec("x", dtype, shape))
