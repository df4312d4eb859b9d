"""What the API server refuses, as one of our errors, in its own words.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from modelport.core.errors import ModelportError, NotFoundError, PlatformError

_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
#: Too many requests, and all that a load balancer says while an API server starts again.
_PASSING: Final = (429, 500, 502, 503, 504)
_HINTS: Final = {
    401: "log in to the cluster, or choose another one with --set context=…",
    403: "deployer-role.yaml, written by --out, lists the rights that are needed",
    409: "another tool manages these fields; --set take-over=true changes them all the same",
}
_HANDSHAKE: Final = re.compile(r"Handshake status (\d{3})")


class PassingError(PlatformError):
    """What may well be over in a moment: a wait asks again."""


def refusal(status: int, body: str, reason: str, method: str, kind: str, name: str) -> Exception:
    """The error for an answer that is no success.

    Parameters
    ----------
    status : int
        Of HTTP.
    body : str
        A Status object, or whatever a proxy before the API server says.
    reason : str
        What the client says, where the body says nothing.
    method : str
        ``get``, ``patch`` …
    kind, name : str
        What was asked for; without a name: a list.
    """
    found = _status(body)
    message = str(found.get("message") or reason or f"status {status}")
    details = found.get("details") or {}
    if status == _NOT_FOUND:
        return _not_found(message, details, method, kind, name)
    if status in _PASSING:
        return PassingError(f"{message} (status {status})")
    causes = [f"{c.get('field')}: {c.get('message')}" for c in details.get("causes") or ()]
    if status == _CONFLICT and causes:
        message += " (" + "; ".join(causes) + ")"
    hint = _HINTS.get(status, "") if status != _CONFLICT or causes else ""
    return PlatformError(f"{message} (status {status})", hint=hint)


def unreachable(host: str, error: Exception) -> PassingError:
    """The error for a server that gave no answer."""
    return PassingError(
        f"the API server {host} cannot be reached: {error}",
        hint="is the cluster up, and is this its address? kubectl cluster-info",
    )


def forward_refusal(said: str, pod: str) -> PlatformError:
    """The error for a port forward that was not opened; the client tells it as one line of text."""
    match = _HANDSHAKE.search(said)
    status = int(match[1]) if match else 0
    short = f"status {status}" if status else said[:300]
    return PlatformError(
        f"no port of pod {pod} can be forwarded: {short}", hint=_HINTS.get(status, "")
    )


def _status(body: str) -> Mapping[str, Any]:
    try:
        found = json.loads(body or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _not_found(
    message: str, details: Mapping[str, Any], method: str, kind: str, name: str
) -> ModelportError:
    if method in ("get", "delete") and details.get("name", name) == name:
        return NotFoundError(kind, name)  # nor is there one where the cluster lacks the kind
    if not details.get("name"):
        return PlatformError(message, hint=f"does this cluster know {kind}? kubectl api-resources")
    return PlatformError(message, hint=f"kubectl create namespace {details['name']}")
