"""A body in chunks (RFC 9112 §7.1), read strictly: a reader that is lenient can be deceived."""

from __future__ import annotations

import re
from typing import Final

from modelport.serve.transports.http1.heads import BadRequestError

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})((?:;[\t\x20-\x7e\x80-\xff]*)?)")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_MAX_LINE: Final = 4096
#: Bytes of all extensions and trailers, of which nothing is used.
_MAX_EXTRAS: Final = 16 * 1024


class ChunkedBody:
    """Puts a body together.

    Parameters
    ----------
    limit : int
        Most bytes of it.
    """

    __slots__ = ("_expected", "_extras", "_left", "_limit", "_line", "body", "done", "too_large")

    def __init__(self, limit: int) -> None:
        self.body = bytearray()
        #: It is whole.
        self.done = False
        #: It is over the limit; what came beyond was not kept.
        self.too_large = False
        self._limit = limit
        self._left = 0
        self._line = b""
        #: What the next line is: a ``size``, the ``end`` of a chunk, a ``trailer``.
        self._expected = "size"
        self._extras = 0

    def feed(self, data: bytes, at: int) -> int:
        """Read on.

        Parameters
        ----------
        data : bytes
        at : int
            Where in it.

        Returns
        -------
        int
            Where reading stopped: its end, unless the body is `done` or `too_large`.

        Raises
        ------
        BadRequestError
        """
        size = len(data)
        while at < size and not (self.done or self.too_large):
            if self._left:
                taken = min(self._left, size - at)
                self.body += data[at : at + taken]
                self._left -= taken
                at += taken
            else:
                end = data.find(b"\n", at, at + _MAX_LINE)
                stop = end + 1 if end >= 0 else min(size, at + _MAX_LINE)
                self._line += data[at:stop]
                at = stop
                if len(self._line) > _MAX_LINE:
                    raise BadRequestError(400, "a line between the chunks of the body is too long")
                if end >= 0:
                    line, self._line = self._line, b""
                    self._read_line(line)
        return at

    def _read_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise BadRequestError(400, "a line between the chunks of the body does not end in CRLF")
        line = line[:-2]
        if self._expected == "size":
            self._begin_chunk(line)
        elif self._expected == "end":
            if line:
                raise BadRequestError(400, "a chunk of the body is longer than its size")
            self._expected = "size"
        elif not line:
            self.done = True
        else:
            self._count_extras(line)
            if not _TRAILER.fullmatch(line):
                raise BadRequestError(400, "a trailer of the body is malformed")

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise BadRequestError(400, "a chunk of the body has no size")
        self._count_extras(match[2])
        self._left = int(match[1], 16)
        self.too_large = len(self.body) + self._left > self._limit
        self._expected = "end" if self._left else "trailer"

    def _count_extras(self, extra: bytes) -> None:
        self._extras += len(extra)
        if self._extras > _MAX_EXTRAS:
            raise BadRequestError(400, "the chunks of the body have too many extensions")
