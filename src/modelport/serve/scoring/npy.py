"""NumPy's ``.npy`` both ways, without pickles, and without trusting what its header announces.

Source: ``numpy/lib/_format_impl.py``, versions 1.0 and 2.0 of the format.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

import numpy as np

from modelport.core.errors import InputError, NotAcceptableError
from modelport.core.signature import Signature
from modelport.core.tensors import Array
from modelport.serve.scoring.columns import cast

#: The last code point of Unicode.
_LAST_CODE = 0x10FFFF

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read(body: bytes, signature: Signature) -> dict[str, Array]:
    """The single input of a model from one array; a single row may come without its batch.

    Raises
    ------
    InputError
        When the body is no such file, or the model takes several inputs.
    SignatureError
        When its element type cannot be converted safely.
    """
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise InputError(f"an .npy body is one array, and the model takes several: {names}")
    (spec,) = signature.inputs
    array = cast(_parse(body), spec)
    return {spec.name: as_rows(array, spec.shape)}


def as_rows(array: Array, shape: tuple[int | str, ...]) -> Array:
    """`array`, or a batch of one where it is a single row as `shape` has it."""
    row = shape[1:]
    single = (
        shape
        and isinstance(shape[0], str)
        and array.ndim == len(row) > 0
        and row[-1] != 1  # a missing last dimension of 1 is filled in elsewhere
        and array.shape == row
    )
    return array[np.newaxis] if single else array


def _parse(body: bytes) -> Array:
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        shape, by_column, dtype = _HEADERS[version](file)
    except Exception as error:  # NumPy's parser of the header raises whatever Python's does
        raise InputError("body is not an .npy file of version 1 or 2") from error
    if dtype.hasobject or dtype.kind not in "biufSU" or not dtype.itemsize:
        raise InputError(f"the .npy body holds {str(dtype)[:80]}; plain numbers or text are needed")
    raw = memoryview(body)[file.tell() :]
    expected = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or len(raw) != expected:
        raise InputError(f"the .npy body has {len(raw)} bytes of data, its header says {expected}")
    try:
        array = np.frombuffer(raw, dtype) if expected else np.empty(0, dtype)
        array = array.reshape(shape, order="F" if by_column else "C")
    except (ValueError, OverflowError) as error:  # more dimensions than there can be
        raise InputError(f"the .npy body's shape cannot be: {error}") from error
    if dtype.kind == "S":
        try:
            return np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError("the .npy body holds text that is not UTF-8") from error
    if dtype.kind == "U" and expected:
        # NumPy reads these as they come, and the interpreter fails on what is no character.
        codes = np.frombuffer(raw, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if ((codes > _LAST_CODE) | ((codes >= 0xD800) & (codes <= 0xDFFF))).any():
            raise InputError("the .npy body holds text that is not Unicode")
    if dtype.kind == "b" and array.size and int(array.view(np.uint8).max()) > 1:
        raise InputError("the .npy body holds a truth value other than 0 and 1")
    # One row after the other, in this machine's byte order.
    return np.ascontiguousarray(array, dtype=dtype.newbyteorder("=")).reshape(shape)


def write(outputs: Mapping[str, Array]) -> bytes:
    """The one output as a file; text in fixed width.

    Raises
    ------
    NotAcceptableError
        When there are several.
    """
    if len(outputs) != 1:
        raise NotAcceptableError(
            f"an .npy answer is one array, and the model gives {', '.join(outputs)}"
        )
    (array,) = outputs.values()
    if array.dtype.kind == "O":
        texts = [
            item.decode("utf-8", errors="replace") if isinstance(item, bytes) else str(item)
            for item in array.ravel()
        ]
        array = np.array(texts, dtype=np.str_).reshape(array.shape)
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()
