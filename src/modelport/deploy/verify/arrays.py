"""Arrays as JSON and back, without losing a digit or hiding a wrong type."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from modelport.core.errors import EngineError
from modelport.core.tensors import BYTES, STRING, Array, TensorSpec
from modelport.deploy.verify.web import shown


def plain(array: Array) -> Any:
    """Nested lists; `bytes` as ``{"b64": …}``, as TensorFlow Serving writes them.

    Every float is written as the double that it is: the digits say the same number in its own
    type.
    """
    return _base64(array.tolist()) if array.dtype == object else array.tolist()


def read(value: Any, spec: TensorSpec, url: str) -> Array:
    """The array of nested lists, as the element type of `spec`.

    Null is NaN among floats. A whole number is an integer also when written ``1.0``, since some
    platforms know only doubles.

    Raises
    ------
    EngineError
        When the lists are ragged, or hold another kind of value.
    """
    try:
        # What is beyond the type becomes another number or an infinity, and is told as such.
        with np.errstate(invalid="ignore", over="ignore"):
            found = _convert(value, spec)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EngineError(
            f"{url} answered no {spec.dtype} values for output {spec.name}: {shown(value)}"
        ) from error
    if found is None:
        raise EngineError(
            f"{url} answered values for output {spec.name} that are no {spec.dtype}: {shown(value)}"
        )
    return found


def _convert(value: Any, spec: TensorSpec) -> Array | None:
    if spec.dtype in (STRING, BYTES):
        texts = np.array(_texts(value), dtype=object)
        return texts if all(isinstance(item, str | bytes) for item in texts.ravel()) else None
    natural = np.asarray(value)
    if not natural.size:
        return natural.astype(spec.numpy_dtype)
    kind = natural.dtype.kind
    if spec.dtype == "bool":
        return natural if kind == "b" else None
    if spec.numpy_dtype.kind == "f":
        if kind == "O":
            natural = np.array(natural, dtype=np.float64)  # None becomes NaN
        return natural.astype(spec.numpy_dtype) if kind in "Ofiu" else None
    if kind == "f":
        if not (natural == np.floor(natural)).all():
            return None
        return natural.astype(spec.numpy_dtype)
    return np.asarray(value, dtype=spec.numpy_dtype) if kind in "iu" else None


def _base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_base64(item) for item in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if isinstance(value, dict) and value.keys() == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, TypeError) as error:
            raise ValueError(value) from error
    return value
