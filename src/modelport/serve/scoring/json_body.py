"""JSON bodies: MLflow's tables and tensors, bare lists, JSON Lines.

Sources: ``mlflow``, ``pyfunc/scoring_server/__init__.py`` (exactly one of four keys, and
``params``), and SageMaker's scikit-learn and XGBoost containers (bare lists of rows).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from modelport.core.errors import InputError, ModelportError, SignatureError
from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, STRING, Array, TensorSpec
from modelport.serve.json_codec import (
    Reader,
    fields,
    is_list,
    is_object,
    parse,
    parse_object,
    plain,
)
from modelport.serve.scoring.columns import Part, in_order, plan
from modelport.serve.scoring.npy import as_rows
from modelport.serve.tfserving import instances as instances_codec

ROWS: Final = "rows"
COLUMNS: Final = "columns"
BARE: Final = "bare"
V2: Final = "v2"

#: A list, perhaps behind a byte order mark.
_LIST: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[")

_KEYS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")


@dataclass(frozen=True, slots=True)
class Read:
    """What a JSON body holds.

    Parameters
    ----------
    tensors : dict of str to ndarray
        Empty for `V2`, which its own protocol reads.
    form : str
        `ROWS`, `COLUMNS`, `BARE` or `V2`: how it is answered.
    """

    tensors: dict[str, Array]
    form: str


def read(body: bytes, signature: Signature) -> Read:
    """The tensors of a JSON body.

    Raises
    ------
    InputError
        Not JSON, or not exactly one of the keys that are known.
    SignatureError
        Missing columns, ragged lists, values of another type.
    """
    if _LIST.match(body):
        node = _parse_list(body)
        reader = Reader(body)
        tensors = _read_rows(node, signature, reader, "body")
        reader.finish()
        if len(tensors) == 1:
            ((name, array),) = tensors.items()
            tensors[name] = as_rows(array, signature.inputs_by_name[name].shape)
        return Read(tensors, BARE)
    document = parse_object(body)
    given = [key for key in _KEYS if document.get(key) is not None]
    if len(given) != 1:
        raise InputError(
            f"give exactly one of {', '.join(_KEYS)}"
            + (f", not {' and '.join(given)}" if given else "")
        )
    (key,) = given
    node = document[key]
    if key == "inputs" and _is_v2(node):
        return Read({}, V2)
    _check_rest(document)
    reader = Reader(body)
    if key == "inputs":
        tensors, form = _read_inputs(node, signature, reader)
    elif key == "instances":
        tensors, form = _read_rows(node, signature, reader, key), ROWS
    elif key == "dataframe_records":
        tensors, form = _read_records(plain(node), signature, key, table=True), ROWS
    else:
        tensors, form = _read_split(node, signature, reader), ROWS
    reader.finish()
    return Read(tensors, form)


def read_lines(body: bytes, signature: Signature) -> dict[str, Array]:
    """The tensors of JSON Lines: every line a row, as a list, an object or a value.

    Raises
    ------
    InputError, SignatureError
    """
    rows = []
    for number, line in enumerate(body.removeprefix(b"\xef\xbb\xbf").split(b"\n")):
        if line.strip():
            try:
                rows.append(_value(line))
            except ModelportError as error:
                error.where = f"line {number + 1}"
                raise
    if not rows:
        raise InputError("there are no rows")
    return _read_rows(rows, signature, Reader(b""), "lines")


def _value(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return plain(parse(line))


def _parse_list(body: bytes) -> Any:
    node = parse(body)
    if not is_list(node):
        raise InputError("body is not a JSON list")
    return node


def _is_v2(node: Any) -> bool:
    """Whether ``inputs`` are tensors of Open Inference V2, and not rows."""
    if not is_list(node) or not len(node) or not is_object(node[0]):
        return False
    return {"name", "shape", "datatype"} <= fields(node[0]).keys()


def _check_rest(document: Mapping[str, Any]) -> None:
    parameters = document.get("params")
    if parameters is not None and not is_object(parameters):
        raise InputError("key 'params' is not an object")
    name = document.get("signature_name")
    if name not in (None, "", "serving_default"):
        raise InputError(f"'signature_name' is {str(plain(name))[:80]!r}: there is one signature")


def _read_inputs(node: Any, signature: Signature, reader: Reader) -> tuple[dict[str, Array], str]:
    """Columnar: a tensor for each input, or a column for each name of the single input's."""
    if is_list(node) and len(node) and _is_record(node[0]):
        return _read_records(plain(node), signature, "inputs", table=False), ROWS
    if is_object(node) and len(signature.inputs) == 1:
        (spec,) = signature.inputs
        values = fields(node)
        if spec.columns and spec.name not in values and "b64" not in values:
            return _read_columns(values, signature), COLUMNS
    return instances_codec.read_columns(node, signature, reader), COLUMNS


