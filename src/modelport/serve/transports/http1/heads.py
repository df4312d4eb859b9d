"""The head of a request: llhttp reads it, and what is left open by that is decided here.

Reading a head is a pure function of its bytes, and clients on a connection send the same ones
again and again: what was read is remembered by them, whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import httptools

#: Bytes of the request line and all headers.
MAX_HEAD: Final = 64 * 1024
_MAX_HEADERS: Final = 100
#: Longer heads are not remembered, and no more than so many.
_SHORT: Final = 2048
_REMEMBERED: Final = 512
#: Digits of a length that fits into 63 bits.
_MAX_DIGITS: Final = 18


class BadRequestError(Exception):
    """What came is no request that may be answered; the connection ends.

    Parameters
    ----------
    status : int
    message : str
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(slots=True)  # frozen ones take three times as long to make
class Head:
    """What the head of a request says; nobody changes it, as several requests may share it.

    Parameters
    ----------
    method : str
    path : str
        Percent-decoded once.
    query : str
        As it came.
    headers : dict of str to str
        By lower-case name; shared by all requests with this head, so nobody writes to it.
    length : int
        Bytes of the body; -1: it comes in chunks.
    keep_alive : bool
        The client wants to go on.
    old : bool
        It speaks HTTP/1.0.
    expects : bool
        It waits for ``100 Continue`` before it sends the body.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    length: int
    keep_alive: bool
    old: bool
    expects: bool


class Heads:
    """Reads heads, and remembers them."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def read(self, data: bytes) -> Head:
        """Read one head.

        Parameters
        ----------
        data : bytes
            From the request line up to the empty line, both included.

        Raises
        ------
        BadRequestError
        """
        head = self._known.get(data)
        if head is None:
            head = _read(data)
            if len(data) <= _SHORT:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[data] = head
        return head


class Probe:
    """Looks at a head that comes in pieces, so that nonsense is not waited for."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    def look(self, piece: bytes) -> None:
        """Look at the next piece.

        Raises
        ------
        BadRequestError
        """
        _feed(self._parser, piece)


class _Parts:
    """What llhttp finds."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.keep_alive = False
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))  # RFC 9110 §5.5

    def on_headers_complete(self) -> None:
        self.complete = True
        self.keep_alive = self.parser.should_keep_alive()


def _feed(parser: httptools.HttpRequestParser, data: bytes) -> None:
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # nothing here changes its protocol; RFC 9110 §7.8 lets a server ignore the wish
    except httptools.HttpParserError as error:
        raise BadRequestError(400, f"this is no HTTP/1.1 request: {error}") from None


def _read(data: bytes) -> Head:
    parts = _Parts()
    _feed(parts.parser, data)
    if not parts.complete:
        raise BadRequestError(400, "this is no HTTP/1.1 request: its head does not end")
    version = parts.parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise BadRequestError(400, f"HTTP/{version} is not spoken here, but HTTP/1.1")
    if b"\r\n " in data or b"\r\n\t" in data:  # RFC 9112 §5.2 has folded lines refused
        raise BadRequestError(400, "a header is folded into several lines")
    if len(parts.headers) > _MAX_HEADERS:
        raise BadRequestError(431, f"{len(parts.headers)} headers, the limit is {_MAX_HEADERS}")
    method = parts.parser.get_method().decode("ascii")
    path, query = _split(parts.target, method)
    old = version == "1.0"
    length = _length(parts.headers, old=old)
    if [name for name, _ in parts.headers].count(b"host") != 1 and not old:
        raise BadRequestError(400, "there must be one Host header")  # RFC 9112 §3.2
    headers = _by_name(parts.headers)
    return Head(
        method=method,
        path=path,
        query=query,
        headers=headers,
        length=length,
        keep_alive=parts.keep_alive,
        old=old,
        expects=_expects(headers.get("expect", ""), old=old),
    )


def _split(target: bytes, method: str) -> tuple[str, str]:
    """The path, decoded, and the query of a request target (RFC 9112 §3.2)."""
    try:
        text = target.decode("ascii")
    except UnicodeDecodeError:
        raise BadRequestError(400, "the path has bytes that must be percent-encoded") from None
    if method == "CONNECT":
        raise BadRequestError(400, "this is no proxy")
    if not text.startswith("/") and text != "*":
        scheme, separator, rest = text.partition("://")
        if not separator or scheme.lower() not in ("http", "https"):
            raise BadRequestError(400, "the path must begin with /")
        at = min(found for found in (rest.find("/"), rest.find("?"), len(rest)) if found >= 0)
        text = rest[at:] if rest[at : at + 1] == "/" else f"/{rest[at:]}"
    path, _, query = text.partition("#")[0].partition("?")
    return unquote(path), query


def _length(headers: list[tuple[bytes, bytes]], *, old: bool) -> int:
    """Bytes of the body, -1 for chunks; anything that two readers may read in two ways is refused.

    llhttp refuses most of it itself. RFC 9112 §6.1 to §6.3 has the rules, and §11.2 why.
    """
    lengths = [value for name, value in headers if name == b"content-length"]
    encodings = [value for name, value in headers if name == b"transfer-encoding"]
    if encodings:
        if lengths:
            raise BadRequestError(400, "both Content-Length and Transfer-Encoding")
        if old:
            raise BadRequestError(400, "Transfer-Encoding in HTTP/1.0")
        if len(encodings) > 1 or encodings[0].strip(b" \t").lower() != b"chunked":
            raise BadRequestError(400, "the only Transfer-Encoding here is chunked")
        return -1
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _MAX_DIGITS:
        raise BadRequestError(400, "Content-Length must be one number")
    return int(lengths[0])


def _expects(value: str, *, old: bool) -> bool:
    if not value or old:  # RFC 9110 §10.1.1
        return False
    if value.strip().lower() != "100-continue":
        raise BadRequestError(417, "the only Expect here is 100-continue")
    return True


def _by_name(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Lines of one name are one list (RFC 9110 §5.3)."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.decode("ascii")
        text = value.decode("utf-8", "backslashreplace")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found
