"""The one table from errors to HTTP statuses, and from those to gRPC's codes."""

from __future__ import annotations

from typing import Final

from modelport.core.errors import (
    ConflictError,
    DeadlineError,
    EngineError,
    ExhaustedError,
    InputError,
    LimitError,
    MediaTypeError,
    ModelportError,
    NotAcceptableError,
    NotFoundError,
    RefusedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

#: First match wins, so subclasses stand before their bases.
_STATUSES: Final = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (LimitError, 413),
    (MediaTypeError, 415),
    (NotAcceptableError, 406),
    (UnsupportedError, 501),
    (UnauthenticatedError, 401),
    (InputError, 400),
    (RefusedError, 503),
    (DeadlineError, 504),
    (ExhaustedError, 507),
    (UnavailableError, 503),
    (EngineError, 500),
)

#: HTTP status → gRPC status code, by ``grpc.StatusCode``'s names.
_GRPC_CODES: Final = {
    200: "OK",
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    406: "INVALID_ARGUMENT",
    409: "ALREADY_EXISTS",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "RESOURCE_EXHAUSTED",
}


def status_of(error: ModelportError) -> int:
    """The HTTP status that says what kind of error this is."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def grpc_code(status: int) -> str:
    """The name of the gRPC status code that says what an HTTP status says."""
    return _GRPC_CODES.get(status, "INTERNAL")
