"""Google Cloud's own clients: Cloud Run, Vertex AI, service accounts and roles.

How a call is read: `Call.service` is a client of the SDK (``run.ServicesClient``,
``aiplatform.EndpointServiceClient``), `Call.operation` its method, the parameters that method's
request in the JSON form of protocol buffers, with the fields' own names; a field that the request
does not have is refused here. In place of a value may stand the operators of
`modelport.deploy.google.traffic`. What is not a method of a client:

* ``aiplatform.EndpointServiceClient.undeploy_models``: those that are ``idle``, without traffic;
  ``undeploy_version``: the one of a model's version, if it is there;
  ``delete_endpoint_with_models``: as the SDK's ``Endpoint.delete(force=True)``;
* the services of `modelport.deploy.google.place.REST`: accounts, and grants of roles.

`Call.wait`: ``operation``: seconds until the long-running operation is given up; ``exists``:
seconds until a new service account can be read; ``policy``: until a role is granted; ``job``: for
a batch prediction job. Answers have more than the API's, see `modelport.deploy.google.messages`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import google.auth
import grpc
from google.api_core.operation import Operation
from google.auth import exceptions as logins
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1

from modelport.core.errors import ModelportError, NotFoundError, PlatformError
from modelport.deploy.base import Call, Connection, Progress
from modelport.deploy.google.iam import Identities
from modelport.deploy.google.messages import MODULES, build_request, told
from modelport.deploy.google.place import REST
from modelport.deploy.google.refusals import LOGIN, asking
from modelport.deploy.keys import shown_key

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_SWEEPING: Final = ("undeploy_models", "undeploy_version", "delete_endpoint_with_models")
_ENDPOINTS, _JOBS = "aiplatform.EndpointServiceClient", "aiplatform.JobServiceClient"

#: Seconds for one request, and between two looks at an operation: at first, and at most.
_REQUEST_SECONDS: Final = 60.0
_FIRST_LOOK, _LAST_LOOK = 1.0, 10.0
#: Seconds for what was begun and not waited for, until something else is done in its place.
_SETTLING_SECONDS: Final = 600.0

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
            raise PlatformError(f"no credentials for Google Cloud: {error}", hint=LOGIN) from error
        return GoogleConnection(connection, credentials)


class GoogleConnection:
    """Clients of one project and region, made when they are needed.

    Parameters
    ----------
    connection : mapping
        ``region``; for a server on this machine that plays Google: ``emulator`` (``HOST:PORT`` of
        its gRPC), ``iam`` (the URL of its REST) and ``look`` (seconds between looks).
    credentials : google.auth.credentials.Credentials
    """

    def __init__(self, connection: Mapping[str, str], credentials: Any) -> None:
        self._connection = connection
        self._credentials = credentials
        self._clients: dict[str, Any] = {}
        #: Begun and not seen to its end: operations by call, and a batch prediction job.
        self._running: dict[str, Operation] = {}
        self._job = ""
        self._identities = Identities(credentials, connection.get("iam", ""))

    def call(self, call: Call, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a call; see `modelport.deploy.base.Connection`."""
        self._settle(call)
        if call.service in REST:
            return self._identities.call(call, parameters)
        if call.operation in _SWEEPING:
            return self._endpoint(call, str(parameters["endpoint"]))
        answer = self._sent(call, call.service, call.operation, build_request(call, parameters))
        if isinstance(answer, Operation):
            self._running[call.id] = answer
            return {"operation": answer.operation.name}
        return told(answer, self._connection["region"])

    def wait(
        self, call: Call, parameters: Mapping[str, Any], answer: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """Wait for what ``call.wait`` says; see `modelport.deploy.base.Connection`."""
        if "exists" in call.wait:
            name = str(answer["name"])
            look = lambda: self._identities.readable(call, name)  # noqa: E731
            return self._patiently(call, report, "exists", look)
        if "policy" in call.wait:
            return self._granted(call, parameters, answer, report)
        if "job" in call.wait:
            self._job = str(answer["name"])
            job = self._patiently(call, report, "job", lambda: self._finished_job(call))
            self._job = ""
            return job
        if call.operation in _SWEEPING:
            return self._sweep(call, parameters, report)
        return self._finished(call, self._running[call.id], report)

    def headers(self) -> Mapping[str, str]:
        """See `modelport.deploy.base.Connection.headers`: `access` shows a token of its own."""
        return shown_key(self._connection)

    def _granted(
        self, call: Call, parameters: Mapping[str, Any], answer: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        def look() -> Mapping[str, Any] | None:
            return {"changed": True} if self._identities.changed(call, parameters) else None

        return answer if answer["changed"] else self._patiently(call, report, "policy", look)

    def _finished(self, call: Call, running: Operation, report: Progress) -> Mapping[str, Any]:
        def look() -> Mapping[str, Any] | None:
            if not asking(call, running.done):
                return None
            self._running.pop(call.id, None)
            return told(asking(call, running.result), self._connection["region"])

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
                raise PlatformError(f"{call.purpose}: not done after {passed:.0f} s")
            report(f"{call.purpose}: {passed:.0f} s")
            time.sleep(pause)
            pause = min(pause * 1.5, _LAST_LOOK)
        return state

    def _settle(self, call: Call) -> None:
        """Cancel what nobody waits for any more, and see it ended.

        After a time-out or Ctrl-C it would otherwise go on beside what takes it back: a model
        would be deployed to an endpoint that has just been looked through.
        """
        if self._job:
            request = aiplatform_v1.CancelBatchPredictionJobRequest(name=self._job)
            self._job = ""
            with suppress(ModelportError):  # it may have ended by itself
                self._sent(call, _JOBS, "cancel_batch_prediction_job", request)
        deadline = time.monotonic() + _SETTLING_SECONDS
        while self._running:
            _, running = self._running.popitem()
            with suppress(ModelportError):  # some cannot be cancelled, and end by themselves
                asking(call, running.cancel)
            while not asking(call, running.done) and time.monotonic() < deadline:
                time.sleep(float(self._connection.get("look", _LAST_LOOK)))

    def _sweep(
        self, call: Call, parameters: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """Undeploy what is meant; after the traffic was shifted, what stays is only told."""
        name = str(parameters["endpoint"])
        endpoint = self._endpoint(call, name)
        if call.operation == "undeploy_version":
            return self._undeploy_version(call, endpoint, parameters, report)
        try:
            return self._swept(call, endpoint, report)
        except PlatformError as error:
            if call.phase != "shift":
                raise
            report(f"{call.purpose}: not done, which costs its machines on: {error.line}")
            return {"undeployed": []}

    def _swept(
        self, call: Call, endpoint: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
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
            self._undeploy(call, endpoint["name"], model, moved, report)
        if deletes:
            request = aiplatform_v1.DeleteEndpointRequest(name=endpoint["name"])
            self._at_once(call, "delete_endpoint", request, report)
        return {"undeployed": doomed}

    def _undeploy_version(
        self,
        call: Call,
        endpoint: Mapping[str, Any],
        parameters: Mapping[str, Any],
        report: Progress,
    ) -> Mapping[str, Any]:
        version = parameters["model"]
        found = [m["id"] for m in endpoint["deployed_models"] if _versioned(m) == version]
        if not found:
            raise NotFoundError("deployed model", version, where=endpoint["name"])
        for model in found:
            self._undeploy(call, endpoint["name"], model, parameters["traffic_split"], report)
        return {"undeployed": found}

    def _undeploy(
        self, call: Call, name: str, model: str, split: Mapping[str, int], report: Progress
    ) -> None:
        request = aiplatform_v1.UndeployModelRequest(
            endpoint=name, deployed_model_id=model, traffic_split=split
        )
        self._at_once(call, "undeploy_model", request, report)

    def _at_once(self, call: Call, operation: str, request: Any, report: Progress) -> None:
        self._running[call.id] = self._sent(call, _ENDPOINTS, operation, request)
        self._finished(call, self._running[call.id], report)

    def _endpoint(self, call: Call, name: str) -> Mapping[str, Any]:
        request = aiplatform_v1.GetEndpointRequest(name=name)
        answer = self._sent(call, _ENDPOINTS, "get_endpoint", request)
        return told(answer, self._connection["region"])

    def _finished_job(self, call: Call) -> Mapping[str, Any] | None:
        request = aiplatform_v1.GetBatchPredictionJobRequest(name=self._job)
        answer = self._sent(call, _JOBS, "get_batch_prediction_job", request)
        job = told(answer, self._connection["region"])
        if job["state"] in _GIVEN_UP:
            name, self._job = self._job, ""
            words = job.get("error", {}).get("message", "")
            raise PlatformError(f"{call.purpose}: {job['state']}: {words}", where=name)
        return job if job["state"] in _FINISHED else None

    def _sent(self, call: Call, service: str, operation: str, request: Any) -> Any:
        api, _, name = service.partition(".")
        if service not in self._clients:
            kind = getattr(MODULES[api], name)
            self._clients[service] = kind(**self._options(kind, api))
        method = getattr(self._clients[service], operation)
        return asking(call, lambda: method(request=request, timeout=_REQUEST_SECONDS))

    def _options(self, kind: Any, api: str) -> dict[str, Any]:
        if emulator := self._connection.get("emulator"):
            channel = grpc.insecure_channel(emulator)
            return {"transport": kind.get_transport_class("grpc")(channel=channel)}
        if api == "aiplatform":  # has no global address
            address = f"{self._connection['region']}-aiplatform.googleapis.com"
            return {"credentials": self._credentials, "client_options": {"api_endpoint": address}}
        return {"credentials": self._credentials}


def _versioned(model: Mapping[str, Any]) -> str:
    """A deployed model's version, however the API names it."""
    name = str(model["model"])
    return name if "@" in name else f"{name}@{model['model_version_id']}"
