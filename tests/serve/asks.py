"""What asking is: `http_asks` and `rpc_asks` say how every inference route is asked."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from modelport.core.tensors import NUMPY_DTYPES, Array

NUMBERS: Final = ("bool", "float32", "float64", "int64", "uint64")
EVERY: Final = (*NUMBERS, "string")


@dataclass(frozen=True)
class Asked:
    """One request: of HTTP a body and headers; of gRPC the body is the message."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """One way to ask a route for the tensor ``y`` of ``x``.

    Parameters
    ----------
    name : str
        Which of the route's ways.
    build : callable
        From the rows (and their element type as modelport names it) to a request.
    read : callable
        From the answer's body, its headers and the element type to the rows.
    dtypes : sequence of str
        Element types that this way can carry.
    model : str
        ``same`` has rows of two, ``column`` rows of one.
    """

    name: str
    build: Callable[[Array, str], Asked]
    read: Callable[[bytes, Mapping[str, str], str], Array]
    dtypes: Sequence[str] = EVERY
    model: str = "same"


def array_of(values: Any, dtype: str) -> Array:
    """Plain values as an array; of JSON's numbers nothing is lost in the element type."""
    return np.array(values, dtype=NUMPY_DTYPES[dtype])


def text(value: Any) -> bytes:
    """JSON with the shortest digits that mean the same number."""
    return json.dumps(value, ensure_ascii=False).encode()


def plain(rows: Array) -> Any:
    """Nested lists; of float32 the digits are those of float64, which are exact."""
    return rows.tolist()


DATATYPES: Final = {
    "bool": "BOOL", "float32": "FP32", "float64": "FP64", "int64": "INT64", "uint64": "UINT64",
    "string": "BYTES",
}  # fmt: skip
HEADER: Final = "inference-header-content-length"


def raw(rows: Array) -> bytes:
    """A tensor as V2's raw bytes."""
    if rows.dtype != object:
        return rows.astype(rows.dtype.newbyteorder("<")).tobytes()
    texts = [item.encode() for item in rows.ravel()]
    return b"".join(struct.pack("<I", len(item)) + item for item in texts)


def from_raw(data: bytes, shape: Sequence[int], dtype: str) -> Array:
    """The inverse of `raw`."""
    if dtype != "string":
        return np.frombuffer(data, NUMPY_DTYPES[dtype].newbyteorder("<")).reshape(shape)
    items, position = [], 0
    while position < len(data):
        (size,) = struct.unpack_from("<I", data, position)
        items.append(data[position + 4 : position + 4 + size].decode())
        position += 4 + size
    return np.array(items, dtype=object).reshape(shape)
