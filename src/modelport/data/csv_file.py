"""``.csv``: a header and columns, or numbers only."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from modelport.core.errors import InputError
from modelport.core.rows import Rows
from modelport.core.tensors import Array


class CsvReader:
    """Columns become int64, float64 (empty cell: NaN) or text, whichever fits all cells.

    A first line of numbers only means that there is no header: the file is one matrix.
    """

    def read(self, path: Path) -> Rows:
        """See `modelport.data.base.Reader.read`."""
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                lines = [line for line in csv.reader(file, strict=True) if line]
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"not a CSV file: {error}", where=str(path)) from error
        if not lines:
            raise InputError("there are no rows", where=str(path))
        width = len(lines[0])
        for number, line in enumerate(lines, start=1):
            if len(line) != width:
                raise InputError(
                    f"row {number} has {len(line)} cells, the first has {width}", where=str(path)
                )
        if all(_is_number(cell) for cell in lines[0]):
            columns = [_column(list(cells)) for cells in zip(*lines, strict=True)]
            return Rows({"": np.stack(columns, axis=-1)}, where=str(path))
        header = lines[0]
        if len(set(header)) < width:
            raise InputError("column names repeat", where=f"{path}:1")
        if len(lines) == 1:
            raise InputError("there is a header and no rows", where=str(path))
        cells_by_column = zip(*lines[1:], strict=True)
        return Rows(
            {name: _column(list(c)) for name, c in zip(header, cells_by_column, strict=True)},
            where=str(path),
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column(cells: list[str]) -> Array:
    for convert in (np.int64, np.float64):
        try:
            filled = [cell if cell.strip() else "nan" for cell in cells]
            return np.asarray(filled, dtype=np.str_).astype(convert)
        except (ValueError, OverflowError):
            continue
    return np.asarray(cells, dtype=object)
