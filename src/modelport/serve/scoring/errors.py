"""MLflow's shape of an error.

``{"error_code": …, "message": …}``, and ``error``, where clients of the other scoring protocols
look. Source of the codes: ``mlflow``, ``protos/databricks.proto``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from modelport.core.errors import ModelportError, SignatureError
from modelport.serve.base import JSON_HEADERS, Response
from modelport.serve.json_codec import dumps
from modelport.serve.statuses import status_of

_CODES: Final = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_ALREADY_EXISTS",
    413: "REQUEST_LIMIT_EXCEEDED",
    429: "REQUEST_LIMIT_EXCEEDED",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "RESOURCE_EXHAUSTED",
}


def error(error: ModelportError, status: int | None = None) -> Response:
    """Answer an error.

    Parameters
    ----------
    error : ModelportError
    status : int, optional
        Unless it is the usual one of `modelport.serve.statuses`.
    """
    status = status or status_of(error)
    text = error.line
    if isinstance(error, SignatureError) and status == 400:
        code = "INVALID_PARAMETER_VALUE"
    else:
        code = _CODES.get(status, "INTERNAL_ERROR" if status >= 500 else "BAD_REQUEST")
    return Response(status, dumps({"error_code": code, "message": text, "error": text}))


def wrong_method(methods: Sequence[str]) -> Response:
    """Answer a path that takes only other `methods`."""
    text = "Method Not Allowed"
    body = dumps({"error_code": "BAD_REQUEST", "message": text, "error": text})
    return Response(405, body, (*JSON_HEADERS, ("allow", ", ".join(methods))))
