"""Listening, one timer for all time limits, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import ssl
from collections.abc import Callable
from typing import Final

from modelport.core.options import KIB, ServeOptions
from modelport.serve.app import App
from modelport.serve.transports.http1.answers import Answers
from modelport.serve.transports.http1.connection import IDLE, LINGERING, Connection
from modelport.serve.transports.http1.heads import Heads

#: Seconds between two looks at all connections.
_LOOK_SECONDS: Final = 0.5
#: Seconds that a connection may be open between requests: longer than the 60 s of common load
#: balancers, which must be the ones to close it.
_IDLE_SECONDS: Final = 75.0
#: Seconds in which a client takes note of the last answer.
_MOMENT_SECONDS: Final = 2.0
_HANDSHAKE_SECONDS: Final = 15.0
_BACKLOG: Final = 2048
#: File descriptors that are not for connections.
_OTHER_FILES: Final = 64
_NEVER: Final = float("inf")


class Server:
    """What all connections of a worker share.

    Parameters
    ----------
    app : App
    options : ServeOptions
    context : SSLContext or None
    """

    def __init__(self, app: App, options: ServeOptions, context: ssl.SSLContext | None) -> None:
        self.app = app
        self.heads = Heads()
        self.answers = Answers()
        self.loop = asyncio.get_running_loop()
        #: The oldest first.
        self.connections: dict[Connection, None] = {}
        self.draining = False
        self.tls = context is not None
        #: Seconds in which a request must arrive.
        self.seconds = options.body_timeout or _NEVER
        #: Bodies up to this size are taken as they come.
        self.small = min(16 * KIB, app.max_body)
        self._options = options
        self._context = context
        self._empty = asyncio.Event()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = files == resource.RLIM_INFINITY
        self._most = 1 << 30 if unlimited else max(16, files - _OTHER_FILES)
        self._look()

    async def serve(
        self,
        on_listening: Callable[[], None],
        on_stopping: Callable[[], Callable[[], None]],
    ) -> None:
        """Listen until SIGTERM or SIGINT, then drain."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, stop.set)
        listener = await self.loop.create_server(
            lambda: Connection(self),
            self._options.host,
            self._options.port,
            backlog=_BACKLOG,
            reuse_address=True,
            reuse_port=self._options.workers > 1,
            ssl=self._context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._context else None,
        )
        self.loop.call_soon(on_listening)
        await stop.wait()
        wait = on_stopping()
        listener.close()
        await self._drain()
        await asyncio.to_thread(wait)

    async def _drain(self) -> None:
        self.draining = True
        for connection in list(self.connections):
            connection.drain()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self._options.grace)
        for connection in list(self.connections):
            connection.abort()

    # What connections tell

    def admit(self, connection: Connection) -> None:
        """Take a connection; where there are too many, the oldest that only waits goes."""
        if len(self.connections) >= self._most:
            spare = (other for other in self.connections if other.state in (IDLE, LINGERING))
            next(spare, connection).abort()
        self.connections[connection] = None

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.pop(connection, None)
        if self.draining and not self.connections:
            self._empty.set()

    # Time

    def _look(self) -> None:
        """Look at the clock, and at every connection."""
        now = self.loop.time()
        # Connections count from the last look, which may be long ago already.
        self.idle_until = now + _LOOK_SECONDS + _IDLE_SECONDS
        self.receive_until = now + _LOOK_SECONDS + self.seconds
        self.moment = now + _LOOK_SECONDS + _MOMENT_SECONDS
        self.answers.refresh()
        for connection in list(self.connections):
            if connection.deadline <= now:
                connection.expire()
        self.loop.call_later(_LOOK_SECONDS, self._look)
