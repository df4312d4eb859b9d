"""OpenAPI operations of V2 over REST, from a model's signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from modelport.core.tensors import BYTES, TensorSpec
from modelport.serve.base import ModelIdentity
from modelport.serve.oip.codec import BFLOAT16, DATATYPES, HEADER_LENGTH
from modelport.serve.openapi import INFERENCE_FAILURES, Schema, element, operation

_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"

_STRING: Final[Schema] = {"type": "string"}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_WHOLE: Final[Schema] = {"type": "integer", "minimum": 0}
_PARAMETERS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}


def _object(required: Sequence[str] = (), **properties: Schema) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    return schema | ({"required": list(required)} if required else {})


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_TENSORS: Final = _array(
    _object(
        ("name", "datatype", "shape"),
        name=_STRING,
        datatype={"enum": sorted({*DATATYPES.values()})},
        shape=_array({"type": "integer", "minimum": -1}),
        parameters=_PARAMETERS,
    )
)
_DURATION: Final = _object(("count", "ns"), count=_WHOLE, ns=_WHOLE)
_BATCH: Final = dict.fromkeys(("compute_input", "compute_infer", "compute_output"), _DURATION)
_STATISTICS: Final = _object(
    ("model_stats",),
    model_stats=_array(
        _object(
            ("name", "version", "inference_count", "execution_count", "inference_stats"),
            name=_STRING,
            version=_STRING,
            last_inference=_WHOLE,
            inference_count=_WHOLE,
            execution_count=_WHOLE,
            inference_stats={"type": "object", "additionalProperties": _DURATION},
            response_stats={"type": "object"},
            batch_stats=_array(_object(("batch_size",), batch_size=_WHOLE, **_BATCH)),
            memory_usage={"type": "array"},
        )
    ),
)
_SERVER: Final = _object(
    ("name", "version", "extensions"),
    name=_STRING,
    version=_STRING,
    extensions=_array(_STRING),
)
_MODEL: Final = _object(
    ("name", "versions", "platform", "inputs", "outputs"),
    name=_STRING,
    versions=_array(_STRING),
    platform=_STRING,
    inputs=_TENSORS,
    outputs=_TENSORS,
    properties={"type": "object", "additionalProperties": _STRING},
)
_CONFIG: Final = _object(
    ("name", "platform", "max_batch_size", "input", "output"),
    name=_STRING,
    platform=_STRING,
    backend=_STRING,
    max_batch_size=_WHOLE,
    input={"type": "array"},
    output={"type": "array"},
)
_INDEX: Final = _array(
    _object(
        ("name", "version", "state", "reason"),
        name=_STRING,
        version=_STRING,
        state={"enum": ["READY", "UNAVAILABLE", "LOADING", "UNLOADING"]},
        reason=_STRING,
    )
)


def _readiness(summary: str, **properties: Schema) -> dict[str, Any]:
    """A route that answers 503 with a body of its own, not an error's."""
    body = {_JSON: _object(tuple(properties), **properties)}
    return operation(summary, answer=body, others={503: body})


#: Operations that no model changes, by what follows the prefix of the path.
_FIXED: Final = {
    "/health/live": operation(
        "Whether the server is alive", answer={_JSON: _object(("live",), live=_BOOLEAN)}
    ),
    "/health/ready": _readiness("Whether every model can answer", ready=_BOOLEAN),
    "": operation("Name, version and extensions of the server", answer={_JSON: _SERVER}),
    "/models": operation(
        "Names of the models", answer={_JSON: _object(("models",), models=_array(_STRING))}
    ),
    "/models/stats": operation("Statistics of all models", answer={_JSON: _STATISTICS}),
    "/models/{model}/stats": operation(
        "Statistics of the model", answer={_JSON: _STATISTICS}, failures=(404,)
    ),
    "/models/{model}/config": operation(
        "Triton's configuration of the model", answer={_JSON: _CONFIG}, failures=(404, 503)
    ),
    "/models/{model}": operation(
        "Inputs and outputs of the model", answer={_JSON: _MODEL}, failures=(404, 503)
    ),
    "/repository/index": operation(
        "Every version of every model, and its state",
        body={_JSON: _object(ready=_BOOLEAN)},
        answer={_JSON: _INDEX},
        failures=(400, 413, 415),
        optional_body=True,
    ),
    "/repository/models/{model}/load": operation(
        "Load a model",
        body={_JSON: _object(parameters=_object())},
        failures=(400, 404, 413, 415, 500, 503, 504, 507),
        optional_body=True,
    ),
    "/repository/models/{model}/unload": operation(
        "Unload a model",
        body={_JSON: _object(parameters=_object(unload_dependents=_BOOLEAN))},
        failures=(400, 404, 413, 415, 503, 504),
        optional_body=True,
    ),
}


