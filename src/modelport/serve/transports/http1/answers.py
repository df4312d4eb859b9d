"""Heads of answers, as bytes."""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from modelport.serve.base import Headers, Response

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_REMEMBERED: Final = 1024
#: RFC 9110 §5.5; a line break would end the header, and let a value forge the next.
_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: Above this, a body is not copied once more to stand behind its head.
_LARGE: Final = 32 * 1024

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answers:
    """Writes answers; what they have in common is remembered for a second, as the date is."""

    def __init__(self) -> None:
        self._starts: dict[tuple[int, Headers], bytes] = {}
        self._date = b""
        self.refresh()

    def refresh(self) -> None:
        """Take the time; to be called every second."""
        self._date = formatdate(time.time(), usegmt=True).encode()
        self._starts.clear()

    def write(
        self, response: Response, extra: bytes = b"", *, to_head: bool = False
    ) -> list[bytes]:
        """The bytes of an answer, in pieces.

        Parameters
        ----------
        response : Response
        extra : bytes
            Further headers, each with its line end.
        to_head : bool
            It answers HEAD, and has no body.
        """
        key = (response.status, response.headers)
        try:
            start = self._starts.get(key)
        except TypeError:  # a list, say
            key = (response.status, tuple(response.headers))
            start = self._starts.get(key)
        if start is None:
            start = self._begin(*key)
        body = response.body
        if to_head or response.status in (204, 304):
            # Only the length of what GET would bring may be said, and here it may be unknown.
            size = b"content-length: %d\r\n" % len(body) if to_head and body else b""
            return [b"%b%b%b\r\n" % (start, extra, size)]
        if len(body) > _LARGE:
            return [b"%b%bcontent-length: %d\r\n\r\n" % (start, extra, len(body)), body]
        return [b"%b%bcontent-length: %d\r\n\r\n%b" % (start, extra, len(body), body)]

    def _begin(self, status: int, headers: Headers) -> bytes:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}", f"date: {self._date.decode()}"]
        for name, value in headers:
            if _FORBIDDEN.search(name) or _FORBIDDEN.search(value):
                raise ValueError(f"header {name!r} has a control character")
            lines.append(f"{name}: {value}")
        start = "".join(f"{line}\r\n" for line in lines).encode()
        if len(self._starts) >= _REMEMBERED:
            self._starts.clear()
        self._starts[(status, headers)] = start
        return start
