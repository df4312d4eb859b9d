"""MLflow's scoring server: health and version.

Its ``/ping`` and ``/invocations`` are SageMaker's, too: one route each answers both, in
`modelport.serve.protocols.sagemaker`. Source: ``mlflow``, ``pyfunc/scoring_server/__init__.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from modelport import __version__
from modelport.core.errors import ModelportError, UnsupportedError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve import scoring
from modelport.serve.base import (
    Call,
    ModelIdentity,
    Place,
    Request,
    Response,
    Route,
)
from modelport.serve.openapi import operation
from modelport.serve.table import ModelTable


class MLflow:
    """See the module."""

    name = "mlflow"
    carrier = "http"
    prefix = ""

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        return (
            Route("GET", re.compile("/health"), "/health", _health, health=True),
            Route("GET", re.compile("/version"), "/version", _version),
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
        return scoring.error(error)

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        return scoring.wrong_method(methods)

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        if route.example == "/version":
            return operation("The server's version", answer={"text/plain": {"type": "string"}})
        status = {"application/json": {"type": "object", "required": ["status"]}}
        return operation("Whether the models are ready", answer=status, others={503: status})


def _health(table: ModelTable, place: Place, request: Request) -> Response:
    if table.ready():
        return Response(200, b'{"status":"Healthy"}')
    return Response(503, b'{"status":"Unhealthy"}')


def _version(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(200, __version__.encode(), (("content-type", "text/plain"),))