def describe(path: str, model: ModelIdentity) -> dict[str, Any]:
    """The operation of a route; empty for one that nobody should use.

    Parameters
    ----------
    path : str
        `Route.example` without the protocol's prefix.
    model : ModelIdentity
    """
    if path == "/models/{model}/infer":
        return _inference(model)
    if path == "/models/{model}/ready":
        readiness = _readiness("Whether the model can answer", name=_STRING, ready=_BOOLEAN)
        readiness["responses"]["404"] = operation("", failures=(404,))["responses"]["404"]
        return readiness
    return dict(_FIXED.get(path, {}))


def _inference(model: ModelIdentity) -> dict[str, Any]:
    signature = model.signature
    inputs = [_input(spec) for spec in signature.inputs]
    request = _object(
        ("inputs",),
        id=_STRING,
        parameters=_PARAMETERS,
        inputs={
            "type": "array",
            "minItems": len(inputs),
            "maxItems": len(inputs),
            "items": inputs[0] if len(inputs) == 1 else {"oneOf": inputs},
        },
        outputs=_array(
            _object(
                ("name",),
                name={"enum": list(signature.outputs_by_name)},
                parameters=_object(binary_data=_BOOLEAN, classification=_WHOLE),
            )
        ),
    )
    answer = _object(
        ("model_name", "outputs"),
        model_name=_STRING,
        model_version=_STRING,
        id=_STRING,
        outputs=_array(_output()),
    )
    described = operation(
        "Run the model",
        body={_JSON: request, _BINARY: {"type": "string", "format": "binary"}},
        answer={_JSON: answer, _BINARY: {"type": "string", "format": "binary"}},
        failures=INFERENCE_FAILURES,
    )
    described["parameters"] = [
        {
            "name": HEADER_LENGTH,
            "in": "header",
            "description": "Bytes of the body that are JSON; raw tensors follow them.",
            "schema": _WHOLE,
        }
    ]
    return described


def _input(spec: TensorSpec) -> Schema:
    """An input as JSON, or with its bytes behind the JSON."""
    shape: Schema = {"type": "array", "items": _WHOLE}
    # A column may come without its last dimension of 1.
    if spec.shape[-1:] != (1,):
        shape |= {"minItems": len(spec.shape), "maxItems": len(spec.shape)}
    datatype = DATATYPES[spec.dtype]
    datatypes = [datatype, BFLOAT16] if spec.dtype == "float32" else [datatype]
    tensor = _object(
        ("name", "shape", "datatype"),
        name={"const": spec.name},
        shape=shape,
        datatype={"enum": datatypes},
    )
    size = _object(("binary_data_size",), binary_data_size=_WHOLE)
    raw: Schema = {"required": ["parameters"], "properties": {"parameters": size}}
    if spec.dtype == "float16":
        return {"allOf": [tensor, raw]}
    leaf = {"type": "string", "contentEncoding": "base64"} if spec.dtype == BYTES else element(spec)
    # Flat, or nested as the shape says.
    data: Schema = {"anyOf": [_array(leaf), {"type": "array", "items": {"type": "array"}}]}
    written: Schema = {
        "required": ["data"],
        "properties": {"data": data, "datatype": {"const": datatype}, "parameters": _PARAMETERS},
    }
    return {"allOf": [tensor, {"oneOf": [written, raw]}]}


def _output() -> Schema:
    return _object(
        ("name", "datatype", "shape"),
        name=_STRING,
        datatype={"enum": sorted({*DATATYPES.values()})},
        shape=_array(_WHOLE),
        data={"type": "array"},
        parameters=_object(binary_data_size=_WHOLE),
    )
