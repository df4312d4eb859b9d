"""What Azure's SDKs raise, as our errors with Azure's own words; imports none of them.

Source: "Resource Manager error codes" and ``azure.core.exceptions``: every management API answers
``{"error": {"code", "message", "details": [{"code", "message"}…]}}``, and what really happened is
in the innermost details.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from modelport.core.errors import ModelportError, NotFoundError, PlatformError

LOGIN: Final = "az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and a credential of that client"

_FORBIDDEN: Final = 403
_MISSING: Final = 404

#: What to do about codes that say only what Azure could not do.
_HINTS: Final = {
    "SubscriptionNotRegistered": "az provider register --namespace with the provider it names",
    "MissingSubscriptionRegistration": "az provider register --namespace with the one it names",
    "OutOfQuota": "ask for quota in the Azure portal, or --set instance-type=… of another family",
    "OutOfCapacity": "--set instance-type=… of another family, or another region",
    "ImageBuildFailure": "the identity of the endpoint needs AcrPull on the image's registry",
    "RequestDisallowedByPolicy": "a policy of the subscription forbids it; its name is in the text",
}


def translate(error: Exception, where: str, rights: Sequence[str] = ()) -> ModelportError:
    """An error of an SDK as ours.

    A 409 is no `ConflictError`: Azure's ``PUT`` creates or updates, so it says that another
    operation runs, and never that the thing exists. Appliers look before they create.

    Parameters
    ----------
    error : Exception
    where : str
        The operation.
    rights : sequence of str
        What the caller needs for it.
    """
    status = getattr(error, "status_code", None)
    code, words = _said(error)
    if status == _MISSING and code in ("", "ResourceNotFound", "NotFound", "UserError"):
        missing = NotFoundError("resource", words, where=where)
        missing.without_known()
        return missing
    if status is None and type(error).__name__ in _NO_CREDENTIALS:
        told = _credentials(str(getattr(error, "message", None) or error))
        return PlatformError(f"Azure does not know who asks: {told}", where=where, hint=LOGIN)
    hint = _HINTS.get(code, "")
    if status == _FORBIDDEN and rights:
        hint = hint or "the caller needs " + ", ".join(rights)
    text = f"{code}: {words}" if code and not words.startswith(code) else words
    return PlatformError(f"Azure refused: {text}", where=where, hint=hint)


_NO_CREDENTIALS: Final = ("CredentialUnavailableError", "ClientAuthenticationError")


def _said(error: Exception) -> tuple[str, str]:
    """The innermost code, and all messages on the way there."""
    body = getattr(error, "error", None)
    if body is None or not getattr(body, "message", None):
        return "", _line(str(getattr(error, "message", None) or error) or type(error).__name__)
    code, messages = "", []
    while body is not None:
        code = str(getattr(body, "code", "") or code)
        messages.append(_line(str(getattr(body, "message", "") or "")))
        details: Any = getattr(body, "details", None)
        body = details[0] if details else None
    return code, "; ".join(dict.fromkeys(message for message in messages if message))


def _credentials(text: str) -> str:
    """Which credentials were refused: a dozen that do not exist here are nobody's concern."""
    first, *others = [_line(line) for line in text.splitlines() if line.strip()] or [""]
    return "; ".join(
        [first.rstrip("."), *(line for line in others if any(s in line for s in _REFUSED))]
    )


_REFUSED: Final = ("AADSTS", "az login", "expired")


def _line(text: str) -> str:
    return " ".join(text.split())
