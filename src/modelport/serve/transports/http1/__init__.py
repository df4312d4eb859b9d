"""HTTP/1.1 on uvloop: one thread, and no hop between the socket and the model.

httptools (llhttp, Node's parser) reads heads; everything that two readers of a request could
disagree on is refused (RFC 9112 §11.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop

from modelport.core.options import ServeOptions
from modelport.serve.app import App
from modelport.serve.tls import server_context
from modelport.serve.transports.http1.server import Server


class Http1Transport:
    """See the module."""

    def run(
        self,
        app: App,
        options: ServeOptions,
        on_listening: Callable[[], None],
        on_stopping: Callable[[], Callable[[], None]],
    ) -> None:
        """See `modelport.serve.base.Transport.run`."""
        context = server_context(options, ["http/1.1"])

        async def serve() -> None:
            await Server(app, options, context).serve(on_listening, on_stopping)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
