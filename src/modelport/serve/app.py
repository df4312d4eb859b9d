"""The request path: one plain function from request to response, for every transport.

Nothing here knows a transport, and nothing but the protocols knows a wire format.

`App.handle` answers in an event loop, `App.answer` on a thread that may block; both go through
the same lines.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

from modelport.core.errors import (
    EngineError,
    ExhaustedError,
    LimitError,
    ModelportError,
    NotFoundError,
    UnauthenticatedError,
)
from modelport.core.options import KIB, ServeOptions
from modelport.serve.base import Request, Response, Route, WireProtocol
from modelport.serve.compression import compress, decompress
from modelport.serve.guard import Guard, challenge
from modelport.serve.json_codec import dumps
from modelport.serve.models import ServedModel
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable

#: Resolved inference paths that are remembered; clients use a handful.
_REMEMBERED: Final = 1024

#: Most bytes of a body that are read before its sender has shown a key.
_READ_UNSEEN: Final = 64 * KIB

#: A route, its protocol, and the groups of the path.
_Match = tuple[WireProtocol, Route, dict[str, str | None]]

_log = logging.getLogger(__name__)


class App:
    """Answers requests from a table of models.

    Parameters
    ----------
    table : ModelTable
    protocols : sequence of WireProtocol
        All of one carrier. The first route that matches answers.
    options : ServeOptions
    guard : Guard
    """

    def __init__(
        self,
        table: ModelTable,
        protocols: Sequence[WireProtocol],
        options: ServeOptions,
        guard: Guard,
    ) -> None:
        self.table = table
        self.options = options
        self.protocols = protocols
        self.max_body = options.max_body
        #: Every route with its protocol, in the order in which they are tried.
        self.routes = [(owner, route) for owner in protocols for route in owner.routes(options)]
        self._guard = guard
        #: Whether a key is needed at all.
        self.closed = guard.closed
        #: gRPC compresses by itself.
        self._codings = all(protocol.carrier == "http" for protocol in protocols)
        above = options.compress_above if self._codings else 0
        self._compress_above = above or float("inf")
        self._no_model, self._no_model_threads = table.metrics.model(0)
        self._inference: dict[str, tuple[WireProtocol, ServedModel]] = {}
        #: What the paths without a model's name lead to: there are dozens of routes.
        self._fixed: dict[tuple[str, str], _Match] = {}
        for _, route in self.routes:
            key = (route.method, route.example)
            if "{" not in route.example and (found := self._search(*key)):
                self._fixed[key] = found
        self._lock = threading.Lock()
        table.on_change(self._inference.clear)

    def handle(self, request: Request) -> Awaitable[Response]:
        """Answer one request in the event loop; never raises for anything a client can send.

        Not a coroutine itself: on the request path every layer of them costs.
        """
        known = self._inference.get(request.path) if request.method == "POST" else None
        if known is not None and not (self.closed and self._refused(request)):
            return self._infer(*known, request, on_thread=False)
        found = self._find(request)
        if isinstance(found, Response):
            return _ready(self._count(found, on_thread=False))
        protocol, route, model = found
        if model is not None:
            return self._infer(protocol, model, request, on_thread=False)
        if route.control:  # it takes its time
            loop = asyncio.get_running_loop()
            return loop.run_in_executor(None, self._control, protocol, route, request)
        return _ready(self._count(self._follow(protocol, route, request), on_thread=False))

    def answer(self, request: Request) -> Response:
        """Answer one request on a thread that may block; never raises either."""
        found = self._find(request)
        if isinstance(found, Response):
            return self._count(found, on_thread=True)
        protocol, route, model = found
        if model is not None:
            return _finish(self._infer(protocol, model, request, on_thread=True))
        return self._control(protocol, route, request)

    def before_body(self, request: Request, size: int | None) -> Response | None:
        """Answer a request whose body is not worth reading; None: read it.

        Nobody fills the memory with bodies without a key. Small ones are read all the same: the
        key is then looked at once, when the request is answered.

        Parameters
        ----------
        request : Request
            Without its body.
        size : int or None
            Of the body in bytes, if the client announced it.
        """
        if size is not None and size > self.max_body:
            return self.too_large(request, size)
        if self.closed and (size is None or size > _READ_UNSEEN):
            try:
                self._guard.check(request.headers)
            except UnauthenticatedError as error:
                return self.refuse(request, error)
        return None

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
        return self.refuse(
            request, LimitError(f"body has {said}, the limit is {self.max_body} bytes")
        )

    def refuse(self, request: Request, error: ModelportError) -> Response:
        """Answer a request that the transport cannot pass on, in its protocol's own shape."""
        try:
            self._guard.check(request.headers)
        except UnauthenticatedError as refused:
            error = refused
        match = self._match(request)
        protocol = match[0] if match else self._owner(request)
        return self._count(_error_of(protocol, error), on_thread=False)

    def _refused(self, request: Request) -> bool:
        """Whether the guard refuses; `_find` says it to the client."""
        try:
            self._guard.check(request.headers)
        except UnauthenticatedError:
            return True
        return False

    def _find(self, request: Request) -> Response | tuple[WireProtocol, Route, ServedModel | None]:
        """What a request is for, or the answer to one that goes no further.

        The model is None where the route answers by itself.
        """
        protocol: WireProtocol | None = None
        try:
            match = self._match(request)
            if match is None:
                self._guard.check(request.headers)
                return self._no_route(request)
            protocol, route, groups = match
            if self.closed and (self._guard.guard_health or not route.health):
                self._guard.check(request.headers)
            if route.answer is not None:
                return protocol, route, None
            generation = self.table.generation
            place = protocol.place(groups, request)
            model = self.table.get(place.model, place.version, place.label)
            if route.by_path and model.identity is not None:
                self._remember(request.path, protocol, model, generation)
            return protocol, route, model
        except ModelportError as error:
            return _error_of(protocol or self._owner(request), error)

    def _remember(
        self, path: str, protocol: WireProtocol, model: ServedModel, generation: int
    ) -> None:
        with self._lock:
            if len(self._inference) >= _REMEMBERED:
                self._inference.clear()
            self._inference[path] = (protocol, model)
        if self.table.generation != generation:  # it changed meanwhile: what was kept is old
            self._inference.pop(path, None)

    def _match(self, request: Request) -> _Match | None:
        method = "GET" if request.method == "HEAD" else request.method
        known = self._fixed.get((method, request.path))
        return known or self._search(method, request.path)

    def _search(self, method: str, path: str) -> _Match | None:
        for protocol, route in self.routes:
            if route.method == method and (match := route.pattern.fullmatch(path)):
                return protocol, route, match.groupdict()
        return None

    def _no_route(self, request: Request) -> Response:
        owners = [
            (protocol, route.method)
            for protocol, route in self.routes
            if route.pattern.fullmatch(request.path)
        ]
        protocol = owners[0][0] if owners else self._owner(request)
        if protocol is None:
            return Response(404, dumps({"error": "Not Found"}))
        return protocol.no_route(request, sorted({method for _, method in owners}))

    def _owner(self, request: Request) -> WireProtocol | None:
        """The protocol below whose prefix a path is."""
        path = request.path.lower()
        return next((p for p in self.protocols if p.prefix and path.startswith(p.prefix)), None)

    def _control(self, protocol: WireProtocol, route: Route, request: Request) -> Response:
        return self._count(self._follow(protocol, route, request), on_thread=True)

    def _follow(self, protocol: WireProtocol, route: Route, request: Request) -> Response:
        """Have a route answer by itself."""
        try:
            match = route.pattern.fullmatch(request.path)
            place = protocol.place(match.groupdict() if match else {}, request)
            self._decompress(request)
            response = route.answer(self.table, place, request) if route.answer else None
        except ModelportError as error:
            if isinstance(error, NotFoundError) and self.closed and self._refused(request):
                # Probes bring no key: they learn about the model they name, and of no other.
                error.without_known()
            return _error_of(protocol, error)
        except Exception:
            return protocol.error(_defect(request))
        if response is None:
            return protocol.error(_defect(request))
        if request.method == "HEAD":
            return replace(response, body=b"")
        return self._compressed(request, response)

    async def _infer(
        self, protocol: WireProtocol, model: ServedModel, request: Request, *, on_thread: bool
    ) -> Response:
        started = time.perf_counter()
        counters = model.thread_counters if on_thread else model.counters
        counters.started()
        waited = encoded = 0.0
        status = 499  # nobody waits any longer, unless one of the lines below says otherwise
        try:
            identity, batcher = model.ready()
            self._decompress(request)
            call = protocol.decode(request, identity)
            inputs = identity.signature.check(call.inputs)
            decoded = time.perf_counter()
            if on_thread:
                outputs = batcher.run_on_thread(inputs)
            else:
                outputs = batcher.run(inputs) if batcher.immediate else await batcher.submit(inputs)
            done = time.perf_counter()
            response = protocol.encode(call, outputs, identity)
            if len(response.body) > self._compress_above:
                response = self._compressed(request, response)
            waited, encoded = done - decoded, time.perf_counter() - done
            status = response.status
        except ModelportError as error:
            response = protocol.error(error)
            status = response.status
        except MemoryError:
            response = protocol.error(ExhaustedError("not enough memory for this request"))
            status = response.status
        except Exception:  # a defect of ours must neither stop the server nor show its insides
            response = protocol.error(_defect(request))
            status = response.status
        finally:
            counters.answered(status, time.perf_counter() - started, waited, encoded)
        return response

    def _decompress(self, request: Request) -> None:
        if self._codings and (coding := request.headers.get("content-encoding")):
            request.body = decompress(request.body, coding, self.max_body)

    def _compressed(self, request: Request, response: Response) -> Response:
        if len(response.body) > self._compress_above and (
            accepted := request.headers.get("accept-encoding")
        ):
            return compress(response, accepted)
        return response

    def _count(self, response: Response, *, on_thread: bool) -> Response:
        counters = self._no_model_threads if on_thread else self._no_model
        counters.started()
        counters.answered(response.status, 0.0)
        return response


async def _ready(response: Response) -> Response:
    return response


def _finish(answering: Coroutine[Any, Any, Response]) -> Response:
    """Run a coroutine that waits for nothing."""
    try:
        answering.send(None)
    except StopIteration as done:
        response: Response = done.value
        return response
    raise RuntimeError("a request on a thread waited in an event loop")


def _defect(request: Request) -> EngineError:
    _log.exception("defect while answering %r", request.path)
    return EngineError("internal error; the server's log has the cause")


def _error_of(protocol: WireProtocol | None, error: ModelportError) -> Response:
    if protocol is None:
        response = Response(status_of(error), dumps({"error": error.line}))
    else:
        response = protocol.error(error)
    return challenge(response) if isinstance(error, UnauthenticatedError) else response
