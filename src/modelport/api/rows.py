"""Rows as people hold them: files, arrays, frames, lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelport.core.errors import InputError
from modelport.core.rows import Rows
from modelport.core.tensors import Array


def to_rows(data: Any) -> Rows:
    """Rows of a file, an array, a data frame or a mapping.

    Raises
    ------
    InputError
        When `data` is none of these.
    """
    if isinstance(data, Rows):
        return data
    if isinstance(data, str | Path):
        from modelport.data.base import read_rows

        return read_rows(Path(data))
    if isinstance(data, np.ndarray):
        return Rows({"": data})
    if isinstance(data, Mapping):
        return Rows({str(name): _values(values) for name, values in data.items()})
    if isinstance(data, bytes | list | tuple):
        return _listed([data] if isinstance(data, bytes) else list(data))
    if hasattr(data, "columns") and hasattr(data, "to_numpy"):  # pandas and polars alike
        return Rows({str(name): _column(data[name]) for name in data.columns})
    raise InputError(
        f"no rows can be read from a {type(data).__name__}",
        hint="give a file name, a NumPy array, a data frame, a mapping of columns, or a list of "
        "texts, files or encoded images",
    )


def _values(values: Any) -> Array:
    """An array; of text and bytes one of objects, since NumPy cuts zeros off the end of bytes."""
    if isinstance(values, list | tuple) and any(isinstance(v, str | bytes) for v in values):
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    return np.asarray(values)


def _listed(items: list[Any]) -> Rows:
    if items and all(isinstance(item, Path) for item in items):
        from modelport.data.base import read_files

        return read_files(items, where="")
    return Rows({"": _values(items)})


def _column(series: Any) -> Array:
    array = np.asarray(series.to_numpy())
    return array if array.dtype.kind in "biuf" else array.astype(object)
