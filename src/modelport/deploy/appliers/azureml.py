"""Azure ML through ``azure.ai.ml.MLClient``.

Azure's ``PUT`` creates or updates alike, so a call says which of the two it means: ``create``
looks first, and what exists is a conflict; ``update`` remembers what was there. Traffic is always
shifted from what the endpoint has at that moment.
"""

from __future__ import annotations

import io
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final

from modelport.core.errors import ConflictError, NotFoundError, PlatformError
from modelport.deploy.azure.errors import translate
from modelport.deploy.azure.traffic import shares_of, shift
from modelport.deploy.base import Call, Progress
from modelport.deploy.documents import to_yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's own use of marshmallow, not the user's concern
    from azure.ai.ml import MLClient, load_online_deployment, load_online_endpoint
    from azure.ai.ml.exceptions import MlException
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential

_SCOPE: Final = "https://management.azure.com/.default"
_POLL: Final = 5.0
#: Fifteen minutes, five seconds apart.
_TRIES: Final = 180
_BUSY: Final = 409

Parameters = Mapping[str, Any]


class AzureMLApplier:
    """See `modelport.deploy.base.Applier`."""

    name = "azureml"

    def connect(self, connection: Mapping[str, str]) -> AzureMLConnection:
        """See `modelport.deploy.base.Applier.connect`."""
        logging.getLogger("azure.identity").setLevel(logging.ERROR)  # the error tells it, too
        credential = DefaultAzureCredential()
        with _translated("log in"):
            credential.get_token(_SCOPE)
            client = MLClient(
                credential,
                connection["subscription"],
                connection["resource-group"],
                connection["workspace"],
                enable_telemetry=False,
                show_progress=False,
            )
        return AzureMLConnection(client, connection)