def _read_columns(values: Mapping[str, Any], signature: Signature) -> dict[str, Array]:
    names = list(values)
    (part,) = plan(names, len(names), signature)
    columns = [plain(values[names[position]]) for position in part.positions]
    if not all(isinstance(column, list) for column in columns):
        raise SignatureError("the columns in 'inputs' are not all lists")
    if len({len(column) for column in columns}) > 1:
        raise SignatureError("the columns in 'inputs' differ in length")
    at = {position: i for i, position in enumerate(part.positions)}
    return _tensors(list(zip(*columns, strict=True)), [part], at)


def _is_record(node: Any) -> bool:
    return is_object(node) and not (len(node) == 1 and "b64" in fields(node))


def _read_rows(node: Any, signature: Signature, reader: Reader, where: str) -> dict[str, Array]:
    if is_list(node) and len(node) and _is_record(node[0]):
        return _read_records(plain(node), signature, where, table=False)
    return instances_codec.read_rows(node, signature, reader)


def _read_records(rows: Any, signature: Signature, where: str, *, table: bool) -> dict[str, Array]:
    """Rows as objects; the first says which columns there are."""
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
        raise InputError(f"'{where}' is not a list of at least one object")
    names = list(rows[0])
    parts = plan(names, len(names), signature)
    used = sorted({position for part in parts for position in part.positions})
    wanted = [names[position] for position in used]
    cells = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not all(name in row for name in wanted):
            got = row if isinstance(row, dict) else ()
            missing = ", ".join(name for name in wanted if name not in got)
            raise SignatureError(
                f"columns are missing: {missing[:200]}", where=f"{where}[{number}]"
            )
        cells.append([row[name] for name in wanted])
    return _tensors(cells, parts, {position: i for i, position in enumerate(used)}, table=table)


def _read_split(node: Any, signature: Signature, reader: Reader) -> dict[str, Array]:
    """MLflow's client writes a DataFrame so; an ``index`` means nothing to a model."""
    if not is_object(node):
        raise InputError("'dataframe_split' is not an object")
    values = fields(node)
    data, columns = values.get("data"), plain(values.get("columns"))
    if not is_list(data) or data is None or not len(data):
        raise InputError("'data' in 'dataframe_split' is not a list of at least one row")
    if columns is not None and not isinstance(columns, list):
        raise InputError("'columns' in 'dataframe_split' is not a list")
    names = None if columns is None else [c if isinstance(c, str) else str(c) for c in columns]
    width = len(data[0]) if is_list(data[0]) else -1
    if width < 0 or (names is not None and width != len(names)):
        raise InputError(f"rows of 'dataframe_split' are not lists of {len(names or ())} values")
    parts = plan(names, width, signature)
    if len(parts) == 1 and _is_matrix(parts[0], width, data):
        (part,) = parts
        try:
            return {part.spec.name: part.shaped(reader.tensor(data, part.spec))}
        except SignatureError:
            pass  # a null is a missing number, and otherwise the message is the same
    rows = plain(data)
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            raise InputError(f"row {number} of 'dataframe_split' is no list of {width} values")
    return _tensors(rows, parts, range(width), table=True)


def _is_matrix(part: Part, width: int, data: Any) -> bool:
    straight = part.stacked and in_order(part.positions, width)
    return straight and part.spec.numpy_dtype.kind in "iuf" and not isinstance(data, list)


def _tensors(
    rows: Sequence[Sequence[Any]],
    parts: Sequence[Part],
    at: Mapping[int, int] | Sequence[int],
    *,
    table: bool = False,
) -> dict[str, Array]:
    """The tensors of rows of cells.

    Parameters
    ----------
    rows : sequence of sequences
    parts : sequence of Part
    at : mapping of int to int
        Where a part's position is in each row.
    table : bool
        A DataFrame: null is a missing value, and plain text stands for bytes in Base64.
    """
    tensors = {}
    for part in parts:
        spec, found = part.spec, [at[position] for position in part.positions]
        values: list[Any]
        if part.stacked:
            values = [[row[i] for i in found] for row in rows]
        else:
            values = [row[found[0]] for row in rows]
        if table and spec.numpy_dtype.kind in "fO":
            values = [_cell(value, spec) for value in values]
        one = Signature((spec,), (spec,))
        array = instances_codec.read_columns({spec.name: values}, one, Reader(b""))[spec.name]
        tensors[spec.name] = part.shaped(array)
    return tensors


def _cell(value: Any, spec: TensorSpec, depth: int = 0) -> Any:
    """A cell of a DataFrame: see `_tensors`."""
    if isinstance(value, list):
        return [_cell(item, spec, depth + 1) for item in value] if depth < 32 else value
    if value is None and spec.numpy_dtype.kind == "f":
        return float("nan")
    if value is None and spec.dtype == STRING:
        return ""
    if isinstance(value, str) and spec.dtype == BYTES:
        return {"b64": "".join(value.split())}  # MLflow breaks it into lines
    return value
