"""What becomes of a rollout, a pod or an InferenceService, and why it does not get ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from modelport.core.errors import ModelportError, PlatformError
from modelport.deploy.kubernetes import state

#: Seconds in which a pull or a start that failed is tried again before it counts.
_SETTLE: float = 15.0
#: The server's container, for plain Kubernetes and for KServe; others may be injected beside it.
_CONTAINERS: Final = ("server", "kserve-container")

#: Whether it is done, how it is, and what that answers.
Look = tuple[bool, str, Mapping[str, Any]]


class Reader(Protocol):
    """What is asked of a cluster."""

    def read(self, reference: Mapping[str, Any]) -> Mapping[str, Any]:
        """An object."""
        ...

    def select(
        self, api_version: str, kind: str, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[Any]:
        """The objects of a kind that a selector finds."""
        ...

    def log(self, namespace: str, pod: str, container: str, *, previous: bool) -> str:
        """The end of a container's log, or of what it said before its last restart."""
        ...


class Watch:
    """Looks at what is waited for, once at a time.

    Parameters
    ----------
    reader : Reader
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._first: dict[str, float] = {}

    def look(self, wait: Mapping[str, Any], reference: Mapping[str, Any]) -> Look:
        """Look at a ``rollout``, a pod to be ``ready``, or an InferenceService (``service``).

        Raises
        ------
        PlatformError
            When it will not get ready, with what its pods, their events and logs say.
        """
        looks: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Look]] = {
            "rollout": self._rollout, "ready": self._pod, "service": self._service,
        }  # fmt: skip
        return looks[wait["for"]](wait, reference)

    def pods(self, namespace: str, selector: Mapping[str, str]) -> list[Any]:
        """The pods with these labels."""
        return self._reader.select("v1", "Pod", namespace, labels=_joined(selector))

    def _rollout(self, wait: Mapping[str, Any], reference: Mapping[str, Any]) -> Look:
        found = self._reader.read(reference)
        done, failed, said = state.rollout_state(found)
        # Before the controller has seen the change its newest pods are those of the old version.
        if not done and state.observed(found):
            sets = self._reader.select(
                "apps/v1", "ReplicaSet", reference["namespace"], labels=_joined(wait["selector"])
            )
            pods = self.pods(reference["namespace"], wait["selector"])
            for pod in state.of_newest(found, sets, pods):
                self._refuse(pod)
        if failed:
            raise PlatformError(f"Deployment {reference['name']}: {failed}")
        return done, said, {"state": said}

    def _pod(self, wait: Mapping[str, Any], reference: Mapping[str, Any]) -> Look:
        pod = self._reader.read(reference)
        self._refuse(pod)
        done, said = state.pod_ready(pod)
        return done, said, {"state": said}

    def _service(self, wait: Mapping[str, Any], reference: Mapping[str, Any]) -> Look:
        found = self._reader.read(reference)
        done, failed, said = state.service_state(found)
        if failed:
            raise PlatformError(f"InferenceService {reference['name']}: {failed}")
        pods = self.pods(reference["namespace"], wait["selector"])
        if not done:
            for pod in pods:
                self._refuse(pod)
        elif wait.get("pods") and not any(state.pod_ready(pod)[0] for pod in pods):
            # Without Knative KServe says that it is ready as long as an old pod is.
            for pod in pods:
                self._refuse(pod)
            done, said = False, "waiting for a pod of the new version"
        status = found.get("status", {})
        url = status.get("url") or (status.get("address") or {}).get("url", "")
        return done, said, {"state": said, "url": url}

    def _refuse(self, pod: Mapping[str, Any]) -> None:
        problem = state.pod_problem(pod)
        if not problem:
            return
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        first = self._first.setdefault(name, time.monotonic())
        if not state.has_ended(pod) and time.monotonic() - first < _SETTLE:
            return
        text = "; ".join([f"pod {name}: {problem}", *self._warnings(namespace, name)])
        log = state.log_tail(self._log(pod))
        if log and log.splitlines()[-1].strip() not in problem:
            text += f"\nthe end of its log:\n{log}"
        raise PlatformError(text, hint=state.remedy(text))

    def _warnings(self, namespace: str, pod: str) -> list[str]:
        """The last warnings about a pod; the problem matters more than what cannot be read."""
        try:
            events = self._reader.select(
                "v1", "Event", namespace, fields=f"involvedObject.name={pod},type=Warning"
            )
        except ModelportError:
            return []
        said = [f"{e.get('reason')}: {e.get('message')}" for e in events]
        return list(dict.fromkeys(said[-3:]))

    def _log(self, pod: Mapping[str, Any]) -> str:
        metadata = pod["metadata"]
        names = [one["name"] for one in pod.get("spec", {}).get("containers", ())]
        name = next((one for one in names if one in _CONTAINERS), "")
        for previous in (False, True):
            try:
                log = self._reader.log(
                    metadata["namespace"], metadata["name"], name, previous=previous
                )
            except ModelportError:
                continue
            if log.strip():
                return log
        return ""


def _joined(selector: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in selector.items())
