"""The one gate before every route of every protocol and transport.

A client shows its key as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY`` (gRPC: as metadata
of the same names). Keys are kept and compared as digests, in constant time.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path
from typing import Final

from modelport.core.errors import InputError, NotFoundError, UnauthenticatedError
from modelport.core.options import ServeOptions
from modelport.serve.base import HeaderLookup, Response

#: Shorter keys can be guessed.
_SHORTEST_KEY: Final = 16

_BEARER: Final = "bearer "


class Guard:
    """Decides who may ask.

    Parameters
    ----------
    keys : sequence of str
        Any one of them opens. None at all: everybody may ask.
    guard_health : bool
        Health routes need a key, too.
    """

    def __init__(self, keys: list[str], *, guard_health: bool = False) -> None:
        self._digests = [sha256(key.encode()).digest() for key in keys]
        self.guard_health = guard_health

    @classmethod
    def of(cls, options: ServeOptions) -> Guard:
        """The guard that the options ask for.

        Raises
        ------
        InputError
            When a key is too short, or the file cannot be read; no message shows a key.
        """
        keys = [options.api_key.strip()] if options.api_key.strip() else []
        _check_lengths(keys, "MODELPORT_API_KEY")
        if options.api_key_file:
            keys += _read_keys(Path(options.api_key_file).expanduser())
        return cls(keys, guard_health=options.guard_health)

    @property
    def closed(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._digests)

    def check(self, headers: HeaderLookup) -> None:
        """Let the request pass, or not.

        Raises
        ------
        UnauthenticatedError
        """
        if self._digests and not any(self._known(key) for key in _shown(headers)):
            raise UnauthenticatedError(
                "no valid API key; send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            )

    def _known(self, key: str) -> bool:
        digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
        # All are compared, so that time does not tell which one it was.
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def challenge(response: Response) -> Response:
    """Say in a 401 how to authenticate, as RFC 9110 asks."""
    response.headers = (*response.headers, ("www-authenticate", "Bearer"))
    return response


def _shown(headers: HeaderLookup) -> list[str]:
    """Both, where both are there: a platform in front may use ``Authorization`` for its own."""
    shown = []
    authorization = headers.get("authorization") or ""
    if authorization[: len(_BEARER)].lower() == _BEARER:
        shown.append(str(authorization[len(_BEARER) :].strip()))
    if key := headers.get("x-api-key"):
        shown.append(str(key))
    return shown


def _read_keys(path: Path) -> list[str]:
    try:
        # A byte order mark is no part of a key.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise NotFoundError("API key file", str(path)) from error
    except (OSError, ValueError) as error:  # also what is not UTF-8
        raise InputError(f"cannot read the API key file: {error}", where=str(path)) from error
    stripped = [line.strip() for line in lines]
    keys = [line for line in stripped if line and not line.startswith("#")]
    if not keys:
        raise InputError("the API key file holds no key", where=str(path))
    _check_lengths(keys, str(path))
    return keys


def _check_lengths(keys: list[str], where: str) -> None:
    for number, key in enumerate(keys, start=1):
        if len(key) < _SHORTEST_KEY:
            raise InputError(
                f"key {number} has {len(key)} characters, at least {_SHORTEST_KEY} are needed",
                where=where,
                hint="make one with: openssl rand -hex 32",
            )
