"""TensorFlow's element types, and its ``TensorProto`` from and to arrays.

Source: ``tensorflow/core/framework/{types,tensor,tensor_shape}.proto`` and ``tensor.cc``. Needs no
protobuf: messages come parsed from the adapter, and answers are written as wire bytes, since the
packed field of a float, a double or a bool is the array's own memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError, LimitError, SignatureError
from modelport.core.tensors import BYTES, STRING, Array, TensorSpec

#: modelport element type → TensorFlow's name and number.
_TYPES: Final = {
    "float32": ("DT_FLOAT", 1),
    "float64": ("DT_DOUBLE", 2),
    "int32": ("DT_INT32", 3),
    "uint8": ("DT_UINT8", 4),
    "int16": ("DT_INT16", 5),
    "int8": ("DT_INT8", 6),
    "string": ("DT_STRING", 7),
    "bytes": ("DT_STRING", 7),
    "int64": ("DT_INT64", 9),
    "bool": ("DT_BOOL", 10),
    "uint16": ("DT_UINT16", 17),
    "float16": ("DT_HALF", 19),
    "uint32": ("DT_UINT32", 22),
    "uint64": ("DT_UINT64", 23),
}

#: modelport element type → TensorFlow's name.
DATATYPES: Final = {dtype: name for dtype, (name, _) in _TYPES.items()}

#: modelport element type → TensorFlow's number.
NUMBERS: Final = {dtype: number for dtype, (_, number) in _TYPES.items()}

_NAMES: Final = {
    8: "DT_COMPLEX64",
    14: "DT_BFLOAT16",
    18: "DT_COMPLEX128",
    **{number: name for name, number in _TYPES.values()},
}

#: modelport element type → the field with its values, and that field's number.
_FIELDS: Final = {
    "float32": ("float_val", 5),
    "float64": ("double_val", 6),
    **dict.fromkeys(("int32", "int16", "int8", "uint8", "uint16"), ("int_val", 7)),
    "string": ("string_val", 8),
    "bytes": ("string_val", 8),
    "int64": ("int64_val", 10),
    "bool": ("bool_val", 11),
    "float16": ("half_val", 13),
    "uint32": ("uint32_val", 16),
    "uint64": ("uint64_val", 17),
}

#: Most bytes that a tensor of fewer values than elements may fill: its shape is only a claim.
_MOST_REPEATED: Final = 256 << 20

#: Element types whose packed field is their own memory: protobuf writes ``true`` as 1.
_AS_IN_MEMORY: Final = ("float32", "float64", "bool")
#: From so many values on it pays to read the field as it is on the wire.
_MANY: Final = 16

#: Varints below this are one byte.
_ONE_BYTE: Final = 128


def decode(proto: Any, spec: TensorSpec) -> Array:
    """The array that a message holds.

    ``tensor_content`` counts where it is not empty; else the typed field. Where that has fewer
    values than the shape has elements, the last one repeats; no value at all is zero.

    Parameters
    ----------
    proto : tensorflow.TensorProto
        It may be changed.
    spec : TensorSpec
        Its element type must be the message's; the shape is checked later.

    Raises
    ------
    InputError
        When the message contradicts itself.
    SignatureError
        When it has another element type, or a value beyond it.
    LimitError
        When few values are to fill too much memory.
    """
    if proto.dtype != NUMBERS[spec.dtype]:
        got = _NAMES.get(proto.dtype, str(proto.dtype))
        raise SignatureError(
            f"input {spec.name} has element type {got}, expected {DATATYPES[spec.dtype]}"
        )
    shape, count = _shape(proto, spec)
    if proto.tensor_content:
        return _from_content(proto.tensor_content, spec, count).reshape(shape)
    name, number = _FIELDS[spec.dtype]
    values = getattr(proto, name)
    given = len(values)
    if given > count:
        raise InputError(
            f"input {spec.name} has {given} values in {name}, its shape {shape} needs {count}"
        )
    if given < count and count * max(spec.numpy_dtype.itemsize, 8) > _MOST_REPEATED:
        raise LimitError(
            f"input {spec.name} has {given} values for {count} elements; repeated values may "
            f"fill {_MOST_REPEATED >> 20} MiB at most"
        )
    if given >= _MANY and spec.dtype in _AS_IN_MEMORY:
        proto.DiscardUnknownFields()  # those may be of any wire type
        array = _from_wire(proto.SerializeToString(), number, spec, given)
    else:
        array = _from_values(values, spec, name)
    return _filled(array, count, spec).reshape(shape)


def _shape(proto: Any, spec: TensorSpec) -> tuple[list[int], int]:
    if proto.tensor_shape.unknown_rank:
        raise InputError(f"input {spec.name} has a shape of unknown rank")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if any(size < 0 for size in shape):
        raise InputError(f"input {spec.name} has shape {shape}: sizes are integers from 0")
    if len(shape) > len(spec.shape) + 1 and len(shape) > _MOST_DIMENSIONS:
        raise InputError(f"input {spec.name} has {len(shape)} dimensions")
    count = math.prod(shape)
    # NumPy multiplies sizes before it sees that one of them is 0.
    if math.prod(size or 1 for size in shape) > _MOST_ELEMENTS:
        raise InputError(f"input {spec.name} has shape {shape}: too many elements")
    return shape, count


_MOST_DIMENSIONS: Final = 32
_MOST_ELEMENTS: Final = 2**48


def _from_content(content: bytes, spec: TensorSpec, count: int) -> Array:
    if spec.numpy_dtype.kind == "O":
        raise InputError(f"input {spec.name} is DT_STRING: its values belong in string_val")
    expected = count * spec.numpy_dtype.itemsize
    if len(content) != expected:
        raise InputError(
            f"input {spec.name} has {len(content)} bytes in tensor_content, its shape needs "
            f"{expected}"
        )
    if spec.dtype == "bool" and max(content) > 1:
        raise SignatureError(f"input {spec.name} has a DT_BOOL other than 0 and 1")
    return np.frombuffer(content, dtype=spec.numpy_dtype.newbyteorder("<"))


def _from_wire(raw: bytes, number: int, spec: TensorSpec, count: int) -> Array:
    """The values of a packed field, out of the serialized message.

    Writing the message again and finding the field in it costs a hundredth of asking protobuf for
    one Python object per value.
    """
    position = 0
    while True:
        tag, position = _read_varint(raw, position)
        size, position = _read_varint(raw, position)  # of a number: its value
        if tag == number << 3 | 2:
            break
        if tag & 7 == 2:
            position += size
    array = np.frombuffer(raw, spec.numpy_dtype.newbyteorder("<"), count, position)
    return array if array.flags.aligned else array.copy()


def _read_varint(raw: bytes, position: int) -> tuple[int, int]:
    """A varint, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < _ONE_BYTE:
            return value, position
        shift += 7


