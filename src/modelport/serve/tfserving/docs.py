"""The OpenAPI operations of TensorFlow Serving's REST API."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError
from modelport.core.tensors import BYTES, TensorSpec
from modelport.serve.base import ModelIdentity, Route
from modelport.serve.openapi import (
    INFERENCE_FAILURES,
    Schema,
    columns,
    element,
    instances,
    operation,
    rows,
)
from modelport.serve.tfserving import classes as class_results
from modelport.serve.tfserving import cloud_events

_JSON: Final = "application/json"

#: What an answer has where the model gives a floating number.
_NUMBER: Final[Schema] = {
    "description": "A number, or a bare token that JSON lacks: NaN, Infinity or -Infinity."
}

_VERSION_STATUS: Final[Schema] = {
    "type": "object",
    "required": ["version", "state", "status"],
    "properties": {
        "version": {"type": "string"},
        "state": {"enum": ["LOADING", "AVAILABLE", "UNLOADING", "END"]},
        "status": {
            "type": "object",
            "required": ["error_code", "error_message"],
            "properties": {
                "error_code": {"type": "string"},
                "error_message": {"type": "string"},
            },
        },
    },
}

_STATUS: Final[Schema] = {
    "type": "object",
    "required": ["name", "ready", "model_version_status"],
    "properties": {
        "name": {"type": "string"},
        "ready": {"type": "boolean"},
        "error": {"type": "string"},
        "model_version_status": {"type": "array", "items": _VERSION_STATUS},
    },
}


def describe(route: Route, model: ModelIdentity) -> dict[str, Any]:
    """See `modelport.serve.base.WireProtocol.operation`."""
    action = route.example.rpartition(":")[2]
    if action == "predict":
        return _predict(model)
    if action in ("classify", "regress"):
        return _examples(action, model)
    if route.example.endswith("/metadata"):
        metadata: Schema = {"type": "object", "required": ["model_spec", "metadata"]}
        return operation(
            "The model's signature", answer={_JSON: metadata}, failures=(400, 404, 503)
        )
    return operation(
        "State of every version, and whether the model is ready",
        answer={_JSON: _STATUS},
        failures=(400, 404),
        others={503: {_JSON: _STATUS}},
    )


def _predict(model: ModelIdentity) -> dict[str, Any]:
    signature = model.signature
    body: dict[str, Schema] = {_JSON: instances(signature), cloud_events.STRUCTURED: _event()}
    if len(signature.inputs) == 1:
        binary: Schema = {"type": "string", "format": "binary"}
        body["application/octet-stream"] = binary
    answer: Schema = {
        "oneOf": [
            _object("predictions", _answered(rows(signature.outputs))),
            _object("outputs", _answered(columns(signature.outputs))),
        ]
    }
    return operation(
        "Predict: rows as 'instances', or whole tensors as 'inputs'",
        body=body,
        answer={_JSON: answer, cloud_events.STRUCTURED: _event()},
        failures=(*INFERENCE_FAILURES, 501),
    )


def _examples(action: str, model: ModelIdentity) -> dict[str, Any]:
    signature = model.signature
    specs = signature.inputs
    if len(specs) == 1 and specs[0].columns:
        features = {name: _feature(specs[0]) for name in specs[0].columns}
        # Or the one input by its own name.
        example: Schema = {"type": "object", "properties": features}
    else:
        features = {spec.name: _feature(spec) for spec in specs}
        example = {"type": "object", "properties": features}
    body: Schema = {
        "type": "object",
        "required": ["examples"],
        "properties": {
            "signature_name": {"type": "string"},
            "context": example,
            "examples": {"type": "array", "minItems": 1, "items": example},
        },
    }
    pair: Schema = {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "items": {"description": "The label, a text, and the score, as the token it is."},
    }
    result: Schema = {"type": "array", "items": pair} if action == "classify" else _NUMBER
    answers = {
        "classify": ("Classify examples: pairs of label and score", class_results.class_outputs),
        "regress": ("Regress examples: one number each", class_results.value_output),
    }
    summary, check = answers[action]
    try:
        check(signature)
    except InputError:
        summary += " (not this model: it answers 400)"
    return operation(
        summary,
        body={_JSON: body},
        answer={_JSON: _object("results", {"type": "array", "items": result})},
        failures=INFERENCE_FAILURES,
    )


def _feature(spec: TensorSpec) -> Schema:
    value = element(spec)
    if spec.dtype == "bool":
        value = {"type": ["boolean", "integer"]}
    if spec.dtype != BYTES and np.dtype(spec.numpy_dtype).kind == "O":
        value = {"oneOf": [value, element(TensorSpec(spec.name, BYTES, ()))]}
    return {"oneOf": [value, {"type": "array", "items": value}]}


def _answered(schema: Any) -> Any:
    """The schema of answers: of no rows there are none, and not every number is JSON."""
    if isinstance(schema, list):
        return [_answered(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema == {"type": "number"}:
        return _NUMBER
    return {key: _answered(value) for key, value in schema.items() if key != "minItems"}


def _object(key: str, schema: Schema) -> Schema:
    return {"type": "object", "required": [key], "properties": {key: schema}}


def _event() -> Schema:
    text: Schema = {"type": "string"}
    return {
        "type": "object",
        "required": ["specversion", "id", "source", "type", "data"],
        "properties": {
            "specversion": {"enum": ["0.3", "1.0"]},
            "id": text,
            "source": text,
            "type": text,
            "data": {"type": "object"},
        },
    }
