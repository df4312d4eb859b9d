"""AWS through ``boto3``: `Call.service` is the client's name, `Call.operation` the API's own.

Words of a call for this applier: the text ``<account>`` becomes the caller's account; a mapping
``{"<pairs>": [[key, value], …]}`` becomes one whose keys earlier calls answered;
``wait={"missing": "allowed"}``: what is read may not exist, and then the answer is empty;
``wait={"only": "new"}``: a put that would replace something is a conflict, so that taking it back
never takes away what was there before;
``wait={"until": NAME}``: a row of `_STATES`.

Sources: boto3's "Error handling" and "Credentials"; the errors and states in the API references
of SageMaker, Lambda, IAM, ECR, CloudWatch Logs and CloudFormation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

from modelport.core.errors import ConflictError, ModelportError, NotFoundError, PlatformError
from modelport.deploy.aws.place import ACCOUNT, PAIRS
from modelport.deploy.base import Call, Progress

_HINT: Final = "aws configure or aws sso login, AWS_PROFILE, or --set profile=NAME"

_CONFLICTS: Final = frozenset({
    "EntityAlreadyExists", "EntityAlreadyExistsException", "ConflictException",
    "ResourceConflictException",
    "RepositoryAlreadyExistsException", "ResourceAlreadyExistsException", "AlreadyExistsException",
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
_PATIENCE: Final = 90.0


@dataclass(frozen=True)
class _State:
    """How a thing's state is read: an operation, its parameters, where its answer says what.

    `same` are keys of the call's own parameters that the answer has to repeat in the end: a
    platform that rolled back by itself is ready, too, with what was there before.
    """

    operation: str
    keys: tuple[str, ...]
    status: str
    good: frozenset[str]
    busy: frozenset[str]
    reason: str
    minutes: int
    inside: str = ""
    same: tuple[str, ...] = ()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ENDPOINT: Final = ("describe_endpoint", ("EndpointName",), "EndpointStatus")
_ENDPOINT_BUSY: Final = _words("Creating Updating SystemUpdating RollingBack")
_FUNCTION: Final = ("get_function_configuration", ("FunctionName",))
_STACK: Final = ("describe_stacks", ("StackName",), "StackStatus")
_STATES: Final[Mapping[str, _State]] = {
    "endpoint-in-service": _State(
        *_ENDPOINT, _words("InService"), _ENDPOINT_BUSY, "FailureReason", 90,
        same=("EndpointConfigName",),
    ),
    "endpoint-deleted": _State(
        *_ENDPOINT, frozenset(), _words("Deleting"), "FailureReason", 30,
    ),
    "transform-job-completed": _State(
        "describe_transform_job", ("TransformJobName",), "TransformJobStatus",
        _words("Completed"), _words("InProgress"), "FailureReason", 24 * 60,
    ),
    "transform-job-stopped": _State(
        "describe_transform_job", ("TransformJobName",), "TransformJobStatus",
        _words("Completed Failed Stopped"), _words("InProgress Stopping"), "FailureReason", 30,
    ),
    "function-active": _State(
        *_FUNCTION, "State", _words("Active Inactive"), _words("Pending"), "StateReason", 15,
    ),
    "function-updated": _State(
        *_FUNCTION, "LastUpdateStatus", _words("Successful"), _words("InProgress"),
        "LastUpdateStatusReason", 15,
    ),
    "stack-complete": _State(
        *_STACK, _words("CREATE_COMPLETE UPDATE_COMPLETE"),
        _words("CREATE_IN_PROGRESS UPDATE_IN_PROGRESS UPDATE_COMPLETE_CLEANUP_IN_PROGRESS "
               "ROLLBACK_IN_PROGRESS UPDATE_ROLLBACK_IN_PROGRESS "
               "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS"),
        "StackStatusReason", 30, inside="Stacks",
    ),
    "stack-deleted": _State(
        *_STACK, _words("DELETE_COMPLETE"), _words("DELETE_IN_PROGRESS"), "StackStatusReason", 30,
        inside="Stacks",
    ),
}  # fmt: skip


#: Puts replace what is there without a word: how to see whether it is, and where that says so.
_PUTS: Final[Mapping[str, Callable[[Any, Mapping[str, Any]], Any]]] = {
    "PutRolePolicy": lambda client, p: client.get_role_policy(
        RoleName=p["RoleName"], PolicyName=p["PolicyName"]
    ),
    "PutMetricAlarm": lambda client, p: client.describe_alarms(AlarmNames=[p["AlarmName"]])[
        "MetricAlarms"
    ],
    "RegisterScalableTarget": lambda client, p: client.describe_scalable_targets(
        ServiceNamespace=p["ServiceNamespace"],
        ResourceIds=[p["ResourceId"]],
        ScalableDimension=p["ScalableDimension"],
    )["ScalableTargets"],
}


class AwsApplier:
    """See `modelport.deploy.base.Applier`.

    Parameters
    ----------
    pause : float
        Seconds between two looks at what is waited for.
    """

    name = "aws"

    def __init__(self, pause: float = 5.0) -> None:
        self._pause = pause

    def connect(self, connection: Mapping[str, str]) -> AwsConnection:
        """See `modelport.deploy.base.Applier.connect`."""
        try:
            session = boto3.Session(
                region_name=connection.get("region") or None,
                profile_name=connection.get("profile") or None,
            )
            if session.get_credentials() is None:
                raise NoCredentialsError
            identity = session.client("sts", config=_config()).get_caller_identity()
        except (
            NoCredentialsError, PartialCredentialsError, ProfileNotFound, TokenRetrievalError,
        ) as error:  # fmt: skip
            raise PlatformError(f"AWS: no credentials: {error}", hint=_HINT) from error
        except ClientError as error:
            raise PlatformError(f"AWS does not let you in: {_said(error)}", hint=_HINT) from error
        except BotoCoreError as error:
            raise PlatformError(f"AWS cannot be reached: {error}") from error
        return AwsConnection(session, str(identity["Account"]), self._pause)


class AwsConnection:
    """See `modelport.deploy.base.Connection`.

    Parameters
    ----------
    session : boto3.Session
    account : str
        Its number, which stands for ``<account>``.
    pause : float
    """

    def __init__(self, session: boto3.Session, account: str, pause: float) -> None:
        self._session = session
        self._account = account
        self._pause = pause
        self._clients: dict[str, Any] = {}

    def call(self, call: Call, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `modelport.deploy.base.Connection.call`."""
        ready = to_request(parameters, self._account)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                if call.operation == "UpdateEndpoint" and self._is_there_already(ready):
                    return {}
                if call.wait.get("only") == "new" and self._is_replaced(call, ready):
                    raise ConflictError(f"{call.purpose}: it is there already")
                answer = getattr(self._client(call.service), xform_name(call.operation))(**ready)
                found: Mapping[str, Any] = plain(answer)
                return found
            except ClientError as error:
                if not _passes(error) or time.monotonic() > deadline:
                    if call.wait.get("missing") and isinstance(
                        translate(error, call), NotFoundError
                    ):
                        return {}
                    raise translate(error, call) from error
                time.sleep(min(self._pause, 2.0))
            except BotoCoreError as error:
                raise PlatformError(
                    f"{call.service}.{call.operation}: {error}", where=call.purpose
                ) from error

    def wait(
        self, call: Call, parameters: Mapping[str, Any], answer: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """See `modelport.deploy.base.Connection.wait`."""
        if "until" not in call.wait:
            return {}
        state = _STATES[str(call.wait["until"])]
        ready = to_request(parameters, self._account)
        asked = {key: ready[key] for key in state.keys}
        if "Version" in call.wait:
            asked["Qualifier"] = answer["Version"]
        begun = time.monotonic()
        while True:
            found = self._look(call, state, asked)
            if found is None:  # what was to be deleted is gone
                return {}
            status = str(found.get(state.status, ""))
            if status not in state.busy:
                break
            seconds = time.monotonic() - begun
            if seconds > 60 * state.minutes:
                raise PlatformError(
                    f"{call.purpose}: still {status} after {state.minutes} minutes",
                    where=_named(asked), hint="modelport deploy status tells how it goes on",
                )  # fmt: skip
            report(f"{call.purpose}: {status} ({seconds:.0f} s)")
            time.sleep(self._pause)
        other = [key for key in state.same if found.get(key) != ready.get(key, found.get(key))]
        if status not in state.good or other:
            raise PlatformError(_failure(call, status, found, state, other), where=_named(asked))
        return found

    def headers(self) -> Mapping[str, str]:
        """See `modelport.deploy.base.Connection.headers`: requests are signed by boto3 instead."""
        return {}

    def _look(
        self, call: Call, state: _State, asked: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """The thing's state; None when it is not there, and that is what is waited for."""
        found: Mapping[str, Any]
        try:
            found = plain(getattr(self._client(call.service), state.operation)(**asked))
        except ClientError as error:
            translated = translate(error, call)
            if isinstance(translated, NotFoundError) and call.operation.startswith("Delete"):
                return None
            raise translated from error
        except BotoCoreError as error:
            raise PlatformError(f"{call.purpose}: {error}", where=_named(asked)) from error
        if state.inside:
            found = found[state.inside][0]
        return found

    def _is_there_already(self, ready: Mapping[str, Any]) -> bool:
        """Whether an endpoint has that configuration: SageMaker calls the same again an error."""
        found = self._client("sagemaker").describe_endpoint(EndpointName=ready["EndpointName"])
        return bool(found.get("EndpointConfigName") == ready["EndpointConfigName"])

    def _is_replaced(self, call: Call, ready: Mapping[str, Any]) -> bool:
        """Whether a put would replace something."""
        try:
            return bool(_PUTS[call.operation](self._client(call.service), ready))
        except ClientError as error:
            if isinstance(translate(error, call), NotFoundError):
                return False
            raise

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.client(service, config=_config())
        return self._clients[service]


def to_request(value: Any, account: str) -> Any:
    """Parameters as boto3 takes them: with the account, and with keys from earlier answers."""
    if isinstance(value, str):
        return value.replace(ACCOUNT, account)
    if isinstance(value, Mapping):
        if set(value) == {PAIRS}:
            return {str(key): to_request(item, account) for key, item in value[PAIRS]}
        return {key: to_request(item, account) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_request(item, account) for item in value]
    return value


def plain(value: Any) -> Any:
    """An answer as plain data: no response metadata, times as text, stack outputs by name."""
    if isinstance(value, Mapping):
        kept = {key: plain(item) for key, item in value.items() if key != "ResponseMetadata"}
        outputs = kept.get("Outputs")
        if isinstance(outputs, list) and all("OutputKey" in item for item in outputs):
            kept["Outputs"] = {item["OutputKey"]: item["OutputValue"] for item in outputs}
        return kept
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def translate(error: ClientError, call: Call) -> ModelportError:
    """What AWS said, as the error that the stage understands."""
    said = error.response.get("Error", {})
    code, text = str(said.get("Code", "")), str(said.get("Message", ""))
    vague = text.lower() if code in _VAGUE else ""
    where = f"{call.service}.{call.operation}"
    if "in progress" in text.lower() and code in _CONFLICTS:
        return PlatformError(_said(error), where=where)
    if code in _CONFLICTS or any(words in vague for words in _CONFLICT_WORDS):
        return ConflictError(_said(error), where=where)
    if code in _MISSING or any(words in vague for words in _MISSING_WORDS):
        missing = NotFoundError("thing", call.purpose, where=where)
        missing.message = _said(error)
        return missing
    hint = ""
    if "AccessDenied" in code or "UnauthorizedOperation" in code:
        hint = f"the caller needs {', '.join(call.rights)}"
    elif "Expired" in code or "UnrecognizedClient" in code:
        hint = _HINT
    return PlatformError(_said(error), where=where, hint=hint)


def _passes(error: ClientError) -> bool:
    """Whether waiting helps: a role that is too new, a function that is still changing."""
    text = str(error.response.get("Error", {}).get("Message", "")).lower()
    return any(words in text for words in (*_ROLE_WORDS, *_BUSY_WORDS))


def _said(error: ClientError) -> str:
    said = error.response.get("Error", {})
    request = error.response.get("ResponseMetadata", {}).get("RequestId", "")
    tail = f" (request {request})" if request else ""
    return f"{said.get('Code', 'error')}: {said.get('Message', error)}{tail}"


def _failure(
    call: Call, status: str, found: Mapping[str, Any], state: _State, other: list[str]
) -> str:
    reason = found.get(state.reason) or "AWS gives no reason"
    if other:
        was = ", ".join(f"{key} is {found.get(key)}" for key in other)
        return f"{call.purpose}: AWS went back to what was there before ({was}): {reason}"
    return f"{call.purpose}: {status}: {reason}"


def _named(asked: Mapping[str, Any]) -> str:
    return "/".join(str(value) for value in asked.values())


def _config() -> Config:
    return Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10)
