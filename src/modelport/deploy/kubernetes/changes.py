"""Changes of a cluster's objects, by server-side apply, and how each is taken back.

Operations of a `Call`: ``create`` (apply what is not there), ``patch`` (apply over what is there;
answers its state ``before``), ``replace`` (put such a state back), ``recreate`` (delete, then
create), and ``delete`` (of what modelport manages; answers its state ``before``).

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/ (who owns which field).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from modelport.core.errors import ConflictError, NotFoundError, PlatformError
from modelport.deploy.kubernetes import objects

#: Applies one field for whoever manages it from then on, as the documentation of server-side
#: apply describes it for an autoscaler ("Transferring ownership").
_HANDOVER: Final = f"{objects.MANAGER}-handover"
_POLL: float = 1.0
_LONGEST: Final = 120.0


class Api(Protocol):
    """What is asked of a cluster."""

    def find(self, reference: Mapping[str, Any]) -> Mapping[str, Any]:
        """An object, with the record of who manages its fields."""
        ...

    def apply(self, body: Mapping[str, Any], manager: str, *, force: bool) -> Mapping[str, Any]:
        """Apply an object, server-side."""
        ...

    def update(self, body: Mapping[str, Any], manager: str) -> Mapping[str, Any]:
        """Replace an object."""
        ...

    def remove(self, reference: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Delete an object."""
        ...


class Changes:
    """Makes changes.

    Parameters
    ----------
    api : Api
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    def create(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Apply what is not there yet.

        Raises
        ------
        ConflictError
            When it is.
        """
        body = parameters["object"]
        try:
            self._api.find(objects.reference_of(body))
        except NotFoundError:
            return {"object": self._api.apply(body, objects.MANAGER, force=False)}
        raise ConflictError(f"{body['kind']} {body['metadata']['name']} exists already")

    def patch(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Apply over what is there; ``force`` also over what others manage.

        ``steady`` names a field: where nothing else would change, all is left as it is.
        ``scaled``: an autoscaler may manage the replicas.
        """
        body, force = parameters["object"], bool(parameters.get("force"))
        before = self._api.find(objects.reference_of(body))
        own, steady = objects.owned_fields(before), parameters.get("steady")
        if steady and own and objects.without(own, steady) == objects.without(body, steady):
            return {"before": before, "object": before}
        if parameters.get("scaled"):
            self._hand_over_replicas(body, before, own or {})
        return {"before": before, "object": self._api.apply(body, objects.MANAGER, force=force)}

    def _hand_over_replicas(
        self, body: Mapping[str, Any], before: Mapping[str, Any], own: Mapping[str, Any]
    ) -> None:
        """Keep the replicas when an autoscaler takes them over, or take them back from one.

        A field that its last manager gives up is gone: the Deployment would fall to one replica.
        """
        live = before["spec"].get("replicas")
        wanted = body["spec"].get("replicas", live)
        given_up = "replicas" in own.get("spec", {}) and "replicas" not in body["spec"]
        if given_up or wanted != live:
            metadata = {key: body["metadata"][key] for key in ("name", "namespace")}
            part = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata}
            self._api.apply({**part, "spec": {"replicas": wanted}}, _HANDOVER, force=True)

    def replace(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put an earlier state back: what this manager said then, or else all of it."""
        before = parameters["object"]
        if not before:
            return {}
        own = objects.owned_fields(before)
        if own is not None:
            return {"object": self._api.apply(own, objects.MANAGER, force=True)}
        kept = {key: value for key, value in before.items() if key != "status"}
        server = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp")
        kept["metadata"] = {k: v for k, v in before["metadata"].items() if k not in server}
        reference = objects.reference_of(before)
        try:
            version = self._api.find(reference)["metadata"]["resourceVersion"]
        except NotFoundError:
            return {"object": self._api.apply(kept, objects.MANAGER, force=True)}
        # Not every kind takes an update that does not say what it is an update of.
        kept["metadata"]["resourceVersion"] = version
        return {"object": self._api.update(kept, _HANDOVER)}

    def recreate(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Delete what is there, and create it again when it is gone."""
        reference = objects.reference_of(parameters["object"])
        deadline = time.monotonic() + _LONGEST
        try:
            self.delete(reference)
            while time.monotonic() < deadline:
                self._api.find(reference)
                time.sleep(_POLL)
        except NotFoundError:
            return self.create(parameters)
        raise PlatformError(f"{reference['kind']} {reference['name']} does not go away")

    def delete(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Delete what modelport manages; ``unless`` names what is no error: missing, foreign."""
        unless = parameters.get("unless", ())
        kind, name = parameters["kind"], parameters["name"]
        try:
            found = self._api.find(parameters)
            if not objects.is_own(found):
                if "foreign" in unless:
                    return {"before": {}}
                raise PlatformError(
                    f"{kind} {name} is not modelport's, and is left alone: it lacks the label "
                    f"{objects.MANAGED_BY}={objects.MANAGER}",
                    hint=f"kubectl delete {kind.lower()} {name}, if it is to go",
                )
            options = {
                "propagationPolicy": "Background",
                "preconditions": {"uid": found["metadata"]["uid"]},
            }
            self._api.remove(parameters, options)
        except NotFoundError:
            if "missing" not in unless:
                raise
            return {"before": {}}
        return {"before": found}
