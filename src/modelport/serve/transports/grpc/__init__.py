"""gRPC on grpcio: lanes for unary calls, threads of grpcio's own server for streams.

One lane answers inference, another one everything else, so that health never waits for a model.
Streams are rare, and each holds a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc

from modelport.core.errors import ConflictError
from modelport.core.options import ServeOptions
from modelport.serve.app import App
from modelport.serve.base import Request, Route
from modelport.serve.limits import prefer_throughput
from modelport.serve.tls import server_context
from modelport.serve.transports.grpc.lanes import Lane, Metadata, refusal

#: Most streams at once; each holds a thread. One more is refused.
_STREAMS: Final = 64
#: Most of these that only watch: they need no key, and must not keep others out.
_WATCHES: Final = _STREAMS // 2
#: Most calls at once of one connection; a client waits with more.
_CALLS: Final = 1024
#: Seconds for the last events of a server whose calls have all ended.
_JOIN_SECONDS: Final = 5.0
#: Seconds between two looks at what a client watches.
_LOOK_SECONDS: Final = 0.25


class GrpcTransport:
    """See the module."""

    def start(self, app: App, options: ServeOptions) -> Callable[[float], Callable[[], None]]:
        """See `modelport.serve.base.SideTransport.start`."""
        prefer_throughput()
        streams = _Streams(app)
        server = grpc.server(
            ThreadPoolExecutor(_STREAMS, "modelport-grpc-stream"),
            handlers=[streams],
            options=[
                ("grpc.max_receive_message_length", options.max_body),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", _CALLS),
                # Several workers share the port; one alone must see that it is taken.
                ("grpc.so_reuseport", int(options.workers > 1)),
            ],
            maximum_concurrent_rpcs=_STREAMS,
        )
        unary = [route for _, route in app.routes if not (route.stream or route.watch)]
        lanes = [
            Lane(app, server, [route for route in unary if route.answer is None]),
            Lane(app, server, [route for route in unary if route.answer is not None]),
        ]
        _bind(server, options)
        server.start()
        for lane in lanes:
            lane.start()

        def stop(grace: float) -> Callable[[], None]:
            streams.stopping.set()
            for lane in lanes:
                lane.stopping = True
            stopped = server.stop(grace)

            def wait() -> None:
                stopped.wait()
                for lane in lanes:
                    lane.join(_JOIN_SECONDS)

            return wait

        return stop


def _bind(server: Any, options: ServeOptions) -> None:
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"{host}:{options.grpc_port}"
    credentials = _credentials(options)
    try:
        if credentials is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConflictError(
            f"cannot listen on {address} for gRPC",
            hint="another program uses the port: stop it, or choose another",
        ) from error


def _credentials(options: ServeOptions) -> Any:
    if server_context(options, ("h2",)) is None:  # it checks the files, and says what is wrong
        return None
    key, chain, authorities = (
        Path(name).expanduser().read_bytes() if name else None
        for name in (options.tls_key, options.tls_cert, options.tls_client_ca)
    )
    return grpc.ssl_server_credentials(
        [(key, chain)], root_certificates=authorities, require_client_auth=authorities is not None
    )


class _Streams:
    """Streams, for grpcio's own server, as a generic handler; each holds one of its threads.

    Parameters
    ----------
    app : App
    """

    def __init__(self, app: App) -> None:
        #: Set when the server stops.
        self.stopping = threading.Event()
        self._app = app
        self._watches = threading.BoundedSemaphore(_WATCHES)
        self._routes = {
            route.example: route for _, route in app.routes if route.stream or route.watch
        }

    def service(self, details: Any) -> Any:
        """See grpcio; None is answered with UNIMPLEMENTED."""
        route = self._routes.get(details.method)
        if route is None:
            return None
        metadata = Metadata(details.invocation_metadata)
        if route.watch:
            # The message is taken here, and not by grpcio on a thread that waits for it before.
            return grpc.stream_stream_rpc_method_handler(partial(self._watch, route, metadata))
        return grpc.stream_stream_rpc_method_handler(partial(self._stream, route, metadata))

    def _stream(
        self, route: Route, metadata: Metadata, bodies: Iterator[bytes], context: Any
    ) -> Iterator[bytes]:
        """Answer each message by itself."""
        # Before the first message: a stream holds a thread, also one that brings none.
        asked = Request("POST", route.example, metadata, b"")
        if (refused := self._app.before_body(asked, None)) is not None:
            context.abort(*refusal(refused))
        for body in bodies:
            request = Request("POST", route.example, metadata, body)
            response = self._app.answer(request)
            # Without a key there is no stream, whatever the protocol does with its errors.
            if response.status not in (200, 401) and route.stream_error is not None:
                response = route.stream_error(request, response)
            if response.status != 200:
                context.abort(*refusal(response))
            yield response.body

    def _watch(
        self, route: Route, metadata: Metadata, bodies: Iterator[bytes], context: Any
    ) -> Iterator[bytes]:
        """Answer the one message again whenever the answer has changed."""
        if not self._watches.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_WATCHES} clients watch already")
        try:
            told, body = None, next(bodies, b"")  # an empty message asks for the server
            while context.is_active() and not self.stopping.is_set():
                response = self._app.answer(Request("POST", route.example, metadata, body))
                if response.status != 200:
                    context.abort(*refusal(response))
                if response.body != told:
                    told = response.body
                    yield told
                self.stopping.wait(_LOOK_SECONDS)
        finally:
            self._watches.release()
