"""One OpenAPI 3.1 document for everything that a server answers, from the models' signatures.

Protocols describe their own routes (`modelport.serve.base.WireProtocol.operation`) with the
parts below; `document` puts them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import numpy as np

from modelport import __version__
from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, STRING, TensorSpec
from modelport.serve.base import ModelIdentity, Route, WireProtocol

Schema = dict[str, Any]

ERROR: Final[Schema] = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}

#: What a route may answer beside 200, and why.
_FAILURES: Final = {
    400: "The body, or what is in it, does not fit the model.",
    401: "No key, or a wrong one.",
    404: "There is no such model, version or label.",
    405: "The path takes other methods.",
    406: "The server writes no format that the client accepts.",
    409: "The model is loaded already.",
    413: "The body is larger than the server takes.",
    415: "The body is in a format that the server does not read.",
    500: "The model failed.",
    501: "The server does not do this.",
    503: "The model is not ready, or too many requests are waiting.",
    504: "There was no answer in time.",
    507: "There is no memory for the model.",
}


def operation(
    summary: str,
    *,
    body: Mapping[str, Schema] | None = None,
    answer: Mapping[str, Schema] | None = None,
    failures: Sequence[int] = (),
    error: Schema | None = None,
    optional_body: bool = False,
    query: Mapping[str, Schema] | None = None,
    others: Mapping[int, Mapping[str, Schema]] | None = None,
) -> dict[str, Any]:
    """One operation object.

    Parameters
    ----------
    summary : str
        What it does, in one line.
    body, answer : mapping of str to schema
        By media type: of the request, and of the answer 200. None: there is none.
    failures : sequence of int
        Statuses beside 200 and 401, which every route may answer.
    error : schema
        Of every failure's body; `ERROR` unless given.
    optional_body : bool
        The request may come without a body.
    query : mapping of str to schema
        Parameters of the query; none of them is required.
    others : mapping of int to (mapping of str to schema)
        Statuses whose body is no `error`, by media type; also 200's own.
    """
    responses: dict[str, Any] = {"200": {"description": "Done."}}
    if answer is not None:
        responses["200"]["content"] = _content(answer)
    for status in {*failures, 401}:
        description = _FAILURES.get(status, "It could not be done.")
        content = _content({"application/json": error or ERROR})
        responses[str(status)] = {"description": description, "content": content}
    for status, kinds in (others or {}).items():
        description = _FAILURES.get(status, "Done." if status < 300 else "It could not be done.")
        responses[str(status)] = {"description": description, "content": _content(kinds)}
    result: dict[str, Any] = {"summary": summary, "responses": dict(sorted(responses.items()))}
    if query:
        result["parameters"] = [
            {"name": name, "in": "query", "schema": schema} for name, schema in query.items()
        ]
    if body is not None:
        result["requestBody"] = {"required": not optional_body, "content": _content(body)}
    return result


def _content(kinds: Mapping[str, Schema]) -> dict[str, Any]:
    return {kind: {"schema": schema} for kind, schema in kinds.items()}


#: Failures of a route that runs a model.
INFERENCE_FAILURES: Final = (400, 404, 413, 415, 500, 503, 504)


def element(spec: TensorSpec) -> Schema:
    """The schema of one element of a tensor, as JSON writes it."""
    if spec.dtype == "bool":
        return {"type": "boolean"}
    if spec.dtype == BYTES:
        return {
            "type": "object",
            "required": ["b64"],
            "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
            "additionalProperties": False,
        }
    if spec.dtype == STRING:
        return {"type": "string"}
    if "int" in spec.dtype:
        limits = np.iinfo(spec.dtype)
        return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    return {"type": "number"}


def nested(spec: TensorSpec, *, batch: bool = True) -> Schema:
    """The schema of a tensor as nested lists.

    Parameters
    ----------
    spec : TensorSpec
    batch : bool
        False leaves the first dimension out: one row.
    """
    schema = element(spec)
    for size in reversed(spec.shape if batch else spec.shape[1:]):
        schema = {"type": "array", "items": schema}
        if isinstance(size, int):
            schema |= {"minItems": size, "maxItems": size}
    return schema


def rows(specs: Sequence[TensorSpec]) -> Schema:
    """Rows as TensorFlow Serving writes them: bare where there is one tensor, else by name."""
    if len(specs) == 1:
        return {"type": "array", "minItems": 1, "items": nested(specs[0], batch=False)}
    return {"type": "array", "minItems": 1, "items": by_name(specs, batch=False)}


def columns(specs: Sequence[TensorSpec]) -> Schema:
    """Whole tensors: bare where there is one, else by name."""
    return nested(specs[0]) if len(specs) == 1 else by_name(specs)


def by_name(specs: Sequence[TensorSpec], *, batch: bool = True) -> Schema:
    """An object of tensors."""
    return {
        "type": "object",
        "required": [spec.name for spec in specs],
        "properties": {spec.name: nested(spec, batch=batch) for spec in specs},
    }


def instances(signature: Signature) -> Schema:
    """A body of `modelport.serve.tfserving.instances`: rows or columns."""
    inputs = signature.inputs
    return {
        "oneOf": [
            {
                "type": "object",
                "required": ["instances"],
                "properties": {"instances": rows(inputs)},
            },
            {"type": "object", "required": ["inputs"], "properties": {"inputs": columns(inputs)}},
        ]
    }


def document(
    routes: Sequence[tuple[WireProtocol, Route]],
    models: Sequence[ModelIdentity],
    *,
    closed: bool,
    guard_health: bool = False,
) -> dict[str, Any]:
    """The whole document.

    Parameters
    ----------
    routes : sequence of (WireProtocol, Route)
        Those that HTTP carries, in the order in which they are tried.
    models : sequence of ModelIdentity
        Every model, in the version that answers when none is named. The first answers where
        a path names none.
    closed : bool
        A key is needed.
    guard_health : bool
        Health routes need it, too.
    """
    paths: dict[str, dict[str, Any]] = {}
    for protocol, route in routes:
        for path, model in _places(route, models):
            described = protocol.operation(route, model)
            if not described:
                continue
            described.setdefault("tags", [protocol.name])
            if route.health and closed and not guard_health:
                described.setdefault("security", [])
            # Of two routes the first answers; so does it here.
            paths.setdefault(path, {}).setdefault(route.method.lower(), described)
    result: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "modelport", "version": __version__},
        "paths": dict(sorted(paths.items())),
    }
    if closed:
        result["components"] = {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
        }
        result["security"] = [{"bearer": []}, {"key": []}]
    return result


def _places(route: Route, models: Sequence[ModelIdentity]) -> Iterator[tuple[str, ModelIdentity]]:
    """The paths at which a route is found, each with the model that answers there."""
    if "{model}" in route.example:
        for model in models:
            yield route.example.replace("{model}", quote(model.name, safe="")), model
    elif models:
        yield route.example, models[0]
    elif route.answer is not None:
        yield route.example, _NO_MODEL


#: Stands for the default model of a server that has none yet.
_NO_MODEL: Final = ModelIdentity(
    "model",
    1,
    Signature((TensorSpec("x", "float32", ("N",)),), (TensorSpec("y", "float32", ("N",)),)),
    "",
)
