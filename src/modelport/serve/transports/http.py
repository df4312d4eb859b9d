"""HTTP/1.1 and HTTP/2 on Granian, through RSGI."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server

from modelport.core.options import ServeOptions
from modelport.serve.app import App
from modelport.serve.base import Request


class HttpTransport:
    """One Granian worker inside this process."""

    def run(
        self,
        app: App,
        options: ServeOptions,
        on_listening: Callable[[], None],
        on_stopping: Callable[[], None],
    ) -> None:
        """See `modelport.serve.base.Transport.run`."""
        _prefer_throughput()
        uvloop.run(_serve(app, options, on_listening, on_stopping))


async def _serve(
    app: App,
    options: ServeOptions,
    on_listening: Callable[[], None],
    on_stopping: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    server = Server(
        _rsgi(app),
        address=options.host,
        port=options.port,
        interface=Interfaces.RSGI,
        websockets=False,
        log_enabled=False,
        backlog=2048,
        backpressure=4096,
    )
    serving = loop.create_task(server.serve())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.call_soon(on_listening)
    stopping = loop.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    on_stopping()
    server.stop()  # type: ignore[no-untyped-call]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(serving, options.grace)


def _rsgi(app: App) -> Callable[[Any, Any], Any]:
    handle, too_large, limit = app.handle, app.too_large, app.max_body

    async def answer(scope: Any, proto: Any) -> None:
        headers = scope.headers
        request = Request(scope.method, scope.path, headers, b"", scope.query_string)
        if request.method in ("GET", "HEAD"):
            response = await handle(request)
        else:
            length = headers.get("content-length")
            if length is None:
                body = await _read_chunks(proto, limit)
            else:
                body = await proto() if int(length) <= limit else None
            if body is None:
                response = too_large(request, int(length) if length else None)
            else:
                request.body = body
                response = await handle(request)
        proto.response_bytes(response.status, response.headers, response.body)

    return answer


async def _read_chunks(proto: Any, limit: int) -> bytes | None:
    """Read a body of unknown length; None when it is over the limit."""
    chunks = []
    size = 0
    async for chunk in proto:
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _prefer_throughput() -> None:
    """Ask Linux not to let a thread that wakes up interrupt the one that runs.

    Granian's network thread and the event loop hand requests to each other. Under the default
    policy each hand-over is two context switches on a busy core; under ``SCHED_BATCH`` they
    come in batches, which halves the CPU time of a small request. An idle core is not
    affected. A container may forbid the call; then it stays as it was.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
