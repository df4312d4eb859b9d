"""``.parquet``, through PyArrow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from modelport.core.errors import InputError
from modelport.core.rows import Rows
from modelport.core.tensors import Array


class ParquetReader:
    """Columns by name; a missing number is NaN, a column of lists is a matrix."""

    def read(self, path: Path) -> Rows:
        """See `modelport.data.base.Reader.read`."""
        try:
            table = pyarrow.parquet.read_table(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"not a Parquet file: {error}", where=str(path)) from error
        return Rows(
            {name: _array(table.column(name), f"{path}: {name}") for name in table.column_names},
            where=str(path),
        )


def _array(column: pyarrow.ChunkedArray, where: str) -> Array:
    if pyarrow.types.is_list(column.type) or pyarrow.types.is_fixed_size_list(column.type):
        try:
            return np.asarray(column.to_pylist())
        except ValueError as error:
            raise InputError(f"rows differ in length: {error}", where=where) from error
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    array = np.asarray(column.to_numpy())
    return array if array.dtype.kind in "biuf" else array.astype(object)
