"""The JSON bodies of TensorFlow Serving's REST API, which half a dozen protocols share.

Rows (``{"instances": …}`` → ``{"predictions": …}``) or columns (``{"inputs": …}``). Source:
``tensorflow/serving`` (``json_tensor.cc``) at the time of TF Serving 2.21.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelport.core.errors import InputError, SignatureError
from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, Array, TensorSpec
from modelport.serve.json_codec import (
    Reader,
    dumps,
    dumps_array,
    fields,
    from_base64,
    from_plain,
    is_list,
    is_object,
    plain,
)


def read(
    document: Mapping[str, Any], signature: Signature, reader: Reader
) -> tuple[dict[str, Array], bool]:
    """The tensors of a body, and whether it holds rows.

    Parameters
    ----------
    document : mapping
        The body, from `modelport.serve.json_codec.parse_object`.
    signature : Signature
    reader : Reader
        Of the same body; the caller calls `Reader.finish`.

    Raises
    ------
    InputError
        Unless it has exactly one of ``instances`` and ``inputs``.
    SignatureError
    """
    instances, inputs = document.get("instances"), document.get("inputs")
    if (instances is None) == (inputs is None):
        raise InputError(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist, "
            "not both"
            if instances is not None
            else "Missing 'inputs' or 'instances' key"
        )
    if instances is not None:
        return read_rows(instances, signature, reader), True
    return read_columns(inputs, signature, reader), False


def write(outputs: Mapping[str, Array], *, by_row: bool, key: str) -> bytes:
    """The answer: ``{key: …}``; of a single output the name vanishes.

    Raises
    ------
    InputError
        When rows are asked for and the outputs have none in common.
    """
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        value = dumps_array(_text_or_base64(name, array))
    elif by_row:
        value = _write_rows(outputs)
    else:
        value = b"{%b}" % b",".join(
            b"%b:%b" % (dumps(name), dumps_array(_text_or_base64(name, array)))
            for name, array in outputs.items()
        )
    return b'{"%b":%b}' % (key.encode(), value)


def read_rows(node: Any, signature: Signature, reader: Reader) -> dict[str, Array]:
    """Row format: one element per example, and the batch dimension is prepended."""
    if not is_list(node):
        raise InputError("Expecting 'instances' to be an list/array")
    if not len(node):
        raise InputError("No values in 'instances' array")
    specs = signature.inputs_by_name
    first = node[0]
    if is_object(first) and not _is_base64(first):
        return _read_row_objects(plain(node), signature)
    if len(specs) != 1:
        raise SignatureError(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            f"required: {', '.join(specs)}"
        )
    (spec,) = specs.values()
    if spec.numpy_dtype.kind == "O":
        return {spec.name: _read_items(plain(node), spec)}
    return {spec.name: reader.tensor(node, spec)}


def _read_row_objects(rows: list[Any], signature: Signature) -> dict[str, Array]:
    specs = signature.inputs_by_name
    for position, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != specs.keys():
            got = ", ".join(row) if isinstance(row, dict) else "no object"
            raise SignatureError(
                f"Failed to process element: {position} of 'instances' list. JSON object keys must "
                f"be equal to: {','.join(specs)}; the model takes {', '.join(specs)}; "
                f"this element has {got}",
                where=f"instances[{position}]",
            )
    return {name: _read_items([row[name] for row in rows], spec) for name, spec in specs.items()}


def read_columns(node: Any, signature: Signature, reader: Reader) -> dict[str, Array]:
    """Columnar format: whole tensors; keys that the model does not know are ignored."""
    specs = signature.inputs_by_name
    if not is_object(node) or _is_base64(node):
        if len(specs) != 1:
            raise SignatureError(f"'inputs' is one tensor; the model takes: {', '.join(specs)}")
        (spec,) = specs.values()
        return {spec.name: _read_tensor(node, spec, reader)}
    tensors = {}
    values = fields(node)
    for name, spec in specs.items():
        value = values.get(name)
        if value is None:
            raise SignatureError(f"Missing named input: {name} in 'inputs' object.")
        tensors[name] = _read_tensor(value, spec, reader)
    return tensors


def _read_tensor(node: Any, spec: TensorSpec, reader: Reader) -> Array:
    if spec.numpy_dtype.kind == "O":
        return _read_items(plain(node), spec)
    return reader.tensor(node, spec)


def _read_items(value: Any, spec: TensorSpec) -> Array:
    if spec.dtype == BYTES:
        return from_base64(_base64_only(value, spec), spec)
    return from_plain(_decode_base64(value), spec)


def _is_base64(node: Any) -> bool:
    return is_object(node) and len(node) == 1 and isinstance(fields(node).get("b64"), str)


def _base64_only(value: Any, spec: TensorSpec, depth: int = 0) -> Any:
    """Replace every ``{"b64": …}`` in nested lists by its text; plain text is no file."""
    if isinstance(value, list):
        return [_base64_only(item, spec, depth + 1) for item in value] if depth < 32 else value
    if not _is_base64(value):
        raise SignatureError(
            f'input {spec.name} needs bytes: {{"b64": "…"}}',
            hint="encode the file's bytes in Base64",
        )
    return value["b64"]


def _decode_base64(value: Any, depth: int = 0) -> Any:
    """Replace every ``{"b64": …}`` in nested lists by the text that it encodes."""
    if isinstance(value, list):
        # Deeper lists are no tensor, and are refused when they are read as one.
        return [_decode_base64(item, depth + 1) for item in value] if depth < 32 else value
    if not _is_base64(value):
        return value
    try:
        return base64.b64decode(
            value["b64"] + "=" * (-len(value["b64"]) % 4), validate=True
        ).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise InputError("Unable to base64 decode") from error


def _write_rows(outputs: Mapping[str, Array]) -> bytes:
    sizes = {name: array.shape[0] if array.ndim else None for name, array in outputs.items()}
    if None in sizes.values() or len(set(sizes.values())) > 1:
        raise InputError(
            f"outputs have inconsistent batch sizes {sizes}; ask in the columnar format ('inputs')"
        )
    columns = [(dumps(name), _text_or_base64(name, array)) for name, array in outputs.items()]
    rows = [
        b"{%b}"
        % b",".join(b"%b:%b" % (name, dumps_array(np.asarray(array[i]))) for name, array in columns)
        for i in range(len(columns[0][1]))
    ]
    return b"[%b]" % b",".join(rows)


def _text_or_base64(name: str, array: Array) -> Array:
    """Strings of an output named ``…_bytes`` are written as ``{"b64": …}``."""
    if array.dtype.kind != "O" or not name.endswith("_bytes"):
        return array
    encoded = np.empty(array.shape, dtype=object)
    for position, item in np.ndenumerate(array):
        raw = item if isinstance(item, bytes) else str(item).encode()
        encoded[position] = {"b64": base64.b64encode(raw).decode()}
    return encoded
