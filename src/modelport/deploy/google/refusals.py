"""What Google's clients raise, as our errors with Google's own words.

Only the applier imports this: it needs the SDK.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.api_core import exceptions as refusals
from google.auth import exceptions as logins

from modelport.core.errors import ConflictError, ModelportError, NotFoundError, PlatformError
from modelport.deploy.base import Call
from modelport.deploy.google.place import ACCOUNTS

LOGIN: Final = (
    "log in with: gcloud auth application-default login, or let GOOGLE_APPLICATION_CREDENTIALS "
    "name a key file (Application Default Credentials)"
)
_CONFLICT, _MISSING = 409, 404


def asking(call: Call, ask: Callable[[], Any]) -> Any:
    """What `ask` answers; what it raises as ours.

    Raises
    ------
    ConflictError, NotFoundError, PlatformError
        See `modelport.deploy.base.Connection.call`.
    """
    try:
        return ask()
    except refusals.GoogleAPICallError as error:
        raise translate(call, error) from error
    except logins.TransportError as error:
        raise PlatformError(f"{call.purpose}: Google Cloud cannot be reached: {error}") from error
    except logins.GoogleAuthError as error:
        raise PlatformError(f"Google Cloud took no credentials: {error}", hint=LOGIN) from error
    except (refusals.RetryError, OSError) as error:
        raise PlatformError(f"{call.purpose}: Google Cloud cannot be reached: {error}") from error


def translate(call: Call, error: refusals.GoogleAPICallError) -> ModelportError:
    """Our error for Google's, with its words."""
    words = f"{call.service}.{call.operation}: {type(error).__name__}: {error.message}"
    if isinstance(error, refusals.AlreadyExists) or (
        call.service == ACCOUNTS and error.code == _CONFLICT
    ):
        return ConflictError(words)
    if error.code == _MISSING:
        missing = NotFoundError("what Google Cloud was asked for", words)
        missing.without_known()
        return missing
    return PlatformError(words, hint=_hint(call, error))


def _hint(call: Call, error: refusals.GoogleAPICallError) -> str:
    if isinstance(error, refusals.Unauthenticated):
        return LOGIN
    if error.reason == "SERVICE_DISABLED":
        name = (error.metadata or {}).get("service", "the API that it names")
        return f"gcloud services enable {name}"
    if isinstance(error, refusals.Forbidden):
        return f"needed: {', '.join(call.rights)}" if call.rights else ""
    if isinstance(error, refusals.TooManyRequests):
        return "a quota is used up: ask for more in the console, under IAM & Admin, Quotas"
    if isinstance(error, refusals.Aborted):
        return "somebody else changed it at the same time: try again"
    return ""
