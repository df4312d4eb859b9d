"""Datatypes and raw tensor bytes of the Open Inference Protocol, for servers and clients.

Raw bytes are little-endian, C order, without padding; BOOL one byte; BYTES as
``<u32 length><bytes>`` per element. Source: Triton's ``docs/protocol/extension_binary_data.md``.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError, SignatureError
from modelport.core.tensors import BYTES, STRING, Array, TensorSpec
from modelport.serve.json_codec import is_list, is_object

#: modelport element type → the protocol's.
DATATYPES: Final = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bytes": "BYTES",
    "string": "BYTES",
}

#: No signature has it; requests may bring it for FP32.
BFLOAT16: Final = "BF16"

#: The parameter of a tensor's metadata that tells ``bytes`` from ``string``: both are BYTES.
CONTENT: Final = "content_type"

#: The header that says how many bytes of a body are JSON; raw tensors follow them.
HEADER_LENGTH: Final = "inference-header-content-length"


#: Characters of what a client sent that a message repeats.
_LONGEST: Final = 80


def shown(value: Any, *, bare: bool = False) -> str:
    """A value that a client sent, as an error message repeats it.

    Lists and objects are not repeated: they may be deeper than Python can write.

    Parameters
    ----------
    value : object
    bare : bool
        Without quotes around text.
    """
    if is_list(value):
        return "a list"
    if is_object(value):
        return "an object"
    text = value if bare and isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """Split a request into its JSON part and the raw bytes behind it.

    Parameters
    ----------
    body : bytes
    header_length : str or None
        The ``Inference-Header-Content-Length`` header; None: all of it is JSON.

    Raises
    ------
    InputError
        When the header is not a length within the body.
    """
    if header_length is None:
        if not body:
            raise InputError("body is empty")
        return body, memoryview(b"")
    # At most 18 digits: more bytes than any body has, and Python refuses endless numbers.
    known = header_length.isascii() and header_length.isdigit() and len(header_length) <= 18
    length = int(header_length) if known else -1
    if not 0 <= length <= len(body):
        raise InputError(
            f"header Inference-Header-Content-Length is {header_length[:40]!r}; "
            f"the body has {len(body)} bytes"
        )
    return body[:length], memoryview(body)[length:]


class Buffers:
    """Takes raw buffers one after the other.

    Parameters
    ----------
    raw : memoryview
        Everything behind the JSON part.
    """

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self._used = 0

    def take(self, size: Any, name: str) -> memoryview:
        """The next `size` bytes, which belong to input `name`."""
        if type(size) is not int or size < 0:
            raise InputError(f"binary_data_size is {shown(size)}, expected an integer from 0")
        end = self._used + size
        if end > len(self._raw):
            raise InputError(
                f"input {name} announces {shown(size)} bytes, "
                f"{len(self._raw) - self._used} are left"
            )
        taken = self._raw[self._used : end]
        self._used = end
        return taken

    def finish(self) -> None:
        """Check that nothing is left over."""
        left = len(self._raw) - self._used
        if left:
            raise InputError(f"{left} bytes of binary data belong to no input")


def decode(raw: memoryview, spec: TensorSpec, count: int) -> Array:
    """`count` elements of `spec`'s type as a flat array.

    Raises
    ------
    SignatureError
        When the bytes are not exactly `count` elements.
    """
    if spec.numpy_dtype.kind == "O":
        items: list[Any] = _items(raw, spec)
        if spec.dtype == STRING:
            items = [_text(item, spec) for item in items]
        array = np.empty(len(items), dtype=object)
        array[:] = items
    else:
        expected = count * spec.numpy_dtype.itemsize
        if len(raw) != expected:
            raise SignatureError(
                f"input {spec.name} has {len(raw)} bytes, its shape needs {expected}"
            )
        array = np.frombuffer(raw, dtype=spec.numpy_dtype.newbyteorder("<"))
        if not array.flags.aligned:  # the JSON part before it has any length
            array = array.copy()
        if spec.dtype == "bool" and count and array.view(np.uint8).max() > 1:
            raise SignatureError(f"input {spec.name} has a BOOL other than 0 and 1")
    if len(array) != count:
        raise SignatureError(
            f"input {spec.name} has {len(array)} elements, its shape needs {count}"
        )
    return array


def decode_bfloat16(raw: memoryview, spec: TensorSpec, count: int) -> Array:
    """`count` elements of BF16 as a flat array of float32, which holds each of them exactly.

    Raises
    ------
    SignatureError
        When the bytes are not exactly `count` elements.
    """
    if len(raw) != count * 2:
        raise SignatureError(
            f"input {spec.name} has {len(raw)} bytes, its shape needs {count * 2} of BF16"
        )
    upper = np.frombuffer(raw, dtype="<u2")
    return (upper.astype(np.uint32) << np.uint32(16)).view(np.float32)


def encode_bfloat16(array: Array) -> bytes:
    """The raw BF16 bytes of an array of float32, each rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(array, dtype=np.float32).reshape(-1).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    upper = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    # Rounding could carry a NaN over into infinity: its upper half stays, and it stays a NaN.
    nan = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(array).reshape(-1), nan, upper).astype("<u2").tobytes()


def decode_whole(raw: memoryview, spec: TensorSpec) -> Array:
    """A whole body as one tensor; its one open dimension follows from its length.

    Where the input takes bytes, the body is one element.

    Raises
    ------
    SignatureError
        When more than one dimension is open beside the batch, or the bytes do not divide.
    """
    if spec.dtype == BYTES and len(spec.shape) == 1:
        # One file as it is, without a length before it: ``curl --data-binary @cat.jpg``.
        array = np.empty(1, dtype=object)
        array[0] = bytes(raw)
        return array
    shape = [size if isinstance(size, int) else -1 for size in spec.shape]
    if shape.count(-1) > 1:
        # The protocol assumes a batch of one.
        shape[0] = 1
    if shape.count(-1) > 1 or spec.dtype == STRING:
        raise SignatureError(
            f"input {spec.name} {spec.shape_text} cannot be sent without its shape"
        )
    itemsize = spec.numpy_dtype.itemsize
    if len(raw) % itemsize:
        raise SignatureError(f"{len(raw)} bytes are no whole number of {spec.dtype}")
    try:
        return decode(raw, spec, len(raw) // itemsize).reshape(shape)
    except ValueError as error:
        raise SignatureError(f"input {spec.name} {spec.shape_text}: {error}") from error


def _items(raw: memoryview, spec: TensorSpec) -> list[bytes]:
    items = []
    position = 0
    while position < len(raw):
        if position + 4 > len(raw):
            raise SignatureError(f"input {spec.name} ends inside a string's length")
        (length,) = struct.unpack_from("<I", raw, position)
        position += 4
        if position + length > len(raw):
            raise SignatureError(f"input {spec.name} ends inside a string of {length} bytes")
        items.append(bytes(raw[position : position + length]))
        position += length
    return items


def _text(item: bytes, spec: TensorSpec) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError as error:
        raise SignatureError(f"input {spec.name} holds a string that is not UTF-8") from error


def encode(array: Array) -> bytes:
    """The raw bytes of an array."""
    if array.dtype.kind == "O":
        encoded = [
            item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()
        ]
        return b"".join(part for item in encoded for part in (struct.pack("<I", len(item)), item))
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
