"""KServe V1: the list of models, and explain.

Predict and the readiness of one model share their paths with TensorFlow Serving, and are answered
there, for both. Source: ``kserve`` 0.21 (``protocol/rest/v1_endpoints.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelport.core.errors import ModelportError, UnsupportedError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve.base import Call, ModelIdentity, Place, Request, Response, Route
from modelport.serve.json_codec import dumps
from modelport.serve.openapi import Schema, instances, operation
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable

_JSON: Final = "application/json"


class KServe:
    """See the module."""

    name = "kserve"
    carrier = "http"
    prefix = ""

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        flags = re.IGNORECASE  # as TensorFlow Serving, whose paths these are beside
        return (
            Route("GET", re.compile("/v1/models", flags), "/v1/models", _list),
            Route(
                "POST",
                re.compile("/v1/models/(?P<model>[^/:]+):explain", flags),
                "/v1/models/{model}:explain",
                _explain,
            ),
        )

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        return Place(groups.get("model") or "")

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`; no route of this protocol infers."""
        raise UnsupportedError("this route runs no model")

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`; no route of this protocol infers."""
        raise UnsupportedError("this route runs no model")

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        return Response(status_of(error), dumps({"error": error.line}))

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """Answer other methods as TensorFlow Serving does, whose paths these are beside."""
        message = f"Malformed request: {request.method} {request.path}"
        return Response(400, dumps({"error": message}))

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        if route.example == "/v1/models":
            names: Schema = {"type": "array", "items": {"type": "string"}}
            answer: Schema = {
                "type": "object",
                "required": ["models"],
                "properties": {"models": names},
            }
            return operation("Names of all models", answer={_JSON: answer})
        described = operation(
            "Explain a prediction: not yet",
            body={_JSON: instances(model.signature)},
            failures=(404, 413, 415, 501, 503),
            optional_body=True,
        )
        del described["responses"]["200"]
        return described


def _list(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(200, dumps({"models": table.names}))


def _explain(table: ModelTable, place: Place, request: Request) -> Response:
    model = table.get(place.model)
    model.ready()
    raise UnsupportedError(
        f"model {model.spec.name} has no explainer: this server makes predictions (':predict'), "
        "and no explanations"
    )
