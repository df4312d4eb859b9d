"""Unary gRPC calls, answered on one thread: an event loop over grpcio's completion queue.

grpcio's own server hands every call over between its polling thread and a pool's thread three
times, which costs more than a small model does. A lane takes a call, its message and its end off
a queue of its own, one after the other. No call holds a thread while its message is on the way.

The queue is that of `grpc._cython.cygrpc`, on which `grpc.server` is written; it is not part of
grpcio's public interface, and `tests/serve/test_grpc.py` holds each release against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import grpc
from grpc._cython import cygrpc

from modelport.serve.app import App
from modelport.serve.base import Request, Response, Route
from modelport.serve.statuses import grpc_code

#: Calls that a lane has asked for in advance.
_AHEAD: Final = 8
#: Control routes that run at once; others wait.
_CONTROLS: Final = 4
#: Characters of an error's text.
_LONGEST_TEXT: Final = 1000

_CODES: Final = {code.name: code for code in grpc.StatusCode}

_log = logging.getLogger(__name__)


class Metadata:
    """Looks through a call's metadata when it is asked: mostly nobody does."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        self._pairs = pairs

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a name in lower case, or `default`."""
        return next((value for name, value in self._pairs if name == key), default)


def refusal(response: Response) -> tuple[Any, str]:
    """The status code and text of an answer that is none."""
    code = dict(response.headers).get("grpc-status") or grpc_code(response.status)
    # It travels as metadata, which clients limit to 8 KiB; percent-encoding makes three of one.
    return _CODES[code], response.body.decode()[:_LONGEST_TEXT]


class _Call:
    """One unary call on its way through a lane."""

    __slots__ = ("call", "cancel", "lane", "pairs", "path")

    def __init__(self, lane: Lane, path: str, event: Any) -> None:
        self.lane = lane
        self.path = path
        self.call = event.call
        self.pairs = event.invocation_metadata
        #: Gives up an answer that nobody waits for any longer.
        self.cancel: Callable[[], object] | None = None

    def received(self, event: Any) -> None:
        """Its message is here."""
        lane, body = self.lane, event.batch_operations[0].message()
        if body is None:  # it was too large, the client went away, or it sent nothing
            text = b"the call has no message"
            self.end((cygrpc.SendStatusFromServerOperation(None, _NO_MESSAGE, text, 0),))
            return
        lane.answer(self, Request("POST", self.path, Metadata(self.pairs), body))

    def watch(self, cancel: Callable[[], object]) -> None:
        """Have `cancel` called when the client goes away, or its deadline has passed."""
        self.cancel = cancel
        self.lane.due += 1
        self.call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(0),), self.closed)

    def closed(self, event: Any) -> None:
        """Client and server are done with each other, or the client is alone."""
        if self.cancel is not None and event.batch_operations[0].cancelled():
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self.cancel()

    def send(self, response: Response) -> None:
        """Send an answer, and with it the end of the call; on any thread."""
        if response.status == 200:
            body = response.body
            self.end(
                (
                    cygrpc.SendMessageOperation(body, 0),
                    cygrpc.SendStatusFromServerOperation(None, 0, b"", 0),
                )
            )
        else:
            code, text = refusal(response)
            status = cygrpc.SendStatusFromServerOperation(None, code.value[0], text.encode(), 0)
            self.end((status,))

    def end(self, operations: tuple[Any, ...]) -> None:
        """Start the last operations; `finished` is told."""
        start = cygrpc.SendInitialMetadataOperation(None, 0)
        if self.cancel is None:
            close = cygrpc.ReceiveCloseOnServerOperation(0)
            self.call.start_server_batch((start, *operations, close), _finished)
        else:
            self.call.start_server_batch((start, *operations), _finished)


#: What a call is told that the server's end overtakes.
_STOPPING: Final = Response(503, b"the server stops", ())

#: What grpcio says to a unary call without a message.
_NO_MESSAGE: Final = grpc.StatusCode.UNIMPLEMENTED.value[0]


def _finished(event: Any) -> None:
    """A call has ended."""


class Lane(threading.Thread):
    """Answers unary calls, each as soon as its message is here.

    Parameters
    ----------
    app : App
    server : grpc.Server
        Not started yet.
    routes : sequence of Route
        Either of inference, or with answers of their own.
    """

    def __init__(self, app: App, server: Any, routes: Sequence[Route]) -> None:
        super().__init__(name="modelport-grpc", daemon=True)
        self.stopping = False
        #: Events that will come.
        self.due = 0
        self._app = app
        self._server = server._cy_server
        self._queue = cygrpc.CompletionQueue()
        self._server.register_completion_queue(self._queue)
        self._paths = [route.example for route in routes]
        self._control = {route.example for route in routes if route.control}
        self._pool = ThreadPoolExecutor(_CONTROLS, "modelport-grpc-control")
        self._tasks: set[asyncio.Task[None]] = set()
        self._prompt = False
        self._generation = -1
        #: Whoever has no key is refused before the message is read; health needs none.
        self._guarded = {route.example for route in routes if app.closed and not route.health}
        for path in self._paths:
            self._server.register_method(path)

    def run(self) -> None:
        """Take one event after the other, until the server has stopped."""
        for path in self._paths:
            for _ in range(_AHEAD):
                self._ask(path, partial(self._arrived, path))
        poll = self._queue.poll
        while self.due:
            event = poll()
            self.due -= 1
            try:
                event.tag(event)
            except Exception:  # a defect of ours must not stop the lane
                _log.exception("defect in the gRPC transport")
            # An event that is kept while waiting keeps its call from ending.
            event = None

    def _ask(self, path: str, tag: Any) -> None:
        self._server.request_registered_call(self._queue, self._queue, path, tag)
        self.due += 1

    def _arrived(self, path: str, event: Any) -> None:
        if not event.success:  # the server stops
            return
        if not self.stopping:
            self._ask(path, event.tag)
        call = _Call(self, path, event)
        self.due += 1  # its end
        if path in self._guarded:
            request = Request("POST", path, Metadata(call.pairs), b"")
            if (refused := self._app.before_body(request, None)) is not None:
                call.send(refused)
                return
        self.due += 1  # its message
        call.call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), call.received)

    def answer(self, call: _Call, request: Request) -> None:
        """Have the app answer, here if that takes no longer than a hop to elsewhere."""
        if request.path in self._control:
            self._pool.submit(lambda: call.send(self._app.answer(request)))  # it takes its time
            return
        loop = self._loop()
        if loop is None:
            call.send(self._app.answer(request))
            return
        # Slow models: the event loop's batches and limits hold for all transports.
        call.watch(lambda: None)
        try:
            loop.call_soon_threadsafe(self._begin, loop, call, request)
        except RuntimeError:  # it is closed
            call.send(_STOPPING)

    def _loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that has to answer; None: this thread."""
        table = self._app.table
        if self._generation != table.generation:
            self._generation = table.generation
            batchers = [model.batcher for model in table.models if model.batcher is not None]
            self._prompt = all(batcher.inline for batcher in batchers)
        return None if self._prompt else table.loop

    def _begin(self, loop: asyncio.AbstractEventLoop, call: _Call, request: Request) -> None:
        task = loop.create_task(self._wait(call, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        call.cancel = partial(loop.call_soon_threadsafe, task.cancel)

    async def _wait(self, call: _Call, request: Request) -> None:
        response = _STOPPING
        try:
            response = await self._app.handle(request)
        finally:  # also when nobody waits any longer: the call has to end
            call.send(response)
