"""Parquet bodies, through PyArrow; loaded only when one comes."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow
import pyarrow.parquet

from modelport.core.errors import InputError, LimitError
from modelport.core.signature import Signature
from modelport.core.tensors import Array
from modelport.serve.scoring.columns import Part, cast, plan

#: Compression and repetition make large tables of small bodies: beyond this many bytes once
#: they are read, the body is refused.
_MOST_BYTES: Final = 256 << 20
_ROWS_AT_ONCE: Final = 1 << 14


class ParquetBody:
    """Tables as pandas and Arrow write them."""

    def read(self, body: bytes, signature: Signature) -> dict[str, Array]:
        """The tensors of a Parquet body: columns by name, missing numbers as NaN.

        Raises
        ------
        InputError
            Not Parquet, or no rows.
        LimitError
        SignatureError
            Missing columns, or element types that cannot be converted safely.
        """
        try:
            file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(body))
            names = [name for name in file.schema_arrow.names if name != "__index_level_0__"]
            parts = plan(names, len(names), signature)
            wanted = sorted({names[position] for part in parts for position in part.positions})
            table = _read(file, wanted)
            if not table.num_rows:
                raise InputError("there are no rows")
            return {part.spec.name: _assemble(table, names, part) for part in parts}
        except (pyarrow.ArrowException, OSError, ValueError) as error:  # the last for text, too
            raise InputError(f"body is not Parquet that can be read: {str(error)[:200]}") from error


def _read(file: pyarrow.parquet.ParquetFile, columns: list[str]) -> pyarrow.Table:
    metadata = file.metadata
    announced = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    size, batches = 0, []
    if announced <= _MOST_BYTES:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False):
            size += batch.nbytes
            if size > _MOST_BYTES:
                break
            batches.append(batch)
    if max(announced, size) > _MOST_BYTES:
        raise LimitError(f"the Parquet body has more than {_MOST_BYTES} bytes once it is read")
    schema = pyarrow.schema([file.schema_arrow.field(name) for name in columns])
    return pyarrow.Table.from_batches(batches) if batches else schema.empty_table()


def _assemble(table: pyarrow.Table, names: list[str], part: Part) -> Array:
    columns = [_array(table.column(names[p]), names[p]) for p in part.positions]
    arrays = [cast(column, part.spec) for column in columns]
    return part.shaped(np.stack(arrays, axis=-1)) if part.stacked else arrays[0]


def _array(column: pyarrow.ChunkedArray, name: str) -> Array:
    kind = column.type
    if pyarrow.types.is_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        try:
            return np.asarray(column.to_pylist())
        except ValueError as error:
            raise InputError(f"column {name[:80]} holds lists of different length") from error
    if pyarrow.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    array: Array = np.asarray(column.to_numpy())
    return array if array.dtype.kind in "biuf" else array.astype(object)
