"""One connection: requests in, answers out, in order, and no more memory than they need.

A request that is answered at once costs no task: its coroutine is run right where its last byte
came. One that waits is resumed by the future that it waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Final, cast

from modelport.core.errors import InputError
from modelport.serve.base import Request, Response
from modelport.serve.refusals import refuse_plainly
from modelport.serve.transports.http1.answers import CONTINUE
from modelport.serve.transports.http1.heads import BadRequestError, Head
from modelport.serve.transports.http1.reader import BodyRefusedError, Reader
from modelport.serve.transports.http1.waiting import Waiting

if TYPE_CHECKING:
    from modelport.serve.transports.http1.server import Server

# What a connection is doing.
IDLE: Final = 0
RECEIVING: Final = 1
ANSWERING: Final = 2
#: The last answer is written; what else comes is thrown away.
LINGERING: Final = 3
CLOSED: Final = 4

#: Requests of one connection that are answered before others have their turn.
_TURN: Final = 16
#: Bytes of further requests that are held while one is answered.
_MAX_AHEAD: Final = 256 * 1024
#: Bytes that are thrown away behind a refusal, so that the client comes to read it.
_MAX_DISCARDED: Final = 16 * 1024 * 1024
_NEVER: Final = float("inf")
_CLOSE: Final = b"connection: close\r\n"
_KEEP: Final = b"connection: keep-alive\r\n"

_log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """See the module.

    Parameters
    ----------
    server : Server
    """

    __slots__ = (
        "_discarded", "_eof", "_handle", "_head", "_paused", "_reader", "_server", "_stalled",
        "_transport", "_waiting", "deadline", "state",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self._server = server
        self._handle = server.app.handle
        self._reader = Reader(
            server.heads, server.small, server.app.max_body, self._begin, self._too_large
        )
        self._transport = cast("asyncio.Transport", None)
        self.state = IDLE
        #: When `expire` is due, on the server's clock.
        self.deadline = server.receive_until
        #: The request that waits for its answer.
        self._head: Head | None = None
        self._waiting: Waiting | None = None
        self._paused = False
        self._stalled = False
        self._eof = False
        self._discarded = 0

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.admit(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self.state >= LINGERING:
            self._discard(len(data))
            return
        reader = self._reader
        reader.feed(data)
        if self.state == ANSWERING or self._stalled:
            if reader.unread > _MAX_AHEAD and not self._paused:
                self._paused = True
                self._transport.pause_reading()
            return
        if self.state == IDLE:
            self.state = RECEIVING
            self.deadline = self._server.receive_until
        self._advance()

    def eof_received(self) -> bool:
        """The client sends no more: it closed, or only its half.

        A request on its way is given a moment, for clients that close their half at once. After
        that nobody waits for the answer any more, as far as anybody can know.
        """
        self._eof = True
        if self.state == ANSWERING or (self._stalled and self.state < LINGERING):
            self.deadline = self._server.moment
            return not self._server.tls  # there, no half can be closed
        if self.state == RECEIVING and self._reader.begun:
            self._break_off()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """It is over; whoever still computes for it stops."""
        self.state = CLOSED
        if self._waiting is not None:
            self._waiting.cancel()
        self._server.leave(self)

    def pause_writing(self) -> None:
        """The client does not read its answers: take no more requests of it."""
        self._stalled = True
        self.deadline = min(self.deadline, self._server.receive_until)

    def resume_writing(self) -> None:
        """It does again."""
        self._stalled = False
        if self.state == ANSWERING:
            self.deadline = self._server.moment if self._eof else _NEVER
        elif self.state < ANSWERING:
            self._go_on()

    # What the server tells

    def expire(self) -> None:
        """The deadline is over."""
        if self.state == RECEIVING and not self._stalled and self._reader.begun:
            message = f"the request did not arrive within {self._server.seconds:g} s"
            self._reject(BadRequestError(408, message))
        elif self.state == IDLE:
            self._transport.close()
            self.deadline = self._server.moment
            self.state = LINGERING
        else:
            self._transport.abort()

    def drain(self) -> None:
        """The server stops: what is running is finished, and nothing else begun."""
        if self.state == IDLE:
            self._transport.close()

    def abort(self) -> None:
        """End it now."""
        self.state = CLOSED
        self._transport.abort()

    # Requests

    def _advance(self) -> None:
        """Answer what came, until it is used up or has to wait."""
        for _ in range(_TURN):
            try:
                found = self._reader.next()
            except BadRequestError as error:
                self._reject(error)
                return
            except BodyRefusedError as refused:
                self._refuse(refused.response, refused.head)
                return
            if found is None:
                self._rest()
                return
            self._answer(*found)
            if self.state >= ANSWERING or self._stalled:
                return
        # Others have their turn.
        self.state = ANSWERING
        self._server.loop.call_soon(self._go_on_from, ANSWERING)

    def _rest(self) -> None:
        """Wait for more to come."""
        if self._eof:
            if self._reader.begun:
                self._break_off()
            else:
                self._finish()
        elif not self._reader.begun:
            if self._server.draining:
                self._finish()
            else:
                self.state = IDLE
                self.deadline = self._server.idle_until

    def _go_on_from(self, state: int) -> None:
        if self.state == state:
            self.state = RECEIVING
            self.deadline = self._server.receive_until
            self._go_on()

    def _go_on(self) -> None:
        """Take further requests."""
        if self._stalled or self.state >= ANSWERING:
            return
        self._advance()
        if self._paused and self._reader.unread <= _MAX_AHEAD and self.state < LINGERING:
            self._paused = False
            self._transport.resume_reading()

    def _begin(self, head: Head, anything: bool) -> None:
        """Decide about a body before it is read."""
        size = head.length if head.length >= 0 else None
        response = self._server.app.before_body(_request(head), size)
        if response is not None:
            raise BodyRefusedError(response, head)
        if head.expects and not anything:
            self._transport.write(CONTINUE)

    def _too_large(self, head: Head) -> Response:
        return self._server.app.too_large(_request(head), None)

    def _answer(self, head: Head, body: bytes) -> None:
        answering = self._handle(Request(head.method, head.path, head.headers, body, head.query))
        if type(answering) is not CoroutineType:
            answering = _awaited(answering)
        try:
            waits = answering.send(None)
        except StopIteration as done:
            self._respond(head, done.value)
        except Exception as error:
            self._respond(head, self._defect(head, error))
        else:
            self.state = ANSWERING
            self.deadline = self._server.moment if self._eof else _NEVER
            self._head = head
            self._waiting = Waiting(answering, waits, self._answered)

    def _answered(self, result: Response | BaseException) -> None:
        """The request that waited has its answer."""
        head = self._head
        self._head = self._waiting = None
        if self.state != ANSWERING or head is None:
            return
        if isinstance(result, asyncio.CancelledError):
            self._transport.abort()
            return
        if isinstance(result, BaseException):
            result = self._defect(head, result)
        self._respond(head, result)
        self._go_on_from(ANSWERING)

    # Answers

    def _respond(self, head: Head, response: Response) -> None:
        close = not head.keep_alive or self._server.draining
        extra = _CLOSE if close else _KEEP if head.old else b""
        self._write(response, extra, to_head=head.method == "HEAD")
        if close:
            self._finish()

    def _write(self, response: Response, extra: bytes, *, to_head: bool = False) -> None:
        pieces = self._server.answers.write(response, extra, to_head=to_head)
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            self._transport.writelines(pieces)

    def _reject(self, error: BadRequestError) -> None:
        """Answer what is no request, and end: nothing behind it can be understood."""
        self._refuse(refuse_plainly(self._server.app, error.status, error.message))

    def _break_off(self) -> None:
        """Answer a request that came in part only."""
        head = self._reader.head
        if head is None:
            self._reject(BadRequestError(400, "the request broke off in its head"))
        else:
            error = InputError("the request broke off in its body")
            self._refuse(self._server.app.refuse(_request(head), error), head)

    def _refuse(self, response: Response, head: Head | None = None) -> None:
        """Answer, and let the client read that, although not all of it was read."""
        self._write(response, _CLOSE, to_head=head is not None and head.method == "HEAD")
        if self._eof:
            self._finish()
            return
        self.state = LINGERING
        self.deadline = self._server.moment
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _finish(self) -> None:
        """Everything is answered."""
        self.state = LINGERING
        self.deadline = self._server.receive_until
        self._transport.close()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > _MAX_DISCARDED and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _defect(self, head: Head, error: BaseException) -> Response:
        _log.error("defect while answering %r", head.path, exc_info=error)
        return refuse_plainly(self._server.app, 500, "internal error; the log has the cause")


def _request(head: Head) -> Request:
    return Request(head.method, head.path, head.headers, b"", head.query)


async def _awaited(answering: Awaitable[Response]) -> Response:
    return await answering
