"""AWS through ``boto3``: `Call.service` is the client's name, `Call.operation` the API's own.

Words of a call for this applier: the text ``<account>`` becomes the caller's account; a mapping
``{"<pairs>": [[key, value], …]}`` becomes one whose keys earlier calls answered;
``{"<built>": {…}}`` becomes a file that is made for the call, see `modelport.deploy.aws.archive`;
``wait={"missing": "allowed", "default": {…}}``: what is read, or deleted, may not exist; the
default's keys are those that the answer lacks;
``wait={"only": "new"}``: a put that would replace something is a conflict, so that taking it back
never takes away what was there before;
``wait={"until": NAME}``: a row of `modelport.deploy.aws.states`; then
``wait={"is": {…}}`` or ``{"not": {…}}``: other values than those, or just those, are a conflict;
``wait={"address": URL}``: what the answer has as ``Address``;
``wait={"sweep": SERVICE}``: what `modelport.deploy.aws.remains` finds goes, too.

Sources: boto3's "Credentials" and "Retries".
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
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

from modelport.core.errors import ConflictError, NotFoundError, PlatformError
from modelport.deploy.aws.archive import built
from modelport.deploy.aws.errors import LOG_IN, passes, said, translate
from modelport.deploy.aws.place import BUILT
from modelport.deploy.aws.puts import would_replace
from modelport.deploy.aws.remains import deletions
from modelport.deploy.aws.states import ENDPOINT_BUSY, STATES, State
from modelport.deploy.aws.words import plain, to_request, without_itself
from modelport.deploy.base import Call, Progress

#: Seconds for which a role may be too new, or a function be changing.
_PATIENCE: Final = 90.0
#: And an endpoint that is to be deleted be starting: only then can it go.
_LONG_PATIENCE: Final = 1800.0


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
            raise PlatformError(f"AWS: no credentials: {error}", hint=LOG_IN) from error
        except ClientError as error:
            raise PlatformError(f"AWS does not let you in: {said(error)}", hint=LOG_IN) from error
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
        if call.operation == "UpdateAlias":
            ready = without_itself(ready)
        default = to_request(call.wait.get("default", {}), self._account)
        begun = time.monotonic()
        while True:
            try:
                with self._translated(call):
                    return {**default, **self._made(call, ready)}
            except NotFoundError:
                if call.wait.get("missing"):
                    return dict(default)
                raise
            except PlatformError as error:
                if time.monotonic() - begun >= self._patience(call, ready, error):
                    raise
                time.sleep(min(self._pause, 2.0))

    def wait(
        self, call: Call, parameters: Mapping[str, Any], answer: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """See `modelport.deploy.base.Connection.wait`."""
        found: dict[str, Any] = {}
        if "until" in call.wait:
            found = self._settled(call, to_request(parameters, self._account), answer, report)
        for word in ("is", "not"):
            wanted = call.wait.get(word, {})
            differs = [key for key, value in wanted.items() if found.get(key) != value]
            if wanted and bool(differs) == (word == "is"):
                raise ConflictError(f"{call.purpose}: it is another one now")
        if "sweep" in call.wait:
            self._sweep(call)
        address = call.wait.get("address")
        return {**found, "Address": address} if address else found

    def headers(self) -> Mapping[str, str]:
        """See `modelport.deploy.base.Connection.headers`: requests are signed by boto3 instead."""
        return {}

    def _made(self, call: Call, ready: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer of a call that is really made, if it has to be."""
        if call.operation == "UpdateEndpoint" and self._is_there_already(ready):
            return {}
        if call.wait.get("only") == "new" and self._is_replaced(call, ready):
            raise ConflictError(f"{call.purpose}: it is there already")
        with ExitStack() as stack:
            opened = {key: _opened(value, stack) for key, value in ready.items()}
            method = getattr(self._client(call.service), xform_name(call.operation))
            found: Mapping[str, Any] = plain(method(**opened))
        return found

    def _patience(self, call: Call, ready: Mapping[str, Any], error: PlatformError) -> float:
        """For how many seconds what was refused is tried again."""
        refusal = error.__cause__
        if not isinstance(refusal, ClientError):
            return 0.0
        if call.operation == "DeleteEndpoint":
            found = self._client("sagemaker").describe_endpoint(EndpointName=ready["EndpointName"])
            return _LONG_PATIENCE if found["EndpointStatus"] in ENDPOINT_BUSY else 0.0
        return _PATIENCE if passes(refusal) else 0.0

    def _settled(
        self, call: Call, ready: Mapping[str, Any], answer: Mapping[str, Any], report: Progress
    ) -> dict[str, Any]:
        """The state in which a thing has ended up."""
        state = STATES[str(call.wait["until"])]
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
            raise PlatformError(
                _failure(call, status, found, state, other) + self._events(call, asked),
                where=_named(asked), hint=_HINTS.get((state.operation, status), ""),
            )  # fmt: skip
        return found

    def _look(self, call: Call, state: State, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """The thing's state; None when it is not there, and that is what is waited for."""
        try:
            with self._translated(call):
                found = plain(getattr(self._client(call.service), state.operation)(**asked))
        except NotFoundError:
            if call.operation.startswith("Delete"):
                return None
            raise
        return dict(found[state.inside][0] if state.inside else found)

    def _events(self, call: Call, asked: Mapping[str, Any]) -> str:
        """Why a stack failed: its own reason only names the resources."""
        if "StackName" not in asked:
            return ""
        with self._translated(call):
            events = self._client("cloudformation").describe_stack_events(**asked)["StackEvents"]
        reasons = [
            f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
            for event in reversed(events)
            if "FAILED" in event.get("ResourceStatus", "") and "ResourceStatusReason" in event
        ]
        return "".join(f"; {reason}" for reason in reasons[:3])

    def _sweep(self, call: Call) -> None:
        client = self._client("sagemaker")
        with self._translated(call):
            every = deletions(client, str(call.wait["sweep"]))
        for operation, named in every:
            try:
                with self._translated(call):
                    getattr(client, operation)(**named)
            except NotFoundError:
                continue

    def _is_there_already(self, ready: Mapping[str, Any]) -> bool:
        """Whether an endpoint has that configuration: SageMaker calls the same again an error."""
        found = self._client("sagemaker").describe_endpoint(EndpointName=ready["EndpointName"])
        same = found.get("EndpointConfigName") == ready["EndpointConfigName"]
        return bool(same and found.get("EndpointStatus") == "InService")

    def _is_replaced(self, call: Call, ready: Mapping[str, Any]) -> bool:
        """Whether a put would replace something."""
        try:
            return would_replace(self._client(call.service), call.operation, ready)
        except ClientError as error:
            if isinstance(translate(error, call), NotFoundError):
                return False
            raise

    @contextmanager
    def _translated(self, call: Call) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise translate(error, call) from error
        except BotoCoreError as error:
            raise PlatformError(
                f"{call.service}.{call.operation}: {error}", where=call.purpose
            ) from error

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.client(service, config=_config())
        return self._clients[service]


#: What to do about a thing that is in a state that no update can mend.
_HINTS: Final = {
    ("describe_endpoint", "Failed"): "modelport deploy destroy, then deploy again: an endpoint "
    "that failed cannot be updated; its log is in CloudWatch below /aws/sagemaker/Endpoints",
}


def _opened(value: Any, stack: ExitStack) -> Any:
    """A parameter; the file itself where it is to be made."""
    if isinstance(value, Mapping) and set(value) == {BUILT}:
        return stack.enter_context(stack.enter_context(built(value[BUILT])).open("rb"))
    return value


def _failure(
    call: Call, status: str, found: Mapping[str, Any], state: State, other: list[str]
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