class AzureMLConnection:
    """See `modelport.deploy.base.Connection`."""

    def __init__(self, client: Any, connection: Mapping[str, str]) -> None:
        self._connection = connection
        self._endpoints = client.online_endpoints
        self._deployments = client.online_deployments
        self._pollers: dict[str, Any] = {}
        #: What an endpoint's traffic and a deployment were before this run touched them.
        self._shares: dict[tuple[str, str], dict[str, int]] = {}
        self._before: dict[tuple[str, str], Any] = {}
        self._operations: dict[str, Callable[[Parameters], Any]] = {
            "online_endpoints.begin_create_or_update": self._create_endpoint,
            "online_endpoints.get": self._read_endpoint,
            "online_endpoints.begin_delete": self._delete_endpoint,
            "online_endpoints.shift": self._shift,
            "online_endpoints.shift_back": self._shift_back,
            "online_deployments.begin_create_or_update": self._put_deployment,
            "online_deployments.restore": self._restore,
            "online_deployments.begin_delete": self._delete_deployment,
            "online_deployments.delete_others": self._delete_others,
        }

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
        for name, words in answer.get("failed", {}).items():
            report(f"{name} could not be deleted, which costs its instances on: {words}")
        poller = self._pollers.pop(call.id, None)
        if poller is None:
            return {}
        minutes = call.wait["minutes"]
        deadline = time.monotonic() + 60 * minutes
        try:
            with _translated(call.operation, call.rights):
                while not poller.done():
                    poller.wait(_POLL)
                    if time.monotonic() > deadline:
                        raise PlatformError(
                            f"not {call.wait['until']} after {minutes} minutes: {poller.status()}",
                            where=call.operation,
                        )
                    report(f"{call.purpose}: {poller.status()}")
                found = poller.result()
        except PlatformError:
            self._tell_logs(parameters, report)
            raise
        return {} if found is None else _plain(found)

    def headers(self) -> Mapping[str, str]:
        """What lets a caller in, and to the new deployment whatever the traffic; never shown."""
        with _translated("get_keys"):
            keys = self._endpoints.get_keys(self._connection["endpoint"])
        token = getattr(keys, "access_token", None) or getattr(keys, "primary_key", None)
        return {
            "authorization": f"Bearer {token}",
            "azureml-model-deployment": self._connection["deployment"],
        }

    def _create_endpoint(self, parameters: Parameters) -> Any:
        document = parameters["create"]
        if self._exists(lambda: self._endpoints.get(document["name"])):
            raise ConflictError(f"the endpoint {document['name']} exists")
        return self._endpoints.begin_create_or_update(load_endpoint(document))

    def _read_endpoint(self, parameters: Parameters) -> dict[str, Any]:
        return _plain(self._endpoints.get(parameters["name"]))

    def _delete_endpoint(self, parameters: Parameters) -> Any:
        self._endpoints.get(parameters["name"])  # a DELETE of what is not there is no error
        return _once_free(lambda: self._endpoints.begin_delete(parameters["name"]))

    def _put_deployment(self, parameters: Parameters) -> Any:
        document = parameters.get("create") or parameters["update"]
        key = document["name"], document["endpoint_name"]
        if "update" in parameters:
            self._before[key] = self._deployments.get(*key)
        elif self._exists(lambda: self._deployments.get(*key)):
            raise ConflictError(f"the deployment {key[0]} exists")
        return self._deployments.begin_create_or_update(load_deployment(document))

    def _restore(self, parameters: Parameters) -> Any:
        key = parameters["name"], parameters["endpoint_name"]
        before = self._before.get(key)
        if before is None:
            raise NotFoundError("earlier state of deployment", key[0])
        return self._deployments.begin_create_or_update(before)

    def _delete_deployment(self, parameters: Parameters) -> Any:
        key = parameters["name"], parameters["endpoint_name"]
        self._deployments.get(*key)
        return _once_free(lambda: self._deployments.begin_delete(*key))

    def _delete_others(self, parameters: Parameters) -> dict[str, Any]:
        endpoint, kept = parameters["endpoint_name"], parameters["name"]
        traffic = self._endpoints.get(endpoint).traffic or {}
        every = [found.name for found in self._deployments.list(endpoint)]
        idle = [name for name in every if name != kept and not traffic.get(name)]
        deleted, failed = [], {}
        for name in idle:
            try:
                self._deployments.begin_delete(name, endpoint).result()
                deleted.append(name)
            except (AzureError, MlException) as error:
                # The new one serves already: what stays costs money, and takes nothing back.
                failed[name] = translate(error, "online_deployments.begin_delete").line
        return {"deleted": deleted, "failed": failed}

    def _shift(self, parameters: Parameters) -> Any:
        endpoint = self._endpoints.get(parameters["endpoint_name"])
        kind, name = parameters["kind"], parameters["deployment"]
        shares = shares_of(getattr(endpoint, kind))
        self._shares[parameters["endpoint_name"], kind] = shares
        shifted = shift(shares, name, parameters["percent"], fill=kind == "traffic")
        setattr(endpoint, kind, shifted)
        if kind == "traffic" and parameters["percent"]:
            # Azure refuses a copy of the traffic for what gets a part of it.
            copies = shares_of(endpoint.mirror_traffic)
            self._shares[parameters["endpoint_name"], "mirror_traffic"] = copies
            endpoint.mirror_traffic = {key: copies[key] for key in copies if key != name}
        return self._endpoints.begin_create_or_update(endpoint)

    def _shift_back(self, parameters: Parameters) -> Any:
        endpoint = self._endpoints.get(parameters["endpoint_name"])
        kind, name = parameters["kind"], parameters["deployment"]
        now = shares_of(endpoint.traffic), shares_of(endpoint.mirror_traffic)
        before = self._shares.pop((parameters["endpoint_name"], kind), None)
        if before is not None:
            setattr(endpoint, kind, before)
        else:  # `destroy`: nothing is known but that it has to go
            endpoint.traffic = shift(now[0], name, 0, fill=True)
            endpoint.mirror_traffic = {key: share for key, share in now[1].items() if key != name}
        copies = self._shares.pop((parameters["endpoint_name"], "mirror_traffic"), None)
        if copies is not None:
            endpoint.mirror_traffic = copies
        if (shares_of(endpoint.traffic), shares_of(endpoint.mirror_traffic)) == now:
            raise NotFoundError("traffic", name)
        return _once_free(lambda: self._endpoints.begin_create_or_update(endpoint))

    def _exists(self, read: Callable[[], Any]) -> bool:
        try:
            read()
        except ResourceNotFoundError:
            return False
        return True

    def _tell_logs(self, parameters: Parameters, report: Progress) -> None:
        """The container's last words: Azure's own reason is often only that it is not ready."""
        document = parameters.get("create") or parameters.get("update") or {}
        if "endpoint_name" not in document:
            return
        try:
            lines = self._deployments.get_logs(document["name"], document["endpoint_name"], 50)
        except (AzureError, MlException):
            return
        for line in str(lines).splitlines():
            report(f"  {line}")


def _once_free(begin: Callable[[], Any]) -> Any:
    """Begin again while another operation runs: that which is being taken back, after Ctrl-C."""
    for left in range(_TRIES, -1, -1):
        try:
            return begin()
        except HttpResponseError as error:
            if error.status_code != _BUSY or not left:
                raise
        time.sleep(_POLL)
    raise AssertionError  # the last try has returned or raised


def load_endpoint(document: Mapping[str, Any]) -> Any:
    """An endpoint as the SDK reads it from its YAML file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_online_endpoint(io.StringIO(to_yaml(dict(document))))


def load_deployment(document: Mapping[str, Any]) -> Any:
    """A deployment as the SDK reads it from its YAML file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_online_deployment(io.StringIO(to_yaml(dict(document))))


def _plain(entity: Any) -> dict[str, Any]:
    """What an operator wants to know of an endpoint or a deployment."""
    kept = ("name", "provisioning_state", "scoring_uri", "auth_mode", "traffic",
            "mirror_traffic", "instance_type", "instance_count")  # fmt: skip
    found = {key: getattr(entity, key, None) for key in kept}
    return {key: value for key, value in found.items() if value is not None}


@contextmanager
def _translated(operation: str, rights: tuple[str, ...] = ()) -> Iterator[None]:
    try:
        # The SDK prints dots while it polls: they are for people, not for whoever reads us.
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (AzureError, MlException) as error:
        raise translate(error, operation, rights) from error
