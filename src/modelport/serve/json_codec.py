"""JSON numbers to arrays and back, fast.

simdjson parses and hands out flat buffers without making one Python object per number; that
is about nine times faster than ``json.loads`` + ``numpy.array`` for an image. Its objects cost
more than Python's own, so a small body goes through orjson. Whatever both refuse and JSON's
Python dialect allows (``NaN``, ``Infinity``, integers of any size) takes the slow path
through the standard library. orjson writes NumPy arrays directly.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, Final

import numpy as np
import orjson
import simdjson

from modelport.core.errors import InputError, SignatureError
from modelport.core.rows import decode_base64
from modelport.core.tensors import BYTES, STRING, Array, TensorSpec

#: A parser keeps buffers for its largest document: larger ones get one that is thrown away.
_KEEP_BUFFERS: Final = 8 << 20

#: Lists nested deeper are no tensor.
_MOST_DIMENSIONS: Final = 32

#: simdjson finds a key by looking at one after the other: of more than this many, a client could
#: make that take minutes. No request has as many keys, but a row of named columns may.
_MOST_KEYS: Final = 64

#: Below this many bytes plain Python values are faster than buffers.
_SMALL: Final = 1024

_BUFFER_TYPES: Final = {"f": "d", "i": "i", "u": "u"}
_BUFFER_DTYPES: Final = {"d": np.float64, "i": np.int64, "u": np.uint64}

#: Python types whose lists NumPy converts to a kind without changing a value's meaning.
_NUMBERS: Final[dict[str, set[type]]] = {
    "f": {float, int},
    "i": {int},
    "u": {int},
    "b": {bool},
    "O": {str},
}

_OBJECT: Final = (simdjson.Object, dict)
_LIST: Final = (simdjson.Array, list)

_parser = simdjson.Parser()


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a document that is an object; values stay inside simdjson until asked for.

    Raises
    ------
    InputError
        For anything that is not a JSON object.
    """
    document = parse(body)
    if not is_object(document):
        raise InputError("body is not a JSON object")
    return fields(document)


def fields(node: Any) -> dict[str, Any]:
    """The keys and values of a parsed object; lists and objects among them stay unread.

    simdjson throws a C++ exception for a key that is missing, which costs more than listing
    the keys that are there; and its ``items`` would read all of it, which is done for an object
    of many keys alone.
    """
    if isinstance(node, dict):
        return node
    if len(node) > _MOST_KEYS:
        return dict(node.as_dict())
    try:
        found = {key: node[key] for key in node}
    except KeyError:  # simdjson does not find a key with a NUL character
        found = {}
    # Of equal keys simdjson finds the first; the other parsers keep the last.
    return found if len(found) == len(node) else dict(node.as_dict())


def parse(body: bytes) -> Any:
    """Parse a document of any kind; objects and lists in it stay unread until asked for.

    Raises
    ------
    InputError
        For anything that is not one JSON value.
    """
    if len(body) < _SMALL:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            return _parse_slowly(body)
    global _parser
    try:
        if len(body) > _KEEP_BUFFERS:
            return simdjson.Parser().parse(body)
        try:
            return _parser.parse(body)
        except RuntimeError:
            # Perhaps an error in flight still refers to the last document, by its traceback.
            _parser = simdjson.Parser()
            return _parser.parse(body)
    except UnicodeDecodeError as error:
        raise InputError(f"body is not UTF-8: {error.reason}") from error
    except (ValueError, RuntimeError):  # the latter for large integers, and for deep nesting
        return _parse_slowly(body)


def _parse_slowly(body: bytes) -> Any:
    try:
        # Decoded here: on bytes `json.loads` would guess UTF-16, and pass surrogates.
        document = json.loads(body.decode("utf-8-sig"))
        if rb"\u" in body:
            # Python alone accepts half a surrogate pair, which is no text that can be encoded.
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except UnicodeDecodeError as error:
        raise InputError("body is not UTF-8") from error
    except UnicodeEncodeError as error:
        raise InputError("body is not JSON: it holds half a surrogate pair") from error
    except ValueError as error:
        raise InputError(f"body is not JSON: {error}") from error
    except RecursionError as error:
        raise InputError("body is not JSON: nested too deeply") from error


