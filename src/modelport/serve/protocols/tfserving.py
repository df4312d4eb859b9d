"""TensorFlow Serving's REST API v1: predict, status and metadata.

Source: ``tensorflow/serving`` (``http_rest_api_handler.cc``, ``json_tensor.cc``) at the time
of TF Serving 2.21.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError, ModelportError, NotFoundError, SignatureError
from modelport.core.tensors import BYTES, Array, TensorSpec
from modelport.serve.base import Call, ModelIdentity, Place, Request, Response, Route
from modelport.serve.json_codec import (
    Reader,
    dumps,
    dumps_array,
    fields,
    from_base64,
    from_plain,
    is_list,
    is_object,
    parse_object,
    plain,
)
from modelport.serve.models import ModelTable, ServedModel, State
from modelport.serve.statuses import status_of

#: modelport element type → TensorFlow's.
DATATYPES: Final = {
    "bool": "DT_BOOL",
    "int8": "DT_INT8",
    "int16": "DT_INT16",
    "int32": "DT_INT32",
    "int64": "DT_INT64",
    "uint8": "DT_UINT8",
    "uint16": "DT_UINT16",
    "uint32": "DT_UINT32",
    "uint64": "DT_UINT64",
    "float16": "DT_HALF",
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "bytes": "DT_STRING",
    "string": "DT_STRING",
}

SIGNATURE_NAME: Final = "serving_default"

_FLAGS: Final = re.IGNORECASE
_MODEL: Final = (
    r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
)


class TensorFlowServing:
    """See the module."""

    name = "tfserving"
    prefix = "/v1"

    def routes(self) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        return (
            Route("POST", re.compile(f"{_MODEL}:predict", _FLAGS), "/v1/models/{model}:predict"),
            Route(
                "GET", re.compile(f"{_MODEL}/metadata", _FLAGS), "/v1/models/{model}/metadata",
                _metadata,
            ),
            Route("GET", re.compile(_MODEL, _FLAGS), "/v1/models/{model}", _status),
        )  # fmt: skip

    def place(self, groups: Mapping[str, str | None]) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        version, label = groups["version"], groups["label"]
        if version is not None:
            version = version.lstrip("0") or "0"
            if len(version) > 19 or int(version) > 2**63 - 1:
                raise InputError(f"Failed to convert version: {version[:40]} to numeric.")
        return Place(groups["model"] or "", version, label)

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        document = parse_object(request.body)
        signature_name = document.get("signature_name", "")
        if not isinstance(signature_name, str):
            raise InputError("key 'signature_name' is not a string")
        if signature_name not in ("", SIGNATURE_NAME):
            raise InputError(
                f"Serving signature name: {signature_name!r} not found in signature def; "
                f"there is: {SIGNATURE_NAME}"
            )
        instances, inputs = document.get("instances"), document.get("inputs")
        if (instances is None) == (inputs is None):
            raise InputError(
                "give either 'inputs' or 'instances'"
                + (
                    ", not both"
                    if instances is not None
                    else ": Missing 'inputs' or 'instances' key"
                )
            )
        reader = Reader(request.body)
        tensors = (
            _read_rows(instances, model, reader)
            if instances is not None
            else _read_columns(inputs, model, reader)
        )
        reader.finish()
        return Call(tensors, context=instances is not None)

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        by_row: bool = call.context
        key = b"predictions" if by_row else b"outputs"
        if len(outputs) == 1:
            ((name, array),) = outputs.items()
            value = dumps_array(_text_or_base64(name, array))
        elif by_row:
            value = _encode_rows(outputs)
        else:
            value = b"{%b}" % b",".join(
                b"%b:%b" % (dumps(name), dumps_array(_text_or_base64(name, array)))
                for name, array in outputs.items()
            )
        return Response(200, b'{"%b":%b}' % (key, value))

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        status = status_of(error)
        if isinstance(error, NotFoundError) and error.what.startswith("label"):
            status = 400  # as TF Serving: "Unrecognized servable version label"
        return Response(status, dumps({"error": error.line}))

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        if request.method == "GET" and request.path.lower() == "/v1/models":
            return Response(400, dumps({"error": "Missing model name in request."}))
        message = f"Malformed request: {request.method} {request.path}"
        return Response(400, dumps({"error": message}))


def _read_rows(node: Any, model: ModelIdentity, reader: Reader) -> dict[str, Array]:
    """Row format: one element per example, and the batch dimension is prepended."""
    if not is_list(node) or not len(node):
        raise InputError("'instances' is not a list with at least one element")
    specs = model.signature.inputs_by_name
    first = node[0]
    if is_object(first) and not _is_base64(first):
        return _read_row_objects(plain(node), model)
    if len(specs) != 1:
        raise SignatureError(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            f"required: {', '.join(specs)}"
        )
    (spec,) = specs.values()
    if spec.numpy_dtype.kind == "O":
        return {spec.name: _read_items(plain(node), spec)}
    return {spec.name: reader.tensor(node, spec)}


def _read_row_objects(rows: list[Any], model: ModelIdentity) -> dict[str, Array]:
    specs = model.signature.inputs_by_name
    for position, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != specs.keys():
            got = ", ".join(row) if isinstance(row, dict) else "no object"
            raise SignatureError(
                f"the model takes {', '.join(specs)}; this element has {got}",
                where=f"instances[{position}]",
            )
    return {name: _read_items([row[name] for row in rows], spec) for name, spec in specs.items()}


def _read_columns(node: Any, model: ModelIdentity, reader: Reader) -> dict[str, Array]:
    """Columnar format: whole tensors; keys that the model does not know are ignored."""
    specs = model.signature.inputs_by_name
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


def _encode_rows(outputs: Mapping[str, Array]) -> bytes:
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


def _status(table: ModelTable, place: Place) -> Response:
    # TF Serving does not resolve labels here: a label lists all versions.
    models = (
        [table.get(place.model, place.version)] if place.version else table.versions(place.model)
    )
    return Response(200, json.dumps({"model_version_status": [_state(m) for m in models]}).encode())


def _state(model: ServedModel) -> dict[str, Any]:
    failed = model.state is State.END and model.error
    return {
        "version": str(model.spec.version),
        "state": model.state.value,
        "status": {
            "error_code": "INTERNAL" if failed else "OK",
            "error_message": model.error,
        },
    }


def _metadata(table: ModelTable, place: Place) -> Response:
    model = table.get(place.model, place.version, place.label)
    identity, _ = model.ready()
    definition = {
        "inputs": {spec.name: _tensor_info(spec) for spec in identity.signature.inputs},
        "outputs": {spec.name: _tensor_info(spec) for spec in identity.signature.outputs},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    return Response(
        200,
        dumps(
            {
                "model_spec": {
                    "name": identity.name,
                    "signature_name": "",
                    "version": str(identity.version),
                },
                "metadata": {"signature_def": {"signature_def": {SIGNATURE_NAME: definition}}},
            }
        ),
    )


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    return {
        "dtype": DATATYPES[spec.dtype],
        "tensor_shape": {
            "dim": [
                {"size": str(size) if isinstance(size, int) else "-1", "name": ""}
                for size in spec.shape
            ],
            "unknown_rank": False,
        },
        "name": spec.name,
    }
