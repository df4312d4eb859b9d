"""Google Cloud's own clients: Cloud Run, Vertex AI, and service accounts.

How a call is read: `Call.service` is a client of the SDK (``run.ServicesClient``,
``aiplatform.EndpointServiceClient``), `Call.operation` its method, the parameters that method's
request in the JSON form of protocol buffers, with the fields' own names; a field that the request
does not have is refused here. In place of a value may stand the operators of
`modelport.deploy.google`. Two things are not methods of a client:

* ``aiplatform.EndpointServiceClient.undeploy_models``: those that are ``idle``, without traffic;
  ``delete_endpoint_with_models``: as the SDK's ``Endpoint.delete(force=True)``;
* ``iam.projects.serviceAccounts``: ``create`` and ``delete`` of the IAM API, over REST.

`Call.wait`: ``operation``: seconds until the long-running operation is given up; ``exists``:
seconds until a new service account can be read; ``job``: seconds for a batch prediction job.

Answers have two things more than the API's: of Cloud Run's services ``tag_uris``, by tag; of
Vertex AI's endpoints ``predict_url``, and of an uploaded model ``versioned_name``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import google.auth
import grpc
from google.api_core import exceptions as refusals
from google.api_core.operation import Operation
from google.auth import exceptions as logins
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import aiplatform_v1, run_v2
from google.protobuf import json_format

from modelport.core.errors import (
    ConflictError,
    InputError,
    ModelportError,
    NotFoundError,
    PlatformError,
)
from modelport.deploy.base import Call, Connection, Progress
from modelport.deploy.google.traffic import REVISIONS, SHARES, revisions, shares

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_MODULES: Final = {"run": run_v2, "aiplatform": aiplatform_v1}
_ACCOUNTS: Final = "iam.projects.serviceAccounts"
_IAM: Final = "https://iam.googleapis.com"
_SWEEPING: Final = ("undeploy_models", "delete_endpoint_with_models")
_OPERATORS: Final[dict[str, Callable[..., Any]]] = {SHARES: shares, REVISIONS: revisions}

#: Seconds for one request, and between two looks at an operation: at first, and at most.
_REQUEST_SECONDS: Final = 60.0
_FIRST_LOOK, _LAST_LOOK = 1.0, 10.0

_LOGIN: Final = (
    "log in with: gcloud auth application-default login, or let GOOGLE_APPLICATION_CREDENTIALS "
    "name a key file (Application Default Credentials)"
)
_CONFLICT, _MISSING = 409, 404
_FINISHED: Final = ("JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED")
_GIVEN_UP: Final = ("JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED")


class GoogleApplier:
    """Logs in with Application Default Credentials."""

    name = "google"

    def connect(self, connection: Mapping[str, str]) -> Connection:
        """Find credentials; nothing is sent yet.

        Raises
        ------
        PlatformError
            When there are none.
        """
        if "emulator" in connection:
            return GoogleConnection(connection, AnonymousCredentials())  # type: ignore[no-untyped-call]
        try:
            credentials, _ = google.auth.default(scopes=[_SCOPE])
        except logins.GoogleAuthError as error:
            raise PlatformError(f"no credentials for Google Cloud: {error}", hint=_LOGIN) from error
        return GoogleConnection(connection, credentials)


class GoogleConnection:
    """Clients of one project and region, made when they are needed.

    Parameters
    ----------
    connection : mapping
        ``region``; for a server on this machine that plays Google: ``emulator`` (``HOST:PORT`` of
        its gRPC), ``iam`` (the URL of its IAM) and ``look`` (seconds between looks).
    credentials : google.auth.credentials.Credentials
    """

    def __init__(self, connection: Mapping[str, str], credentials: Any) -> None:
        self._connection = connection
        self._credentials = credentials
        self._clients: dict[str, Any] = {}
        self._running: dict[str, Operation] = {}
        self._session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]

    def call(self, call: Call, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a call; see `modelport.deploy.base.Connection`."""
        if call.service == _ACCOUNTS:
            return self._account(call, parameters)
        if call.operation in _SWEEPING:
            return self._endpoint(call, str(parameters["endpoint"]))
        request = build_request(call, parameters)
        answer = _asking(call, lambda: self._method(call.service, call.operation)(
            request=request, timeout=_REQUEST_SECONDS
        ))  # fmt: skip
        if isinstance(answer, Operation):
            self._running[call.id] = answer
            return {"operation": answer.operation.name}
        return self._told(answer)

    def wait(
        self, call: Call, parameters: Mapping[str, Any], answer: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """Wait for what ``call.wait`` says; see `modelport.deploy.base.Connection`."""
        if "exists" in call.wait:
            account = str(answer["name"])
            return self._patiently(call, report, "exists", lambda: self._readable(call, account))
        if "job" in call.wait:
            return self._patiently(call, report, "job", lambda: self._job(call, answer["name"]))
        if call.operation in _SWEEPING:
            return self._sweep(call, str(parameters["endpoint"]), report)
        return self._finished(call, self._running.pop(call.id), report)

    def headers(self) -> Mapping[str, str]:
        """See `modelport.deploy.base.Connection.headers`: `access` shows a token of its own."""
        return {}

    def _finished(self, call: Call, running: Operation, report: Progress) -> Mapping[str, Any]:
        def look() -> Mapping[str, Any] | None:
            if not _asking(call, running.done):
                return None
            return self._told(_asking(call, running.result))

        return self._patiently(call, report, "operation", look)

    def _patiently(
        self,
        call: Call,
        report: Progress,
        what: str,
        look: Callable[[], Mapping[str, Any] | None],
    ) -> Mapping[str, Any]:
        began = time.monotonic()
        pause = float(self._connection.get("look", _FIRST_LOOK))
        while (state := look()) is None:
            passed = time.monotonic() - began
            if passed > float(call.wait[what]):
                raise PlatformError(
                    f"{call.purpose}: not done after {passed:.0f} s; Google Cloud goes on with it",
                    hint="look at it with modelport deploy status, or in the console",
                )
            report(f"{call.purpose}: {passed:.0f} s")
            time.sleep(pause)
            pause = min(pause * 1.5, _LAST_LOOK)
        return state

    def _sweep(self, call: Call, name: str, report: Progress) -> Mapping[str, Any]:
        """Undeploy what has no traffic, or everything, and then delete the endpoint."""
        endpoint = self._endpoint(call, name)
        split = {key: share for key, share in endpoint["traffic_split"].items() if share}
        every = [model["id"] for model in endpoint["deployed_models"]]
        deletes = call.operation == "delete_endpoint_with_models"
        doomed = every if deletes else [model for model in every if model not in split]
        left = list(every)
        for model in doomed:
            left.remove(model)
            # A model with traffic is only let go of when that goes to another.
            moved = {left[0]: 100} if left and model in split else {}
            split = moved or split
            request = aiplatform_v1.UndeployModelRequest(
                endpoint=name, deployed_model_id=model, traffic_split=moved
            )
            self._at_once(call, "undeploy_model", request, report)
        if deletes:
            request = aiplatform_v1.DeleteEndpointRequest(name=name)
            self._at_once(call, "delete_endpoint", request, report)
        return {"undeployed": doomed}

    def _at_once(self, call: Call, operation: str, request: Any, report: Progress) -> None:
        method = self._method(call.service, operation)
        running = _asking(call, lambda: method(request=request, timeout=_REQUEST_SECONDS))
        self._finished(call, running, report)

    def _endpoint(self, call: Call, name: str) -> Mapping[str, Any]:
        method = self._method(call.service, "get_endpoint")
        return self._told(_asking(call, lambda: method(name=name, timeout=_REQUEST_SECONDS)))

    def _job(self, call: Call, name: str) -> Mapping[str, Any] | None:
        method = self._method(call.service, "get_batch_prediction_job")
        job = self._told(_asking(call, lambda: method(name=name, timeout=_REQUEST_SECONDS)))
        if job["state"] in _GIVEN_UP:
            words = job.get("error", {}).get("message", "")
            raise PlatformError(f"{call.purpose}: {job['state']}: {words}", where=name)
        return job if job["state"] in _FINISHED else None

    def _method(self, service: str, operation: str) -> Callable[..., Any]:
        api, _, name = service.partition(".")
        if service not in self._clients:
            kind = getattr(_MODULES[api], name)
            self._clients[service] = kind(**self._options(kind, api))
        method: Callable[..., Any] = getattr(self._clients[service], operation)
        return method

    def _options(self, kind: Any, api: str) -> dict[str, Any]:
        if emulator := self._connection.get("emulator"):
            channel = grpc.insecure_channel(emulator)
            return {"transport": kind.get_transport_class("grpc")(channel=channel)}
        if api == "aiplatform":  # has no global address
            address = f"{self._connection['region']}-aiplatform.googleapis.com"
            return {"credentials": self._credentials, "client_options": {"api_endpoint": address}}
        return {"credentials": self._credentials}

    def _told(self, message: Any) -> dict[str, Any]:
        """A message as plain data, with what else this module's text says."""
        plain: dict[str, Any] = json_format.MessageToDict(
            message if not hasattr(type(message), "pb") else type(message).pb(message),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        if isinstance(message, run_v2.Service):
            tagged = (state for state in plain["traffic_statuses"] if state["tag"])
            plain["tag_uris"] = {state["tag"]: state["uri"] for state in tagged}
        elif isinstance(message, aiplatform_v1.Endpoint):
            host = plain["dedicated_endpoint_dns"].removeprefix("https://")
            host = host or f"{self._connection['region']}-aiplatform.googleapis.com"
            plain["predict_url"] = f"https://{host}/v1/{plain['name']}:predict"
        elif isinstance(message, aiplatform_v1.UploadModelResponse):
            plain["versioned_name"] = f"{plain['model']}@{plain['model_version_id']}"
        return plain

    def _account(self, call: Call, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        if call.operation == "create":
            path, body = f"{parameters['name']}/serviceAccounts", parameters["body"]
            return self._iam(call, "POST", path, body)
        return self._iam(call, "DELETE", str(parameters["name"]))

    def _readable(self, call: Call, name: str) -> Mapping[str, Any] | None:
        try:
            return self._iam(call, "GET", name)
        except NotFoundError:
            return None  # it takes a while until all of Google Cloud knows a new account

    def _iam(self, call: Call, verb: str, path: str, body: Any = None) -> Mapping[str, Any]:
        url = f"{self._connection.get('iam', _IAM)}/v1/{path}"
        ask: Any = self._session.request  # google-auth has no types
        answer = _asking(call, lambda: ask(verb, url, json=body, timeout=_REQUEST_SECONDS))
        if answer.ok:
            told: Mapping[str, Any] = answer.json()
            return told
        refused: Any = refusals.from_http_response  # nor has this
        raise _error(call, refused(answer))


def build_request(call: Call, parameters: Mapping[str, Any]) -> Any:
    """The request of a call, as the SDK's own type.

    Raises
    ------
    InputError
        When the API has no such request, or the request no such field.
    """
    api = call.service.partition(".")[0]
    name = "".join(word.capitalize() for word in call.operation.split("_")) + "Request"
    kind = getattr(_MODULES.get(api), name, None)
    if kind is None:
        raise InputError(f"Google's clients have no {call.service}.{call.operation}")
    try:
        return kind.wrap(json_format.ParseDict(_worked_out(parameters), kind.pb(kind())))
    except json_format.ParseError as error:
        words = str(error).partition("\n")[0]
        raise InputError(f"not a {name}: {words}", where=call.id) from error


def _worked_out(value: Any) -> Any:
    if isinstance(value, Mapping):
        for sign, work_out in _OPERATORS.items():
            if sign in value:
                return work_out(**value[sign])
        return {key: _worked_out(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_worked_out(item) for item in value]
    return value


def _asking(call: Call, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except refusals.GoogleAPICallError as error:
        raise _error(call, error) from error
    except logins.GoogleAuthError as error:
        raise PlatformError(f"Google Cloud took no credentials: {error}", hint=_LOGIN) from error
    except (refusals.RetryError, OSError) as error:
        raise PlatformError(f"{call.purpose}: Google Cloud cannot be reached: {error}") from error


def _error(call: Call, error: refusals.GoogleAPICallError) -> ModelportError:
    """Our error for Google's, with its words."""
    words = f"{call.service}.{call.operation}: {type(error).__name__}: {error.message}"
    if isinstance(error, refusals.AlreadyExists) or (
        call.service == _ACCOUNTS and error.code == _CONFLICT
    ):
        return ConflictError(words)
    if error.code == _MISSING:
        return NotFoundError("what Google Cloud was asked for", words)
    return PlatformError(words, hint=_hint(call, error))


def _hint(call: Call, error: refusals.GoogleAPICallError) -> str:
    if isinstance(error, refusals.Unauthenticated):
        return _LOGIN
    if isinstance(error, refusals.Forbidden):
        return f"needed: {', '.join(call.rights)}" if call.rights else ""
    if isinstance(error, refusals.TooManyRequests):
        return "a quota is used up: ask for more in the console, under IAM & Admin, Quotas"
    if isinstance(error, refusals.Aborted):
        return "somebody else changed it at the same time: try again"
    return ""
