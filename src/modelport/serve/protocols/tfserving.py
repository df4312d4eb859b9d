"""TensorFlow Serving's REST API v1: predict, status and metadata.

Source: ``tensorflow/serving`` (``http_rest_api_handler.cc``, ``json_tensor.cc``) at the time
of TF Serving 2.21.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelport.core.errors import InputError, ModelportError, NotFoundError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array, TensorSpec
from modelport.serve import instances_codec
from modelport.serve.base import Call, ModelIdentity, Place, Request, Response, Route
from modelport.serve.json_codec import Reader, dumps, parse_object
from modelport.serve.models import ServedModel, State
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable

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
    carrier = "http"
    prefix = "/v1"

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        return (
            Route("POST", re.compile(f"{_MODEL}:predict", _FLAGS), "/v1/models/{model}:predict"),
            Route(
                "GET", re.compile(f"{_MODEL}/metadata", _FLAGS), "/v1/models/{model}/metadata",
                _metadata,
            ),
            Route("GET", re.compile(_MODEL, _FLAGS), "/v1/models/{model}", _status),
        )  # fmt: skip

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
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
        reader = Reader(request.body)
        tensors, by_row = instances_codec.read(document, model.signature, reader)
        reader.finish()
        return Call(tensors, context=by_row)

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        by_row: bool = call.context
        key = "predictions" if by_row else "outputs"
        return Response(200, instances_codec.write(outputs, by_row=by_row, key=key))

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

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        return {}


def _status(table: ModelTable, place: Place, request: Request) -> Response:
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


def _metadata(table: ModelTable, place: Place, request: Request) -> Response:
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
