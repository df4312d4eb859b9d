"""``.json`` and ``.jsonl``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from modelport.core.errors import InputError
from modelport.core.rows import Rows, decode_base64
from modelport.core.tensors import Array


class JsonReader:
    """Three forms: rows of values, rows as objects, or one object of columns.

    ``[[1, 2], [3, 4]]``, ``[{"a": 1}, {"a": 2}]`` and ``{"a": [1, 2]}``; in ``.jsonl`` every
    line is one row. TF Serving's ``{"instances": …}`` and ``{"inputs": …}`` are unwrapped, so
    that a request body can be used as it is.
    """

    def read(self, path: Path) -> Rows:
        """See `modelport.data.base.Reader.read`."""
        where = str(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
            lines = path.suffix.lower() == ".jsonl"
            document: Any = _lines(text, where) if lines else json.loads(text)
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}", where=where) from error
        if isinstance(document, dict) and len(document) == 1:
            (key,) = document
            document = document[key] if key in ("instances", "inputs") else document
        document = _with_bytes(document, where)
        if isinstance(document, list) and document and isinstance(document[0], dict):
            document = _columns(document, where)
        if isinstance(document, dict):
            return Rows(
                {name: _array(v, f"{where}: {name}") for name, v in document.items()}, where
            )
        if isinstance(document, list):
            return Rows({"": _array(document, where)}, where)
        raise InputError("a list of rows or an object of columns is needed", where=where)


def _with_bytes(value: Any, where: str) -> Any:
    """Replace every ``{"b64": …}``, as TF Serving's clients write bytes."""
    if isinstance(value, list):
        return [_with_bytes(v, where) for v in value] if _holds_objects(value) else value
    if not isinstance(value, dict):
        return value
    if value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return decode_base64(value["b64"])
        except ValueError as error:
            raise InputError(f"not Base64: {error}", where=where) from error
    return {name: _with_bytes(v, where) for name, v in value.items()}


def _holds_objects(value: list[Any]) -> bool:
    """Whether it is worth looking inside: long lists of numbers are not."""
    return bool(value) and isinstance(value[0], dict | list)


def _lines(text: str, where: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise InputError(f"not JSON: {error}", where=f"{where}:{number}") from error
    return rows


def _columns(rows: list[Any], where: str) -> dict[str, list[Any]]:
    names = list(rows[0])
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != set(names):
            raise InputError(
                f"row {number} has other keys than the first: {', '.join(names)}", where=where
            )
    return {name: [row[name] for row in rows] for name in names}


def _array(value: Any, where: str) -> Array:
    if isinstance(value, list) and any(isinstance(item, bytes) for item in value):
        files = np.empty(len(value), dtype=object)  # NumPy's own text would lose final zeros
        files[:] = value
        return files
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"rows differ in length: {error}", where=where) from error
    if array.dtype.kind in "UO":
        flat = np.asarray(value, dtype=object)
        if any(isinstance(item, int | float) or item is None for item in flat.ravel()):
            try:
                return flat.astype(np.float64)  # None becomes NaN
            except (TypeError, ValueError):
                pass
        return flat
    return array
