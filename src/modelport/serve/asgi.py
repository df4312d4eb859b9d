"""ASGI: for any ASGI server, and to be mounted in FastAPI, Starlette or Azure Functions.

``modelport.serve.asgi:app`` serves what ``MODELPORT_MODELS`` lists, or what the platform put
here; `create_app` serves what it is given::

    uvicorn modelport.serve.asgi:app
    fastapi_app.mount("/models", create_app(["iris"]))

Importing this module loads nothing. A server that knows the lifespan protocol has the models
loaded and proven before the first request; a framework starts no lifespan of what is mounted in
it, so that there the first request does it, unless `Application.load` was called.

Source: ASGI specification 3.0, "HTTP & WebSocket" 2.5 and "Lifespan" 2.0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from modelport.core.errors import ModelportError
from modelport.core.options import ServeOptions
from modelport.serve.app import App
from modelport.serve.base import Request, Response
from modelport.serve.embed import load_app
from modelport.serve.hosts.envelopes import joined
from modelport.serve.hosts.on_demand import OnDemand
from modelport.serve.refusals import refuse_plainly

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: What a client is told, without a key and before there is a guard: nothing of what is inside.
NOT_LOADED: Final = Response(
    503, b'{"error":"the models could not be loaded; the server\'s log has the cause"}'
)
#: Answers that have no body, and so no length (RFC 9110 §8.6).
_BODILESS: Final = (204, 304)

_log = logging.getLogger(__name__)


def create_app(
    models: Sequence[str | Path] = (), *, options: ServeOptions | None = None
) -> Application:
    """An ASGI application that answers for models; nothing is loaded yet.

    Parameters
    ----------
    models : sequence of str or Path
        As in `modelport.serve.embed.load_app`.
    options : ServeOptions, optional
        Those of the environment unless given. What concerns sockets is the server's.

    Returns
    -------
    Application
    """
    return Application(partial(load_app, tuple(models), options))


class Application:
    """An ASGI 3 application around an `App`.

    Parameters
    ----------
    load : callable
        Loads and proves the models.
    """

    def __init__(self, load: Callable[[], App]) -> None:
        self._on_demand = OnDemand(load)
        self._loop: asyncio.AbstractEventLoop | None = None

    def load(self) -> None:
        """Load and prove the models now, on this thread, instead of at the first request.

        Raises
        ------
        ModelportError
            When a model cannot be found, verified, loaded or proven.
        """
        self._on_demand.get()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope: a request, the lifespan, or a refused WebSocket."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "websocket":
            await receive()  # its connect
            await send({"type": "websocket.close", "code": 1000, "reason": "HTTP only"})
        else:
            raise ValueError(f"ASGI scope of type {kind!r} is not known here")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()  # its startup
        try:
            await self._ready()
        except ModelportError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()  # its shutdown
        if self._on_demand.app is not None:
            self._on_demand.app.table.draining = True
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _request(scope)
        try:
            app = await self._ready()
        except ModelportError:
            _log.exception("the models could not be loaded")
            await _answer(send, request, NOT_LOADED)
            return
        response = await self._response(app, request, receive)
        if response is not None:
            with contextlib.suppress(OSError):  # as a server says that the client has gone
                await _answer(send, request, response)

    async def _response(self, app: App, request: Request, receive: Receive) -> Response | None:
        """What to answer; None when the client has gone before it had said everything."""
        length = request.headers.get("content-length")
        size = int(length) if length and length.isdecimal() else None
        has_body = bool(size) or request.method not in ("GET", "HEAD")
        if has_body and (refused := app.before_body(request, size)) is not None:
            return refused
        seconds = app.options.body_timeout
        try:
            async with asyncio.timeout(seconds or None):
                body = await _read(receive, app.max_body)
        except TimeoutError:
            return refuse_plainly(app, 408, f"the request did not arrive within {seconds:g} s")
        if body is None:
            return None
        if len(body) > app.max_body:
            return app.too_large(request, None)
        request.body = body
        if self._loop is asyncio.get_running_loop():
            return await app.handle(request)
        # Another loop, in another thread, has the queues of this application.
        return await asyncio.to_thread(app.answer, request)

    async def _ready(self) -> App:
        """The application, loaded, and attached to a loop that runs."""
        app = self._on_demand.app
        if app is None:
            app = await asyncio.to_thread(self._on_demand.get)
        # Some frameworks run every request in a new loop: the last one is dead then.
        if self._loop is None or not self._loop.is_running():
            self._loop = asyncio.get_running_loop()
            app.table.attach(self._loop)
        return app


def _request(scope: Scope) -> Request:
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    # Where it is mounted, the path has that place in front (ASGI 2.4), or not (before).
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    query = scope.get("query_string", b"").decode("latin-1")
    return Request(scope["method"].upper(), path or "/", joined(pairs), b"", query)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The body, or somewhat more than `limit` of it; None when the client has gone."""
    chunks: list[bytes] = []
    size = 0
    while size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        chunks.append(chunk)
        if not message.get("more_body", False):
            break
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _answer(send: Send, request: Request, response: Response) -> None:
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers
    ]
    body = response.body
    if request.method == "HEAD":
        body = b""
    elif response.status not in _BODILESS:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def __getattr__(name: str) -> Any:
    """Make `app` when a server asks for it (PEP 562)."""
    if name == "app":
        return globals().setdefault("app", create_app())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
