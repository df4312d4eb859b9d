"""Azure Resource Manager templates through ``azure-mgmt-resource``, and publishing of code.

Sources: "Deployments - Create Or Update" (``Microsoft.Resources``); "Package-based deployment for
Azure Functions" for ``/api/publish`` of the app's deployment service, and its states
(``DeployStatus`` of Kudu).
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Final

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from azure.core.rest import HttpRequest
from azure.identity import DefaultAzureCredential
from azure.mgmt.resource.resources import ResourceManagementClient

from modelport.core.errors import ConflictError, NotFoundError, PlatformError
from modelport.deploy.azure.archive import archive
from modelport.deploy.azure.errors import translate
from modelport.deploy.base import Call, Progress
from modelport.deploy.keys import shown_key

ARM: Final = "https://management.azure.com"
_SCOPE: Final = "https://management.azure.com/.default"
_POLL: Final = 5.0
_DELETE_SECONDS: Final = 900.0
_WEB: Final = "2024-04-01"

#: States of a published package, from Kudu.
_DONE: Final = 4
_STATES: Final = {0: "pending", 1: "building", 2: "deploying"}
_FAILED: Final = {
    -1: "it was cancelled", 3: "it failed", 5: "another one is in progress", 6: "only a part works",
}  # fmt: skip
#: What the deployment service answers until the app's identity may use the storage, and the
#: Resource Manager until the app's host runs.
_NOT_YET: Final = (403, 404, 500, 502, 503)
#: Five minutes, five seconds apart.
_TRIES: Final = 60

Parameters = Mapping[str, Any]


class AzureApplier:
    """See `modelport.deploy.base.Applier`."""

    name = "azure"

    def connect(self, connection: Mapping[str, str]) -> AzureConnection:
        """See `modelport.deploy.base.Applier.connect`."""
        logging.getLogger("azure.identity").setLevel(logging.ERROR)  # the error tells it, too
        credential = DefaultAzureCredential()
        with _translated("log in"):
            credential.get_token(_SCOPE)
            client = ResourceManagementClient(
                credential,
                connection["subscription"],
                base_url=ARM,
                credential_scopes=[_SCOPE],
            )
        return AzureConnection(client, connection)


class AzureConnection:
    """See `modelport.deploy.base.Connection`."""

    def __init__(self, client: Any, connection: Mapping[str, str]) -> None:
        self._client = client
        self._connection = connection
        self._pollers: dict[str, Any] = {}
        self._operations: dict[str, Callable[[Parameters], Any]] = {
            "resources.begin_create_or_update_by_id": self._put,
            "resources.get_by_id": self._read,
            "resources.begin_delete_by_id": self._delete,
            "sites.publish": self._publish,
            "sites.keep": self._keep,
        }
        #: Whether the app was there before: then its code cannot be taken back.
        self._existed = False

    def call(self, call: Call, parameters: Parameters) -> Mapping[str, Any]:
        """See `modelport.deploy.base.Connection.call`."""
        with _translated(call.operation, call.rights):
            answer = self._operations[call.operation](parameters)
        if isinstance(answer, dict):
            return answer
        self._pollers[call.id] = answer
        return {}

    def wait(
        self, call: Call, parameters: Parameters, answer: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """See `modelport.deploy.base.Connection.wait`."""
        deadline = time.monotonic() + 60 * call.wait["minutes"]
        with _translated(call.operation, call.rights):
            if call.operation == "sites.publish":
                return self._published(call, answer, deadline, report)
            poller = self._pollers.pop(call.id, None)
            if poller is None:
                return {}
            while not poller.done():
                poller.wait(_POLL)
                _check_time(deadline, call, str(poller.status()))
                report(f"{call.purpose}: {poller.status()}")
            found = poller.result()
        return {} if found is None else dict(found.as_dict())

    def headers(self) -> Mapping[str, str]:
        """What lets a caller in: the app's own key; never shown."""
        scope = (
            f"/subscriptions/{self._connection['subscription']}"
            f"/resourceGroups/{self._connection['resource-group']}"
        )
        path = f"{scope}/providers/Microsoft.Web/sites/{self._connection['app']}"
        with _translated("listkeys", ("Microsoft.Web/sites/host/listkeys/action",)):
            url = f"{path}/host/default/listkeys?api-version={_WEB}"
            answer = self._once_it_runs(lambda: self._send("POST", url))
        key = answer.json().get("functionKeys", {}).get("default", "")
        return {**({"x-functions-key": key} if key else {}), **shown_key(self._connection)}

    def _once_it_runs(self, ask: Callable[[], Any]) -> Any:
        """Ask again while the app's host or its identity is not there yet; at most 60 times."""
        for left in range(_TRIES, -1, -1):
            try:
                answer = ask()
            except ServiceRequestError:  # the name of a new app is not known everywhere yet
                if not left:
                    raise
            else:
                if answer.status_code < 300:
                    return answer
                if not left or answer.status_code not in _NOT_YET:
                    raise HttpResponseError(response=answer)
            time.sleep(_POLL)
        raise AssertionError  # the last try has returned or raised

    def _put(self, parameters: Parameters) -> Any:
        unless = parameters.get("unless")
        if unless is not None and self._exists(unless):
            self._existed = True
            raise ConflictError(f"{unless['id'].rpartition('/')[2]} exists")
        return self._client.resources.begin_create_or_update_by_id(
            parameters["id"], api_version=parameters["api_version"], parameters=parameters["body"]
        )

    def _read(self, parameters: Parameters) -> dict[str, Any]:
        found = self._client.resources.get_by_id(
            parameters["id"], api_version=parameters["api_version"]
        ).as_dict()
        kept = {key: found[key] for key in ("name", "location", "tags") if found.get(key)}
        inner = found.get("properties") or {}
        told = ("state", "defaultHostName", "availabilityState", "lastModifiedTimeUtc")
        return {**kept, **{key: inner[key] for key in told if key in inner}}

    def _delete(self, parameters: Parameters) -> dict[str, Any]:
        """One after the other: a plan cannot go before its apps."""
        deleted = []
        for resource in parameters["resources"]:
            if not self._exists(resource):
                continue
            poller = self._client.resources.begin_delete_by_id(
                resource["id"], api_version=resource["api_version"]
            )
            poller.wait(_DELETE_SECONDS)
            if not poller.done():
                raise PlatformError(
                    f"not deleted after {_DELETE_SECONDS:.0f} s", where=resource["id"]
                )
            poller.result()
            deleted.append(resource["id"])
        if not deleted:
            raise NotFoundError("resource", parameters["resources"][0]["id"])
        return {"deleted": deleted}

    def _exists(self, resource: Mapping[str, str]) -> bool:
        try:
            self._client.resources.get_by_id(resource["id"], api_version=resource["api_version"])
        except ResourceNotFoundError:
            return False
        return True

    def _publish(self, parameters: Parameters) -> dict[str, Any]:
        found = self._client.resources.get_by_id(
            parameters["id"], api_version=parameters["api_version"]
        ).as_dict()
        states = (found.get("properties") or {}).get("hostNameSslStates") or []
        names = [state["name"] for state in states if state.get("hostType") == "Repository"]
        if not names:
            raise PlatformError("the app has no deployment service", where=parameters["id"])
        data = archive(
            parameters["documents"], Path(parameters["package"]), parameters["model"]
        )  # fmt: skip
        url = f"https://{names[0]}/api/publish?RemoteBuild=true&Deployer=modelport"
        answer = self._once_it_runs(lambda: self._send("POST", url, data))
        return {"service": names[0], "deployment": answer.text().strip('" \n')}

    def _keep(self, parameters: Parameters) -> dict[str, Any]:
        if not self._existed:
            raise NotFoundError("earlier code of the app", parameters["deployment"])
        raise PlatformError(
            f"{self._connection['app']} goes on with the new code: Flex Consumption keeps no other",
            hint="deploy the earlier package again",
        )

    def _published(
        self, call: Call, answer: Mapping[str, Any], deadline: float, report: Progress
    ) -> dict[str, Any]:
        url = f"https://{answer['service']}/api/deployments/{answer['deployment']}"
        while True:
            told = self._send("GET", url)
            # Until it has been taken up there is nothing, which is no failure.
            document = told.json() if told.status_code == 200 else {}
            status = document.get("status", 0)
            if status == _DONE:
                return {"status": "published"}
            if status in _FAILED:
                said = document.get("status_text") or document.get("message") or ""
                raise PlatformError(
                    f"the package was not published: {_FAILED[status]}"
                    + (f": {said}" * bool(said)),
                    where=call.operation,
                    hint=f"az webapp log deployment show --name {self._connection['app']} "
                    f"--resource-group {self._connection['resource-group']}",
                )
            _check_time(deadline, call, _STATES.get(status, str(status)))
            report(f"{call.purpose}: {_STATES.get(status, status)}")
            time.sleep(_POLL)

    def _send(self, method: str, url: str, data: bytes | None = None) -> Any:
        headers = {"content-type": "application/zip"} if data is not None else {}
        request = HttpRequest(method, url, headers=headers, content=data)
        return self._client.send_request(request)


def _check_time(deadline: float, call: Call, state: str) -> None:
    if time.monotonic() > deadline:
        raise PlatformError(
            f"not {call.wait['until']} after {call.wait['minutes']} minutes: {state}",
            where=call.operation,
        )


@contextmanager
def _translated(operation: str, rights: tuple[str, ...] = ()) -> Iterator[None]:
    try:
        with redirect_stdout(sys.stderr):
            yield
    except AzureError as error:
        raise translate(error, operation, rights) from error
