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
from modelport.deploy.base import Call, Progress
from modelport.deploy.documents import to_yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's own use of marshmallow, not the user's concern
    from azure.ai.ml import MLClient, load_online_deployment, load_online_endpoint
    from azure.ai.ml.exceptions import MlException
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential

_SCOPE: Final = "https://management.azure.com/.default"
_POLL: Final = 5.0

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
        return self._endpoints.begin_delete(parameters["name"])

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
        return self._deployments.begin_delete(*key)

    def _delete_others(self, parameters: Parameters) -> dict[str, Any]:
        endpoint, kept = parameters["endpoint_name"], parameters["name"]
        traffic = self._endpoints.get(endpoint).traffic or {}
        every = [found.name for found in self._deployments.list(endpoint)]
        idle = [name for name in every if name != kept and not traffic.get(name)]
        for name in idle:
            self._deployments.begin_delete(name, endpoint).result()
        return {"deleted": idle}

    def _shift(self, parameters: Parameters) -> Any:
        endpoint = self._endpoints.get(parameters["endpoint_name"])
        kind, name = parameters["kind"], parameters["deployment"]
        shares = _shares(getattr(endpoint, kind))
        self._shares[parameters["endpoint_name"], kind] = shares
        shifted = shift(shares, name, parameters["percent"], fill=kind == "traffic")
        setattr(endpoint, kind, shifted)
        return self._endpoints.begin_create_or_update(endpoint)

    def _shift_back(self, parameters: Parameters) -> Any:
        endpoint = self._endpoints.get(parameters["endpoint_name"])
        kind, name = parameters["kind"], parameters["deployment"]
        shares = _shares(getattr(endpoint, kind))
        before = self._shares.pop((parameters["endpoint_name"], kind), None)
        if before is None:  # `destroy`: nothing is known but that it has to go
            before = shift(shares, name, 0, fill=kind == "traffic")
        if before == shares:
            raise NotFoundError("traffic", name)
        setattr(endpoint, kind, before)
        return self._endpoints.begin_create_or_update(endpoint)

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
        except AzureError:
            return
        for line in str(lines).splitlines():
            report(f"  {line}")


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


def shift(shares: Mapping[str, int], name: str, percent: int, *, fill: bool) -> dict[str, int]:
    """Shares with `percent` for one deployment, and the others in proportion to before.

    Parameters
    ----------
    shares : mapping of str to int
    name : str
    percent : int
    fill : bool
        Whether all shares make 100, as Azure insists for traffic, not for its copies: where
        there is no other deployment, this one gets everything, or there is none.
    """
    others = {key: value for key, value in shares.items() if key != name and value}
    chosen = {name: percent} if percent else {}
    if not fill:
        return chosen  # Azure copies to one deployment only
    total, rest = sum(others.values()), 100 - percent
    if not total or not rest:
        return {name: 100} if percent else {}
    scaled = {key: value * rest // total for key, value in others.items()}
    largest = max(others, key=lambda key: others[key])
    scaled[largest] += rest - sum(scaled.values())
    return {key: value for key, value in {**scaled, **chosen}.items() if value}


def _shares(traffic: Mapping[str, int] | None) -> dict[str, int]:
    return {name: int(share) for name, share in (traffic or {}).items() if int(share)}


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
