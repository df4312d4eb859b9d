"""The one table from errors to HTTP statuses."""

from __future__ import annotations

from typing import Final

from modelport.core.errors import (
    ConflictError,
    EngineError,
    InputError,
    LimitError,
    ModelportError,
    NotFoundError,
    RefusedError,
    UnavailableError,
    UnsupportedError,
)

#: First match wins, so subclasses stand before their bases.
_STATUSES: Final = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (LimitError, 413),
    (UnsupportedError, 501),
    (InputError, 400),
    (RefusedError, 503),
    (UnavailableError, 503),
    (EngineError, 500),
)


def status_of(error: ModelportError) -> int:
    """The HTTP status that says what kind of error this is."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
