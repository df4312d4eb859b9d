"""Requests out of a stream of bytes; nothing here knows a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from modelport.serve.base import Response
from modelport.serve.transports.http1.chunks import ChunkedBody
from modelport.serve.transports.http1.heads import MAX_HEAD, BadRequestError, Head, Heads, Probe

_END: Final = b"\r\n\r\n"


class BodyRefusedError(Exception):
    """The body of a request is not to be read.

    Parameters
    ----------
    response : Response
    head : Head
    """

    def __init__(self, response: Response, head: Head) -> None:
        super().__init__(response.status)
        self.response = response
        self.head = head


class Reader:
    """Takes bytes as they come, and gives whole requests.

    Parameters
    ----------
    heads : Heads
    small : int
        Bodies up to so many bytes that have come already are taken without a question.
    limit : int
        Most bytes of a body.
    begin : callable
        Told the head of every other body, and whether some of it has come; it may raise
        `BodyRefusedError`.
    too_large : callable
        The answer to a body in chunks over the limit.
    """

    __slots__ = (
        "_ahead", "_at", "_begin", "_body", "_data", "_heads", "_limit", "_looked", "_missing",
        "_probe", "_small", "_too_large", "head", "unread",
    )  # fmt: skip

    def __init__(
        self,
        heads: Heads,
        small: int,
        limit: int,
        begin: Callable[[Head, bool], None],
        too_large: Callable[[Head], Response],
    ) -> None:
        self._heads = heads
        self._small = small
        self._limit = limit
        self._begin = begin
        self._too_large = too_large
        #: What came and is not used up: the rest of `_data` from `_at`, then the rest.
        self._data = b""
        self._at = 0
        self._ahead: list[bytes] = []
        #: Bytes of `_ahead`.
        self.unread = 0
        #: How far the beginning of a head was looked at, and by whom.
        self._looked = 0
        self._probe: Probe | None = None
        #: The request whose body is being read.
        self.head: Head | None = None
        self._body: ChunkedBody | bytearray = bytearray()
        self._missing = 0

    @property
    def begun(self) -> bool:
        """Whether there is a part of a request."""
        return self.head is not None or self._at < len(self._data) or bool(self._ahead)

    def feed(self, data: bytes) -> None:
        """Take what came."""
        if self._at == len(self._data) and not self._ahead:
            self._data = data
            self._at = 0
        else:
            self._ahead.append(data)
            self.unread += len(data)

    def next(self) -> tuple[Head, bytes] | None:
        """The next whole request and its body, or None: more has to come.

        Raises
        ------
        BadRequestError
            Nothing that follows can be understood.
        BodyRefusedError
        """
        if self._ahead:
            self._data = b"".join([self._data[self._at :], *self._ahead])
            self._at = self.unread = 0
            self._ahead.clear()
        if self.head is not None:
            return self._read_body(self.head)
        data, at = self._data, self._at
        while data.startswith(b"\r\n", at):  # RFC 9112 §2.2 has empty lines skipped
            at += 2
            self._looked = 0
            self._probe = None
        end = data.find(_END, max(at, self._looked - len(_END) + 1))
        if end < 0:
            self._look(data, at)
            return None
        end += len(_END)
        if end - at > MAX_HEAD:
            raise _HEAD_TOO_LARGE
        head = self._heads.read(data[at:end])
        self._looked = 0
        self._probe = None
        stop = end + head.length
        if 0 <= head.length <= self._small and stop <= len(data):
            self._at = stop
            return head, data[end:stop]
        self._at = end
        self._begin(head, end < len(data))
        self.head = head
        self._missing = head.length
        self._body = bytearray() if head.length >= 0 else ChunkedBody(self._limit)
        return self._read_body(head)

    def _look(self, data: bytes, at: int) -> None:
        """Refuse what cannot become a head, and keep what can."""
        self._data = data[at:]
        self._at = 0
        if not self._data:
            return
        if len(self._data) > MAX_HEAD:
            raise _HEAD_TOO_LARGE
        if self._probe is None:
            self._probe = Probe()
            self._looked = 0
        self._probe.look(self._data[self._looked :])
        self._looked = len(self._data)

    def _read_body(self, head: Head) -> tuple[Head, bytes] | None:
        body = self._body
        if isinstance(body, ChunkedBody):
            self._at = body.feed(self._data, self._at)
            if body.too_large:
                raise BodyRefusedError(self._too_large(head), head)
            if not body.done:
                return None
            whole = bytes(body.body)
        else:
            stop = self._at + self._missing
            piece = self._data[self._at : stop]
            self._at += len(piece)
            self._missing -= len(piece)
            body += piece
            if self._missing:
                return None
            whole = bytes(body)
        self.head = None
        self._body = bytearray()
        return head, whole


_HEAD_TOO_LARGE: Final = BadRequestError(
    431, f"the head of the request has more than {MAX_HEAD} bytes"
)
