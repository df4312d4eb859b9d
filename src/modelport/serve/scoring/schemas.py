"""The parts of an OpenAPI document that describe scoring bodies and answers."""

from __future__ import annotations

from typing import Any, Final

from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, STRING
from modelport.serve import openapi
from modelport.serve.openapi import Schema
from modelport.serve.scoring import media
from modelport.serve.scoring.columns import names_of

_TEXT: Final[Schema] = {"type": "string"}
_BINARY: Final[Schema] = {"type": "string", "format": "binary"}


def error_schema() -> Schema:
    """Of `modelport.serve.scoring.error`."""
    names = ("error_code", "message", "error")
    return {
        "type": "object",
        "required": list(names),
        "properties": dict.fromkeys(names, _TEXT),
    }


def body_schemas(signature: Signature) -> dict[str, Schema]:
    """What `modelport.serve.scoring.read` takes for a model, by media type."""
    bodies: dict[str, Schema] = {
        media.JSON: {
            "anyOf": [
                *openapi.instances(signature)["oneOf"],
                _split(),
                _records(signature),
            ]
        },
        media.JSON_LINES: _TEXT,
        media.CSV: _TEXT,
        media.PARQUET: _BINARY,
    }
    if len(signature.inputs) == 1:
        bodies[media.NPY] = _BINARY
        bodies[media.OCTETS] = _BINARY
        if signature.inputs[0].dtype == BYTES:
            bodies[media.IMAGE] = _BINARY
        if signature.inputs[0].dtype == STRING:
            bodies[media.TEXT] = _TEXT
    return bodies


def answer_schemas(signature: Signature) -> dict[str, Schema]:
    """What `modelport.serve.scoring.write` gives for a model, by media type."""
    # A bare list is answered bare, and Open Inference V2 in its own form.
    answers: dict[str, Schema] = {
        media.JSON: {"type": ["object", "array"]},
        media.JSON_LINES: _TEXT,
        media.CSV: _TEXT,
        f"{media.V2_BINARY}": _BINARY,
    }
    if len(signature.outputs) == 1:
        answers[media.NPY] = _BINARY
    return answers


def _split() -> Schema:
    split: dict[str, Any] = {
        "type": "object",
        "required": ["data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": ["string", "integer"]}},
            "index": {"type": "array"},
            "data": {"type": "array", "minItems": 1, "items": {"type": "array"}},
        },
    }
    return {
        "type": "object",
        "required": ["dataframe_split"],
        "properties": {"dataframe_split": split, "params": {"type": "object"}},
    }


def _records(signature: Signature) -> Schema:
    row: Schema = {"type": "object", "required": names_of(signature)}
    return {
        "type": "object",
        "required": ["dataframe_records"],
        "properties": {
            "dataframe_records": {"type": "array", "minItems": 1, "items": row},
            "params": {"type": "object"},
        },
    }