def _from_values(values: Any, spec: TensorSpec, name: str) -> Array:
    items = list(values)
    if spec.dtype == BYTES:
        return _objects(items)
    if spec.dtype == STRING:
        try:
            return _objects([item.decode() for item in items])
        except UnicodeDecodeError as error:
            raise SignatureError(f"input {spec.name} holds a string that is not UTF-8") from error
    dtype = np.dtype(np.uint16) if spec.dtype == "float16" else spec.numpy_dtype
    try:
        array = np.array(items, dtype=dtype)
    except OverflowError as error:
        raise SignatureError(
            f"input {spec.name} holds a number in {name} that is out of {spec.dtype}'s range"
        ) from error
    # Halves come as their bit patterns.
    return array.view(np.float16) if spec.dtype == "float16" else array


def _filled(array: Array, count: int, spec: TensorSpec) -> Array:
    if len(array) == count:
        return array
    zero: Any = {STRING: "", BYTES: b""}.get(spec.dtype, 0)
    filled = np.full(count, array[-1] if len(array) else zero, dtype=array.dtype)
    filled[: len(array)] = array
    return filled


def _objects(items: list[Any]) -> Array:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def encode(array: Array, dtype: str) -> bytes:
    """The wire bytes of a message with one value per element in the typed field.

    Typed, not ``tensor_content``: it is what TensorFlow Serving answers unless told otherwise, and
    clients are written that read ``float_val`` alone.

    Parameters
    ----------
    array : ndarray
    dtype : str
        modelport's element type.
    """
    dims = b"".join(field(2, b"\x08" + varint(size)) for size in array.shape)
    head = b"\x08" + varint(NUMBERS[dtype]) + field(2, dims)
    _, number = _FIELDS[dtype]
    if array.dtype.kind == "O":
        return head + b"".join(field(number, _raw(item)) for item in array.ravel())
    if not array.size:
        return head
    return head + field(number, _packed(array))


def _packed(array: Array) -> bytes:
    kind, itemsize = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and itemsize > 2:
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    if kind == "f":
        array = np.ascontiguousarray(array).view(np.uint16)
    elif kind == "b" or (array.min() >= 0 and array.max() < _ONE_BYTE):
        return array.astype(np.uint8).tobytes()
    return b"".join(map(varint, array.ravel().tolist()))


def _raw(item: Any) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()


def varint(value: int) -> bytes:
    """An integer as protobuf's base-128 varint; negative ones have ten bytes."""
    if 0 <= value < _ONE_BYTE:
        return _SMALL[value]
    value &= 0xFFFF_FFFF_FFFF_FFFF
    parts = bytearray()
    while value >= _ONE_BYTE:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


_SMALL: Final = [bytes([value]) for value in range(_ONE_BYTE)]


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field: text, bytes, a message, or packed numbers."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def entries(number: int, pairs: Iterable[tuple[str, bytes]]) -> bytes:
    """A map from text to messages."""
    return b"".join(field(number, field(1, key.encode()) + field(2, value)) for key, value in pairs)
