"""KServe V1: model list, readiness, predict as TensorFlow Serving, and explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelport.core.errors import ModelportError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve.base import Call, ModelIdentity, Place, Request, Response, Route
from modelport.serve.json_codec import dumps
from modelport.serve.statuses import status_of


class KServe:
    """See the module."""

    name = "kserve"
    carrier = "http"
    prefix = ""

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        return ()

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        return Place(groups.get("model") or "")

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        raise NotImplementedError

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        raise NotImplementedError

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        return Response(status_of(error), dumps({"error": error.line}))

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        return Response(404, dumps({"error": "Not Found"}))

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        return {}