def is_object(node: Any) -> bool:
    """Whether a parsed node is a JSON object."""
    return isinstance(node, _OBJECT)


def is_list(node: Any) -> bool:
    """Whether a parsed node is a JSON array."""
    return isinstance(node, _LIST)


def plain(node: Any) -> Any:
    """A parsed node as plain Python values."""
    if isinstance(node, simdjson.Array):
        return node.as_list()
    if isinstance(node, simdjson.Object):
        return node.as_dict()
    return node


class Reader:
    """Reads tensors out of one parsed body and checks that no list is ragged.

    Lengths are compared list by list; what that cannot see (a list hiding among the numbers
    of an innermost list) shows in the total count of ``[`` in the body: `finish` compares.

    Parameters
    ----------
    body : bytes
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._lists = 0
        self._doubtful: list[tuple[str, Any]] = []

    def tensor(self, node: Any, spec: TensorSpec) -> Array:
        """The array that `node` writes, nested as it is there, of `spec`'s element type.

        Raises
        ------
        SignatureError
            Ragged lists, or values of another type.
        """
        kind = _BUFFER_TYPES.get(spec.numpy_dtype.kind)
        if kind is not None and isinstance(node, simdjson.Array):
            return self._numbers(node, spec, kind)
        if kind is None and spec.dtype == BYTES:
            return from_base64(plain(node), spec)
        return from_plain(plain(node), spec)

    def count_lists(self, number: int) -> None:
        """Tell of lists outside tensors."""
        self._lists += number

    def finish(self) -> None:
        """Check what the fast path could not.

        Raises
        ------
        SignatureError
            When a list is ragged after all.
        """
        if self._doubtful and self._body.count(b"[") != self._lists:
            for name, node in self._doubtful:
                _rectangular(node.as_list(), name)

    def _numbers(self, node: simdjson.Array, spec: TensorSpec, kind: str) -> Array:
        shape, lists = _shape_of(node, spec.name)
        try:
            buffer = node.as_buffer(of_type=kind)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            # Either a wrong type or a number beyond 64 bits: the slow path says which.
            return _explain(node, spec, error)
        flat = np.frombuffer(buffer, dtype=_BUFFER_DTYPES[kind])
        if len(flat) != math.prod(shape):
            raise _ragged(spec.name)
        self._lists += lists
        self._doubtful.append((spec.name, node))
        return _narrow(flat, spec).reshape(shape)


def _explain(node: simdjson.Array, spec: TensorSpec, cause: Exception) -> Array:
    try:
        return from_plain(node.as_list(), spec)
    except (ValueError, OverflowError):
        raise _out_of_range(spec) from cause


def _shape_of(node: simdjson.Array, name: str) -> tuple[tuple[int, ...], int]:
    """Shape of nested lists by their lengths, and how many lists there are."""
    length = len(node)
    if not length or not isinstance(node[0], simdjson.Array):
        return (length,), 1
    shape = [length]
    lists = 1
    level = [node]
    while shape[-1] and isinstance(level[0][0], simdjson.Array):
        level = [item for parent in level for item in parent]  # type: ignore[misc]
        try:
            lengths = {len(item) for item in level}
        except TypeError:
            raise _ragged(name) from None
        if len(lengths) != 1 or len(shape) > _MOST_DIMENSIONS:
            raise _ragged(name)
        shape.append(lengths.pop())
        lists += len(level)
    return tuple(shape), lists


def _ragged(name: str) -> SignatureError:
    return SignatureError(f"input {name} holds lists of different length")


def _out_of_range(spec: TensorSpec) -> SignatureError:
    return SignatureError(f"input {spec.name} holds a number out of {spec.dtype}'s range")


def _rectangular(value: Any, name: str) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise _ragged(name) from error


def from_plain(value: Any, spec: TensorSpec) -> Array:
    """The array that plain Python values write: strings, booleans, and the slow path.

    Raises
    ------
    SignatureError
    """
    if isinstance(value, list) and set(map(type, value)) <= _NUMBERS[spec.numpy_dtype.kind]:
        try:
            return np.array(value, dtype=spec.numpy_dtype)
        except OverflowError as error:
            raise _out_of_range(spec) from error
    # NumPy accepts ragged lists of objects, so the shape of strings is checked here.
    if spec.dtype == STRING and not _same_depth(value):
        raise _ragged(spec.name)
    wanted = "string" if spec.dtype == STRING else spec.numpy_dtype.kind
    for item in _leaves(value):
        if not _is_a(item, wanted):
            raise SignatureError(f"input {spec.name} needs {spec.dtype}, and holds {_shown(item)}")
    try:
        # In one step: NumPy's own choice for large integers would be float64, which rounds.
        return np.array(value, dtype=spec.numpy_dtype)
    except ValueError as error:
        raise _ragged(spec.name) from error
    except OverflowError as error:
        raise _out_of_range(spec) from error


def from_base64(value: Any, spec: TensorSpec) -> Array:
    """The array of bytes that Base64 texts in nested lists write.

    Raises
    ------
    SignatureError
        Naming the element.
    """
    array = from_plain(value, replace(spec, dtype=STRING))
    for position, text in np.ndenumerate(array):
        try:
            array[position] = decode_base64(text)
        except ValueError as error:
            raise SignatureError(
                f"input {spec.name} needs Base64 text, and holds {_shown(text)} "
                f"at {list(position)}: {error}"
            ) from error
    return array


def _leaves(value: Any) -> list[Any]:
    """The leaves as Python wrote them: NumPy turns ``[1, true]`` into numbers silently."""
    leaves: list[Any] = []
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        else:
            leaves.append(item)
    return leaves


def _same_depth(value: Any) -> bool:
    """Whether nested lists are rectangular, and no deeper than any tensor."""
    level = [value]
    for _ in range(_MOST_DIMENSIONS):
        if not all(isinstance(item, list) for item in level):
            return not any(isinstance(item, list) for item in level)
        if len({len(item) for item in level}) > 1:
            return False
        level = [item for parent in level for item in parent]
        if not level:
            return True
    return False


def _is_a(item: Any, wanted: str) -> bool:
    if wanted == "string":
        return isinstance(item, str)
    if wanted == "b":
        return isinstance(item, bool)
    if isinstance(item, bool):
        return False
    return isinstance(item, int) or (wanted == "f" and isinstance(item, float))


def _shown(item: Any) -> str:
    text = json.dumps(item) if not isinstance(item, bytes) else repr(item)
    return text if len(text) <= 40 else text[:37] + "…"


def _narrow(array: Array, spec: TensorSpec) -> Array:
    """Cast 64-bit values to the specification's type; integers must fit."""
    dtype = spec.numpy_dtype
    if array.dtype == dtype:
        return array
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise _out_of_range(spec)
    return array.astype(dtype)  # too large for float32 is infinity, as everywhere


def dumps(value: Any) -> bytes:
    """Encode plain values as JSON."""
    return orjson.dumps(value)


def dumps_array(array: Array) -> bytes:
    """Encode an array as nested JSON lists (a scalar as its value).

    NaN and infinities become the bare tokens ``NaN``, ``Infinity`` and ``-Infinity``, as TF
    Serving and Triton write them. Strings that are not `str` are decoded as UTF-8.
    """
    if array.dtype.kind == "O":
        return orjson.dumps(array.tolist(), default=_text)
    encoded = orjson.dumps(
        (array if array.flags.c_contiguous else np.ascontiguousarray(array))
        if array.ndim
        # Of float32, `item` would have float64's digits; of integers, orjson knows not all.
        else (array[()] if array.dtype.kind == "f" else array.item()),
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    if b"null" in encoded:
        return json.dumps(array.tolist(), separators=(",", ":")).encode()
    return encoded


def _text(item: Any) -> str:
    if isinstance(item, bytes):
        return item.decode("utf-8", errors="replace")
    raise TypeError(type(item).__name__)
