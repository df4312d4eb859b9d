"""Compressed bodies, both ways, and never more than the limit of an uncompressed one.

Content codings as RFC 9110 §8.4 names them; each is an adapter of kind ``coding``.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import Final, Protocol

from modelport.adapters import adapters_of
from modelport.core.errors import InputError, MediaTypeError
from modelport.serve.base import Response

#: Codings within codings; each is decompressed for itself.
_MOST_CODINGS: Final = 2


class Coding(Protocol):
    """What a coding adapter does."""

    #: As headers name it; the first is the one that we say.
    names: tuple[str, ...]

    def decode(self, body: bytes, limit: int) -> bytes:
        """Decompress a whole body.

        Parameters
        ----------
        body : bytes
            Not empty.
        limit : int
            Most bytes of the result; reading stops there, however small the body is.

        Raises
        ------
        ValueError, EOFError, zlib.error
            When the body is damaged or cut off.
        LimitError
        """
        ...

    def encode(self, body: bytes) -> bytes:
        """Compress a whole body."""
        ...


def decompress(body: bytes, coding: str, limit: int) -> bytes:
    """The body that a client compressed.

    Parameters
    ----------
    body : bytes
        An empty one stays empty.
    coding : str
        The header ``Content-Encoding``.
    limit : int
        Most bytes of the result, and of every one between.

    Raises
    ------
    MediaTypeError
        For a coding that is not known here.
    InputError
        When the body is damaged or cut off.
    LimitError
    """
    names = [part.strip().lower() for part in coding.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > _MOST_CODINGS:
        raise MediaTypeError(f"body has {len(names)} codings, one within another")
    for name in reversed(names):
        adapter = _codings().get(name)
        if adapter is None:
            known = ", ".join(_codings())
            raise MediaTypeError(f"Content-Encoding is {name[:40]!r}; known here: {known}")
        try:
            body = adapter.decode(body, limit) if body else body
        except (zlib.error, EOFError, ValueError) as error:
            raise InputError(f"body is not {name}: {error}") from error
    return body


def compress(response: Response, accepted: str) -> Response:
    """Compress an answer as the client likes best, and among equals as we do.

    Parameters
    ----------
    response : Response
        One that has a coding already stays as it is.
    accepted : str
        The header ``Accept-Encoding`` (RFC 9110 §12.5.3).
    """
    coding = _chosen(accepted)
    if coding is None or any(name == "content-encoding" for name, _ in response.headers):
        return response
    headers = (
        *response.headers,
        ("content-encoding", coding.names[0]),
        ("vary", "accept-encoding"),
    )
    return Response(response.status, coding.encode(response.body), headers)


@cache
def _codings() -> dict[str, Coding]:
    """By every name, in table order: our preference; those whose packages are installed."""
    found: dict[str, Coding] = {}
    for record in adapters_of("coding"):
        if not record.missing():
            adapter: Coding = record.load()
            found.update(dict.fromkeys(adapter.names, adapter))
    return found


def _chosen(header: str) -> Coding | None:
    """The coding of the highest weight; None for none at all."""
    weights = _weights(header)
    others = weights.get("*", 0.0)
    best, best_weight = None, 0.0
    for coding in dict.fromkeys(_codings().values()):
        named = [weights[name] for name in coding.names if name in weights]
        weight = max(named) if named else others
        if weight > best_weight:
            best, best_weight = coding, weight
    # No coding at all is acceptable unless it is ruled out, but nobody prefers it silently.
    return best if best_weight >= weights.get("identity", 0.0) else None


def _weights(header: str) -> dict[str, float]:
    """Codings of an ``Accept-Encoding`` header with their weights, from 0 to 1."""
    weights = {}
    for part in header.lower().split(","):
        name, _, parameter = part.partition(";")
        key, _, value = parameter.partition("=")
        weight = 1.0
        if key.strip() == "q":
            try:
                weight = float(value.strip())
            except ValueError:
                continue
        if 0.0 <= weight <= 1.0:  # neither NaN nor nonsense
            weights[name.strip()] = weight
    return weights
