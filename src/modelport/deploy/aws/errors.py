"""What AWS says, as the errors that the stage understands.

Sources: boto3's "Error handling"; the errors in the API references of SageMaker, Lambda, IAM,
ECR, S3, CloudWatch Logs and CloudFormation.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from modelport.core.errors import ConflictError, ModelportError, NotFoundError, PlatformError
from modelport.deploy.base import Call

#: What to do without credentials, or with old ones.
LOG_IN: Final = "aws configure or aws sso login, AWS_PROFILE, or --set profile=NAME"

_CONFLICTS: Final = frozenset({
    "EntityAlreadyExists", "EntityAlreadyExistsException", "ConflictException",
    "ResourceConflictException", "RepositoryAlreadyExistsException",
    "ResourceAlreadyExistsException", "AlreadyExistsException",
})  # fmt: skip
_MISSING: Final = frozenset({
    "NoSuchEntity", "ResourceNotFoundException", "ResourceNotFound", "RepositoryNotFoundException",
    "ObjectNotFoundException", "NotFoundException", "NoSuchKey", "404",
})  # fmt: skip
#: SageMaker and CloudFormation call everything a validation error, and say in words what it is.
_VAGUE: Final = frozenset({"ValidationException", "ValidationError", "ResourceInUse"})
_CONFLICT_WORDS: Final = ("already exist", "no updates are to be performed")
_MISSING_WORDS: Final = (
    "could not find", "does not exist", "not found", "transform job is in status",
    "no scalable target found",
)  # fmt: skip

#: A role that was created a moment ago is not known everywhere yet (IAM is eventually consistent).
_ROLE_WORDS: Final = ("cannot be assumed", "could not assume role", "unable to assume")
_BUSY_WORDS: Final = ("update is in progress", "currently in the following state: pending")


class Refusal(Protocol):
    """A ``ClientError`` of botocore, which only appliers import."""

    response: Any


def translate(error: Refusal, call: Call) -> ModelportError:
    """What AWS said about a call."""
    facts = error.response.get("Error", {})
    code, text = str(facts.get("Code", "")), str(facts.get("Message", ""))
    vague = text.lower() if code in _VAGUE else ""
    where = f"{call.service}.{call.operation}"
    if passes(error) or ("in progress" in text.lower() and code in _CONFLICTS):
        return PlatformError(said(error), where=where)
    if code in _CONFLICTS or any(words in vague for words in _CONFLICT_WORDS):
        return ConflictError(said(error), where=where)
    if code in _MISSING or any(words in vague for words in _MISSING_WORDS):
        missing = NotFoundError("thing", call.purpose, where=where)
        missing.message = f"{said(error)} (asked to: {call.purpose})"
        return missing
    hint = ""
    if "AccessDenied" in code or "UnauthorizedOperation" in code or code == "403":
        hint = f"the caller needs {', '.join(call.rights)}"
    elif "Expired" in code or "UnrecognizedClient" in code:
        hint = LOG_IN
    return PlatformError(said(error), where=where, hint=hint)


def passes(error: Refusal) -> bool:
    """Whether waiting helps: a role that is too new, a function that is still changing."""
    text = str(error.response.get("Error", {}).get("Message", "")).lower()
    return any(words in text for words in (*_ROLE_WORDS, *_BUSY_WORDS))


def said(error: Refusal) -> str:
    """AWS's own words, and the number that its support asks for."""
    facts = error.response.get("Error", {})
    request = error.response.get("ResponseMetadata", {}).get("RequestId", "")
    tail = f" (request {request})" if request else ""
    return f"{facts.get('Code', 'error')}: {facts.get('Message', error)}{tail}"
