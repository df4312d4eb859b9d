"""Addresses as people type them."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from modelport.core.errors import InputError

#: Stays as it is in paths and queries; all else, spaces and letters beyond ASCII, is encoded.
_SAFE: Final = "/:@!$&'()*+,;=~?%[]"
_FORM: Final = "http://host:port/…"


def read_address(url: str) -> SplitResult:
    """The parts of an address, of any scheme, as they can be sent.

    Raises
    ------
    InputError
        When it is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise InputError(f"not an address: {url!r} ({error})", hint=_FORM) from error
    if port == 0:
        raise InputError(f"not an address: {url!r} (there is no port 0)", hint=_FORM)
    return parts._replace(path=quote(parts.path, _SAFE), query=quote(parts.query, _SAFE))


def read_server(url: str) -> SplitResult:
    """The parts of a web server's address.

    Raises
    ------
    InputError
        When it is none, or holds a password.
    """
    parts = read_address(url)
    if parts.username or parts.password:
        raise InputError(
            "the address holds a password, which others may see",
            hint="set MODELPORT_API_KEY instead",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"not the address of a server: {url!r}", hint=_FORM)
    return parts
