"""CSV both ways, as RFC 4180 has it: quotes, line ends of both kinds, a header or none.

SageMaker's clients send no header, MLflow's always one. ``text/csv; header=present`` or
``absent`` decides. Otherwise the first line is a header when it has every column that the model
takes by name; or, where the model takes no text, when one of its cells is such a name and no
number, or when its cells are several different words and not one number. A line of numbers is
always a row.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError, NotAcceptableError, SignatureError
from modelport.core.rows import decode_base64
from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, STRING, Array, TensorSpec
from modelport.serve.json_codec import dumps_array
from modelport.serve.scoring.columns import Part, in_order, names_of, plan

#: Bodies are limited as a whole; the module's own limit would refuse a text of 128 KiB.
csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))

#: What needs quotes around it.
_SPECIAL: Final = re.compile(r'[",\r\n]')

_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}


def read(body: bytes, signature: Signature, header: bool | None) -> dict[str, Array]:
    """The tensors of a CSV body; empty lines are no rows.

    Parameters
    ----------
    body : bytes
    signature : Signature
    header : bool or None
        Whether the first line names the columns; None: see the module.

    Raises
    ------
    InputError
        Not CSV, or no rows.
    SignatureError
        Missing columns, or cells that are no numbers.
    """
    rows = _rows(body)
    first = rows[0]
    named = _is_header(first, signature) if header is None else header
    names = [cell.strip() for cell in first] if named else None
    if named:
        rows = rows[1:]
    if not rows:
        raise InputError("there is a header and no rows")
    width = len(first)
    if any(len(row) != width for row in rows):
        number, row = next((n, row) for n, row in enumerate(rows) if len(row) != width)
        raise InputError(f"row {number} has {len(row)} cells, the first line has {width}")
    try:
        parts = plan(names, width, signature)
        return {part.spec.name: _read_part(rows, part) for part in parts}
    except SignatureError as error:
        if not named and header is None and not all(map(_is_number, first)):
            error.hint = "a header must name all columns: " + ", ".join(names_of(signature)[:20])
        raise


def _rows(body: bytes) -> list[list[str]]:
    try:
        text = body.decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except UnicodeDecodeError as error:
        raise InputError("body is not UTF-8") from error
    except csv.Error as error:
        raise InputError(f"body is not CSV: {error}") from error
    if not rows:
        raise InputError("there are no rows")
    return rows


def _is_header(first: Sequence[str], signature: Signature) -> bool:
    wanted = set(names_of(signature))
    with contextlib.suppress(ValueError):
        list(map(float, first))  # numbers alone, which is usual and quickly told
        return next(iter(wanted)) in first and wanted <= set(first)
    cells = {cell.strip() for cell in first}
    if wanted <= cells:
        return True
    if any(spec.dtype in (STRING, BYTES) for spec in signature.inputs):
        return False  # a cell may hold any text
    words = {cell for cell in cells if not _is_number(cell) and cell.lower() not in _TRUTH}
    # One word alone, or several times, rather stands for a missing number: a row that must not
    # vanish.
    return bool(wanted & words) or 1 < len(words) == len(first)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return not cell.strip()
    return True


def _read_part(rows: Sequence[Sequence[str]], part: Part) -> Array:
    positions, spec = part.positions, part.spec
    if in_order(positions, len(rows[0])):
        cells = list(chain.from_iterable(rows))
    else:
        cells = [row[position] for row in rows for position in positions]
    array = _CONVERTERS[spec.numpy_dtype.kind if spec.dtype != BYTES else BYTES](cells, part)
    return part.shaped(array.reshape(len(rows), len(positions)) if part.stacked else array)


def _floats(cells: list[str], part: Part) -> Array:
    try:
        numbers = list(map(float, cells))
        if "_" not in "".join(cells):  # Python's own notation, nobody else's
            return _narrowed(np.array(numbers, dtype=np.float64), part.spec)
    except ValueError:
        pass
    filled = np.empty(len(cells), dtype=np.float64)
    for position, cell in enumerate(cells):
        try:
            filled[position] = float(cell) if cell.strip() else np.nan
        except ValueError:
            raise _no_number(position, cell, part) from None
        if "_" in cell:
            raise _no_number(position, cell, part)
    return _narrowed(filled, part.spec)


def _narrowed(array: Array, spec: TensorSpec) -> Array:
    with np.errstate(over="ignore"):  # too large for float32 is infinity, as everywhere
        return array.astype(spec.numpy_dtype, copy=False)


def _integers(cells: list[str], part: Part) -> Array:
    numbers = [_integer(cell, position, part) for position, cell in enumerate(cells)]
    try:
        return np.array(numbers, dtype=part.spec.numpy_dtype)
    except OverflowError as error:
        name, dtype = part.spec.name, part.spec.dtype
        raise SignatureError(f"input {name} holds a number out of {dtype}'s range") from error


def _integer(cell: str, position: int, part: Part) -> int:
    """A whole number; ``3.0`` is one, since text has no element type."""
    try:
        if "_" not in cell:
            return int(cell)
    except ValueError:
        pass
    try:
        number = float(cell)
        if number.is_integer() and abs(number) < 2**53 and "_" not in cell:
            return int(number)
    except ValueError:
        pass
    raise _no_number(position, cell, part)


def _booleans(cells: list[str], part: Part) -> Array:
    for position, cell in enumerate(cells):
        if cell.strip().lower() not in _TRUTH:
            raise _no_number(position, cell, part)
    return np.array([_TRUTH[cell.strip().lower()] for cell in cells], dtype=np.bool_)


def _texts(cells: list[str], part: Part) -> Array:
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    return array


def _bytes(cells: list[str], part: Part) -> Array:
    array = np.empty(len(cells), dtype=object)
    for position, cell in enumerate(cells):
        try:
            array[position] = decode_base64("".join(cell.split()))
        except ValueError as error:
            raise SignatureError(
                f"input {part.spec.name} needs Base64 text: {error}",
                where=f"row {position // len(part.positions)}",
            ) from error
    return array


_CONVERTERS: Mapping[str, Callable[[list[str], Part], Array]] = {
    "f": _floats,
    "i": _integers,
    "u": _integers,
    "b": _booleans,
    "O": _texts,
    BYTES: _bytes,
}


def _no_number(position: int, cell: str, part: Part) -> SignatureError:
    row, column = divmod(position, len(part.positions))
    shown = repr(cell if len(cell) <= 40 else cell[:37] + "…") if cell else "an empty cell"
    return SignatureError(
        f"input {part.spec.name} needs {part.spec.dtype}, and holds {shown}",
        where=f"row {row}, column {part.positions[column]}",
    )


def write(outputs: Mapping[str, Array]) -> bytes:
    """One line per row, without a header; several outputs stand beside each other.

    A row of more than one dimension is written flat. Lines are separated, not ended, by line
    feeds: SageMaker puts its own between the answers of a batch.

    Raises
    ------
    NotAcceptableError
        When the outputs have no rows in common.
    """
    count = common_rows(outputs)
    if not count:
        return b""
    matrices = [array.reshape(count, -1) for array in outputs.values()]
    if not any(matrix.dtype.kind == "O" for matrix in matrices):
        blocks = [dumps_array(matrix)[2:-2].split(b"],[") for matrix in matrices]
        return b"\n".join(map(b",".join, zip(*blocks, strict=True)))
    alone = sum(matrix.shape[1] for matrix in matrices) == 1
    lines = [
        ",".join([_cell(item, alone) for matrix in matrices for item in matrix[row]])
        for row in range(count)
    ]
    return "\n".join(lines).encode("utf-8", "replace")


def _cell(item: Any, alone: bool) -> str:
    if isinstance(item, bytes):
        item = item.decode("utf-8", errors="replace")
    if not isinstance(item, str):
        return dumps_array(np.asarray(item)).decode()
    # Not by `csv.writer`, which lets a carriage return stand without quotes.
    if _SPECIAL.search(item) or (alone and not item):
        return '"{}"'.format(item.replace('"', '""'))
    return item


def common_rows(outputs: Mapping[str, Array]) -> int:
    """How many rows all outputs have.

    Raises
    ------
    NotAcceptableError
        When they differ.
    """
    sizes = {len(array) if array.ndim else -1 for array in outputs.values()}
    if len(sizes) != 1 or -1 in sizes:
        shapes = {name: list(array.shape) for name, array in outputs.items()}
        raise NotAcceptableError(
            f"the outputs have no rows in common: {shapes}; ask for application/json, and send "
            "the columnar form ('inputs')"
        )
    return sizes.pop()
