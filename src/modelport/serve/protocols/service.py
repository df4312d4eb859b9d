"""modelport's own routes: metrics, the OpenAPI document, and a sign of life."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from modelport.adapters import adapters_of
from modelport.core.errors import ModelportError, UnsupportedError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve.base import (
    JSON_HEADERS,
    Call,
    ModelIdentity,
    Place,
    Request,
    Response,
    Route,
)
from modelport.serve.json_codec import dumps
from modelport.serve.metrics import CONTENT_TYPE
from modelport.serve.openapi import document, operation
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable


class Service:
    """See the module."""

    name = "service"
    carrier = "http"
    prefix = ""

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        openapi = partial(_openapi, options)
        return (
            Route("GET", re.compile("/"), "/", _alive, health=True),
            Route("GET", re.compile("/metrics"), "/metrics", _metrics),
            Route("GET", re.compile(r"/openapi\.json"), "/openapi.json", openapi),
        )

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        return Place()

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
        """See `modelport.serve.base.WireProtocol.no_route`."""
        allow = ("allow", ", ".join(methods))
        return Response(405, dumps({"error": "Method Not Allowed"}), (*JSON_HEADERS, allow))

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        anything = {"application/json": {"type": "object"}}
        model_name = {"type": "string", "examples": [model.name]}
        if route.example == "/metrics":
            text = {"text/plain": {"type": "string"}}
            return operation("Metrics in the Prometheus text format 0.0.4", answer=text)
        if route.example == "/":
            return operation("Whether the server is alive", answer=anything)
        return operation(
            "This document", answer=anything, failures=(404,), query={"model": model_name}
        )


def _alive(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(200, b'{"status":"alive"}')


def _metrics(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(200, table.metrics.render(), (("content-type", CONTENT_TYPE),))


def _openapi(options: ServeOptions, table: ModelTable, place: Place, request: Request) -> Response:
    protocols = [adapter.load() for adapter in adapters_of("protocol")]
    routes = [(protocol, route) for protocol in protocols for route in protocol.routes(options)]
    # ``?model=NAME`` leaves the other models out.
    asked = parse_qs(request.query).get("model", table.names)
    models = [table.get(name).identity for name in asked]
    known = [identity for identity in models if identity is not None]
    closed = bool(options.api_key.strip() or options.api_key_file)
    described = document(routes, known, closed=closed, guard_health=options.guard_health)
    return Response(200, dumps(described))
