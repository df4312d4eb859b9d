"""TorchServe's inference API, and its management API on the same port.

Source: ``pytorch/serve`` 0.12 (``frontend``: ``InferenceRequestHandler``,
``ManagementRequestHandler``, ``NettyUtils``). A handler there decides what a body is and what its
answer is; here that is `modelport.serve.uploads.bodies`, and of labels ``{label: probability}``,
as its image classifier answers. TorchServe's gRPC API is not served: see Open Inference V2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from modelport.core.errors import ModelportError, UnsupportedError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve.base import Call, ModelIdentity, Place, Request, Response, Route
from modelport.serve.openapi import INFERENCE_FAILURES, Schema, document, operation
from modelport.serve.table import ModelTable
from modelport.serve.torchserve_models import Management, answer, failure, failure_of, version_of
from modelport.serve.uploads import bodies as uploads
from modelport.serve.uploads.bodies import Form
from modelport.serve.uploads.labelled import best_labels, dumps_strict, label_outputs, rows_by_name

_MODEL: Final = r"(?P<model>[^/]+)(?:/(?P<version>[^/]+))?"

_ERROR: Final[Schema] = {
    "type": "object",
    "required": ["code", "type", "message"],
    "properties": {
        "code": {"type": "integer"},
        "type": {"type": "string"},
        "message": {"type": "string"},
    },
}

_STATUS: Final[Schema] = {"type": "object", "properties": {"status": {"type": "string"}}}

_MODELS: Final[Schema] = {
    "type": "object",
    "required": ["models"],
    "properties": {
        "nextPageToken": {"type": "string"},
        "models": {"type": "array", "items": {"type": "object"}},
    },
}


@dataclass(frozen=True)
class _Described:
    """What the OpenAPI document says of a management route."""

    summary: str
    answer: Schema
    failures: Sequence[int]
    query: Mapping[str, Schema] | None = None


_INTEGER: Final[Schema] = {"type": "integer"}
_TEXT: Final[Schema] = {"type": "string"}

_MANAGEMENT: Final = {
    ("GET", "/models"): _Described(
        "Models", _MODELS, (400,), {"limit": _INTEGER, "next_page_token": _INTEGER}
    ),
    ("POST", "/models"): _Described(
        "Load a model from the store", _STATUS, (400, 404, 405, 409, 413, 415, 500, 503, 504, 507),
        {"url": _TEXT, "model_name": _TEXT},
    ),
    ("GET", "/models/{model}"): _Described(
        "What a model is", {"type": "array", "items": {"type": "object"}}, (404,)
    ),
    ("PUT", "/models/{model}"): _Described(
        "How many workers a model has; it cannot be changed", _STATUS, (400, 404),
        {"min_worker": _INTEGER, "max_worker": _INTEGER},
    ),
    ("DELETE", "/models/{model}"): _Described(
        "Unload a model", _STATUS, (403, 404, 405, 503, 504)
    ),
    ("PUT", "/models/{model}/1/set-default"): _Described(
        "Which version answers; it cannot be changed", _STATUS, (404, 501)
    ),
}  # fmt: skip


class TorchServe:
    """See the module."""

    name = "torchserve"
    carrier = "http"
    prefix = "/predictions"

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        predict, explain = (re.compile(f"/{name}/{_MODEL}") for name in _INFERENCE)
        describe = partial(_description, self, options)
        routes = [
            Route("POST", predict, "/predictions/{model}"),
            Route("PUT", predict, "/predictions/{model}"),
            Route("POST", explain, "/explanations/{model}", _explain),
            Route("GET", re.compile("/api-description"), "/api-description", describe),
            Route("OPTIONS", re.compile("/"), "/", describe),
        ]
        if not options.multi_model:  # SageMaker's paths are the same
            routes += _management(options)
        return routes

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        return Place(groups.get("model") or "", version_of(groups.get("version")))

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        body = uploads.read(request, model)
        return Call(body.tensors, context=body.form)

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        labels = label_outputs(model.signature)
        found: Any
        if labels is not None:
            # Of equal labels the first is the best.
            found = [
                {item["label"]: item["probability"] for item in reversed(row)}
                for row in best_labels(outputs, labels)
            ]
            found = [dict(reversed(row.items())) for row in found]
            if call.context is Form.FILES and len(found) == 1:
                found = found[0]
        elif len(outputs) == 1:
            (found,) = outputs.values()
        else:
            rows = rows_by_name(outputs)
            found = dict(outputs) if rows is None else rows
        if call.context is Form.DOCUMENT:
            found = {"predictions": found}
        return answer(dumps_strict(found))

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        return failure_of(error)

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        if methods:
            message = f"Requested method is not allowed: {request.method}"
            return failure(405, message, ("allow", ", ".join(methods)))
        return failure(404, "Requested resource is not found, please refer to API document.")

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        described = _MANAGEMENT.get((route.method, route.example))
        if described is not None:
            return operation(
                described.summary, answer={"application/json": described.answer},
                failures=described.failures, query=described.query, error=_ERROR,
            )  # fmt: skip
        if route.example.startswith("/predictions"):
            return operation(
                "Whatever the model takes through the model",
                body=uploads.body_schemas(model.signature),
                answer={"application/json": {}},
                failures=INFERENCE_FAILURES,
                error=_ERROR,
            )
        if route.example.startswith("/explanations"):
            return operation("Explanations are not made", failures=(404, 501), error=_ERROR)
        return operation("This API, in OpenAPI 3.1", answer={"application/json": {}}, error=_ERROR)


_INFERENCE: Final = ("predictions", "explanations")


def _management(options: ServeOptions) -> list[Route]:
    manage = Management(options)
    one = re.compile(f"/models/{_MODEL}")
    default = re.compile("/models/(?P<model>[^/]+)/(?P<version>[^/]+)/set-default")
    example = "/models/{model}"
    return [
        Route("GET", re.compile("/models"), "/models", manage.names),
        Route("POST", re.compile("/models"), "/models", manage.register, control=True),
        Route("GET", one, example, manage.describe),
        Route("PUT", one, example, manage.scale),
        Route("DELETE", one, example, manage.unregister, control=True),
        Route("PUT", default, f"{example}/1/set-default", manage.set_default),
    ]


def _explain(table: ModelTable, place: Place, request: Request) -> Response:
    model = table.get(place.model, place.version)
    raise UnsupportedError(f"model {model.spec.name} has no explanations")


def _description(
    protocol: TorchServe, options: ServeOptions, table: ModelTable, place: Place, request: Request
) -> Response:
    found = (table.get(name).identity for name in table.names)
    known = [identity for identity in found if identity is not None]
    routes = [(protocol, route) for route in protocol.routes(options)]
    closed = bool(options.api_key.strip() or options.api_key_file)
    return answer(
        dumps_strict(document(routes, known, closed=closed, guard_health=options.guard_health))
    )
