"""HTTP/1.1 and HTTP/2 on Granian, through RSGI.

HTTP/2 comes by ALPN under TLS, and with prior knowledge without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop
from granian._granian import RSGIProtocolClosed, RSGIProtocolError
from granian.constants import Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server

from modelport.core.errors import InputError
from modelport.core.options import ServeOptions
from modelport.serve.app import App
from modelport.serve.base import Request, Response
from modelport.serve.limits import prefer_throughput
from modelport.serve.refusals import refuse_plainly
from modelport.serve.tls import server_context

#: Larger heads are refused; Granian does not let a connection hold less.
_MAX_HEAD: Final = 64 * 1024
#: Seconds between two looks for bodies that take too long.
_LOOK_SECONDS: Final = 0.5
_NEVER_MS: Final = 10**9
_BROKE_OFF: Final = "the body broke off, or has trailers behind it"


class HttpTransport:
    """One Granian worker inside this process."""

    def run(
        self,
        app: App,
        options: ServeOptions,
        on_listening: Callable[[], None],
        on_stopping: Callable[[], Callable[[], None]],
    ) -> None:
        """See `modelport.serve.base.Transport.run`."""
        server_context(options, ["h2", "http/1.1"])  # it says what is wrong with the files
        prefer_throughput()
        uvloop.run(_serve(app, options, on_listening, on_stopping))


async def _serve(
    app: App,
    options: ServeOptions,
    on_listening: Callable[[], None],
    on_stopping: Callable[[], Callable[[], None]],
) -> None:
    loop = asyncio.get_running_loop()
    reads = _Reads(options.body_timeout)
    server = Server(
        _rsgi(app, reads),
        address=options.host,
        port=options.port,
        interface=Interfaces.RSGI,
        websockets=False,
        log_enabled=False,
        backlog=2048,
        backpressure=4096,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(options.body_timeout * 1000) or _NEVER_MS,
        ),
        http2_settings=HTTP2Settings(max_headers_size=_MAX_HEAD),
        **_tls(options),
    )
    serving = loop.create_task(server.serve())
    watching = loop.create_task(reads.watch())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.call_soon(on_listening)
    stopping = loop.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    wait = on_stopping()
    server.stop()  # type: ignore[no-untyped-call]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(serving, options.grace)
    await asyncio.to_thread(wait)
    watching.cancel()


def _tls(options: ServeOptions) -> dict[str, Any]:
    if not options.tls_cert:
        return {}
    authorities = options.tls_client_ca
    return {
        "ssl_cert": Path(options.tls_cert).expanduser(),
        "ssl_key": Path(options.tls_key).expanduser(),
        "ssl_protocol_min": SSLProtocols.tls12,
        "ssl_ca": Path(authorities).expanduser() if authorities else None,
        "ssl_client_verify": bool(authorities),
    }


class _Reads:
    """Bodies that are being read, and one clock for all of them.

    Parameters
    ----------
    limit : float
        Seconds that one may take; 0: any time.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._since: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._now = time.monotonic()

    async def read(self, scope: Any, proto: Any, length: str | None, limit: int) -> bytes | None:
        """Read a body; None when it is over the limit.

        Raises
        ------
        TimeoutError
            When it took too long.
        EOFError
            When it broke off.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request outside of a task")
        self._since[task] = self._now
        try:
            if length is None:
                return await _read_chunks(scope, proto, limit)
            body: bytes = await proto()
            return body
        except (RSGIProtocolClosed, RSGIProtocolError) as error:
            raise EOFError from error
        except asyncio.CancelledError:
            if task not in self._expired:
                raise
            task.uncancel()
            raise TimeoutError from None
        finally:
            del self._since[task]
            self._expired.discard(task)

    async def watch(self) -> None:
        """Interrupt those that take too long, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._now = time.monotonic()
            if self.limit:
                for task, since in list(self._since.items()):
                    if self._now - since > self.limit and task not in self._expired:
                        self._expired.add(task)
                        task.cancel()


def _rsgi(app: App, reads: _Reads) -> Callable[[Any, Any], Any]:
    handle, limit = app.handle, app.max_body

    async def answer(scope: Any, proto: Any) -> None:
        headers = scope.headers
        request = Request(scope.method, scope.path, headers, b"", scope.query_string)
        if request.method in ("GET", "HEAD"):
            response = await handle(request)
        else:
            length = headers.get("content-length")
            size = int(length) if length is not None else None
            refusal = app.before_body(request, size)
            if refusal is None:
                try:
                    body = await reads.read(scope, proto, length, limit)
                except EOFError:
                    response = app.refuse(request, InputError(_BROKE_OFF))
                except TimeoutError:
                    message = f"the request did not arrive within {reads.limit:g} s"
                    response = _closing(scope, refuse_plainly(app, 408, message))
                else:
                    if body is None:
                        response = app.too_large(request, size)
                    else:
                        request.body = body
                        response = await handle(request)
            else:
                response = refusal
        proto.response_bytes(response.status, response.headers, response.body)

    return answer


def _closing(scope: Any, response: Response) -> Response:
    if scope.http_version.startswith("1"):
        response.headers = (*response.headers, ("connection", "close"))
    return response


async def _read_chunks(scope: Any, proto: Any, limit: int) -> bytes | None:
    """Read a body of unknown length; None when it is over the limit.

    Granian ends every such body with an empty piece, and in HTTP/1.1 with a second one where it
    broke off (a chunk that is none, a connection that ended), or where trailers follow. It has no
    other word for either, and half a body must not be taken for a whole one.
    In HTTP/2 nobody is left to be answered then.
    """
    chunks = []
    size = empty = 0
    async for chunk in proto:
        size += len(chunk)
        empty = 0 if chunk else empty + 1
        if size > limit:
            return None
        chunks.append(chunk)
    if empty > 1 and scope.http_version.startswith("1"):
        raise EOFError
    return b"".join(chunks)
