"""Parquet bodies, through PyArrow; loaded only when one comes."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from modelport.core.errors import InputError, LimitError
from modelport.core.signature import Signature
from modelport.core.tensors import Array
from modelport.serve.scoring.columns import Part, cast, plan

#: Compression and repetition make large tables of small bodies: beyond this many bytes once
#: they are read, the body is refused.
_MOST_BYTES: Final = 256 << 20
#: What a value takes at least, in a column and in a list.
_NUMBER_BYTES: Final = 8
_ITEM_BYTES: Final = 32
_ROWS_AT_ONCE: Final = 1 << 14
_FEWEST_ROWS: Final = 16


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
            file = _open(body)
            names = [name for name in file.schema_arrow.names if name != "__index_level_0__"]
            parts = plan(names, len(names), signature)
            wanted = sorted({names[position] for part in parts for position in part.positions})
            table = _read(file, wanted)
            if not table.num_rows:
                raise InputError("there are no rows")
            return {part.spec.name: _assemble(table, names, part) for part in parts}
        except (pyarrow.ArrowException, OSError, ValueError) as error:  # the last for text, too
            raise InputError(f"body is not Parquet that can be read: {str(error)[:200]}") from error


def _open(body: bytes) -> pyarrow.parquet.ParquetFile:
    """The file, with texts to be read as they are in it: each once, and who has it by number."""
    source = pyarrow.BufferReader(body)
    metadata = pyarrow.parquet.read_metadata(source)
    columns = [metadata.schema.column(position) for position in range(metadata.num_columns)]
    delta = _by_difference(metadata)
    texts = [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY"
        and not column.max_repetition_level
        and column.path not in delta  # PyArrow cannot
    ]
    return pyarrow.parquet.ParquetFile(source, read_dictionary=texts)


def _by_difference(metadata: pyarrow.parquet.FileMetaData) -> dict[str, int]:
    """Columns whose texts are written by what they add to the last one, and their bytes so."""
    found: dict[str, int] = {}
    for position in range(metadata.num_row_groups):
        group = metadata.row_group(position)
        for column in map(group.column, range(group.num_columns)):
            if "DELTA_BYTE_ARRAY" in column.encodings:
                path, size = column.path_in_schema, column.total_uncompressed_size
                found[path] = max(size, found.get(path, 1))
    return found


def _rows_at_once(metadata: pyarrow.parquet.FileMetaData) -> int:
    """Rows that are read before their bytes are counted: few where each may hold all the text."""
    largest = max(_by_difference(metadata).values(), default=1)
    return max(_FEWEST_ROWS, min(_ROWS_AT_ONCE, _MOST_BYTES // largest))


def _read(file: pyarrow.parquet.ParquetFile, columns: list[str]) -> pyarrow.Table:
    size, batches = 0, []
    announced = _announced(file.metadata)
    if announced <= _MOST_BYTES:
        rows = _rows_at_once(file.metadata)
        for batch in file.iter_batches(rows, columns=columns, use_threads=False):
            size += sum(map(_size_of, batch.columns))
            if size > _MOST_BYTES:
                break
            batches.append(batch)
    if max(announced, size) > _MOST_BYTES:
        raise LimitError(f"the Parquet body has more than {_MOST_BYTES} bytes once it is read")
    schema = pyarrow.schema([file.schema_arrow.field(name) for name in columns])
    return pyarrow.Table.from_batches(batches) if batches else schema.empty_table()


def _announced(metadata: pyarrow.parquet.FileMetaData) -> int:
    """Bytes of the table at least, by what the file says of itself: repetition costs it nothing."""
    schema = metadata.schema
    groups = [metadata.row_group(position) for position in range(metadata.num_row_groups)]
    values = sum(
        group.column(position).num_values
        * (_ITEM_BYTES if schema.column(position).max_repetition_level else _NUMBER_BYTES)
        for group in groups
        for position in range(group.num_columns)
    )
    return max(int(values), sum(int(group.total_byte_size) for group in groups))


def _size_of(column: pyarrow.Array) -> int:
    """Bytes of a column, with every text as often as it stands there."""
    kind = column.type
    if not pyarrow.types.is_dictionary(kind) or pyarrow.types.is_primitive(kind.value_type):
        return int(column.nbytes)
    lengths = pyarrow.compute.binary_length(column.dictionary)
    texts = pyarrow.compute.sum(lengths.take(column.indices)).as_py() or 0
    return int(column.indices.nbytes) + int(texts)


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
