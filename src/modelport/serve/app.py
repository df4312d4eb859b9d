"""The request path: one plain function from request to response, for every transport.

Nothing here knows a transport, and nothing but the protocols knows a wire format.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Final

from modelport.core.errors import EngineError, LimitError, ModelportError
from modelport.serve.base import Request, Response, Route, WireProtocol
from modelport.serve.json_codec import dumps
from modelport.serve.metrics import CONTENT_TYPE, Metrics
from modelport.serve.models import ModelTable, ServedModel

#: Resolved inference paths that are remembered; clients use a handful.
_REMEMBERED: Final = 1024

_log = logging.getLogger(__name__)


class App:
    """Answers requests from a table of models.

    Parameters
    ----------
    table : ModelTable
    protocols : sequence of WireProtocol
        Asked in this order.
    metrics : Metrics
    max_body : int
        In bytes; transports refuse to read more and call `too_large`.
    """

    def __init__(
        self,
        table: ModelTable,
        protocols: Sequence[WireProtocol],
        metrics: Metrics,
        *,
        max_body: int,
    ) -> None:
        self.table = table
        self.max_body = max_body
        self._metrics = metrics
        self._routes = [(protocol, tuple(protocol.routes())) for protocol in protocols]
        self._no_model = metrics.model(0)
        self._inference: dict[str, tuple[WireProtocol, ServedModel]] = {}

    def handle(self, request: Request) -> Awaitable[Response]:
        """Answer one request; never raises for anything that a client can send.

        Not a coroutine itself: on the request path every layer of them costs.
        """
        if request.method == "POST" and (known := self._inference.get(request.path)):
            return self._infer(*known, request)
        found = self._find(request)
        return self._infer(*found, request) if isinstance(found, tuple) else _ready(found)

    def too_large(self, request: Request, size: int | None) -> Response:
        """Answer a body that is over the limit and was not read.

        Parameters
        ----------
        request : Request
            Without its body.
        size : int or None
            In bytes, if the client announced it.
        """
        said = f"{size} bytes" if size is not None else "more"
        error = LimitError(f"body has {said}, the limit is {self.max_body} bytes")
        return self._count(_error_of(self._protocol_of(request), error))

    def _find(self, request: Request) -> Response | tuple[WireProtocol, ServedModel]:
        """The model that a request is for, or the answer to a request that is for none."""
        if request.path == "/metrics" and request.method == "GET":
            return Response(200, self._metrics.render(), (("content-type", CONTENT_TYPE),))
        protocol = self._protocol_of(request)
        try:
            found = self._match(protocol, request) if protocol else None
        except ModelportError as error:
            return self._count(_error_of(protocol, error))
        if found is None:
            return self._count(Response(404, dumps({"error": "Not Found"})))
        return self._count(found) if isinstance(found, Response) else found

    def _protocol_of(self, request: Request) -> WireProtocol | None:
        return next((p for p, _ in self._routes if request.path.lower().startswith(p.prefix)), None)

    def _match(
        self, protocol: WireProtocol, request: Request
    ) -> Response | tuple[WireProtocol, ServedModel]:
        methods = []
        for route in next(routes for owner, routes in self._routes if owner is protocol):
            match = route.pattern.fullmatch(request.path)
            if match is None:
                continue
            methods.append(route.method)
            if request.method == route.method:
                return self._follow(protocol, route, match.groupdict(), request)
        return protocol.no_route(request, methods)

    def _follow(
        self,
        protocol: WireProtocol,
        route: Route,
        groups: dict[str, str | None],
        request: Request,
    ) -> Response | tuple[WireProtocol, ServedModel]:
        place = protocol.place(groups)
        if route.answer is not None:
            return route.answer(self.table, place)
        model = self.table.get(place.model, place.version, place.label)
        if self.table.settled:
            if len(self._inference) >= _REMEMBERED:
                self._inference.clear()
            self._inference[request.path] = (protocol, model)
        return protocol, model

    async def _infer(
        self, protocol: WireProtocol, model: ServedModel, request: Request
    ) -> Response:
        started = time.perf_counter()
        counters = model.counters
        counters.started()
        status = 499  # nobody waits any longer, unless one of the lines below says otherwise
        try:
            identity, batcher = model.ready()
            call = protocol.decode(request, identity)
            inputs = identity.signature.check(call.inputs)
            outputs = batcher.run(inputs) if batcher.immediate else await batcher.submit(inputs)
            response = protocol.encode(call, outputs, identity)
            status = response.status
        except ModelportError as error:
            response = protocol.error(error)
            status = response.status
        except Exception:  # a defect of ours must neither stop the server nor show its insides
            _log.exception("defect while answering %s", request.path)
            response = protocol.error(EngineError("internal error; the server's log has the cause"))
            status = response.status
        finally:
            counters.answered(status, time.perf_counter() - started)
        return response

    def _count(self, response: Response) -> Response:
        self._no_model.started()
        self._no_model.answered(response.status, 0.0)
        return response


async def _ready(response: Response) -> Response:
    return response


def _error_of(protocol: WireProtocol | None, error: ModelportError) -> Response:
    if protocol is not None:
        return protocol.error(error)
    return Response(413 if isinstance(error, LimitError) else 404, dumps({"error": error.line}))
