"""How objects do, by what Kubernetes and KServe write into their status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Reasons of a waiting container that do not go away by themselves.
_HOPELESS: Final = (
    "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull",
    "ImagePullBackOff", "InvalidImageName", "RunContainerError",
)  # fmt: skip
#: What to do about what a pod's problem says.
_REMEDIES: Final = {
    "OOMKilled": "it needs more memory: --set memory=…",
    "ImagePull": "can the nodes reach that registry? --set pull-secret=… names the Secret of type "
    "kubernetes.io/dockerconfigjson with the registry's credentials",
    "secret": "the Secrets that the settings name have to be in the namespace before",
}
_REVISION: Final = "deployment.kubernetes.io/revision"


def rollout_state(found: Mapping[str, Any]) -> tuple[bool, str, str]:
    """Whether a Deployment's rollout is done, why it failed, and how far it is.

    Source: ``kubectl rollout status`` (k8s.io/kubectl/pkg/polymorphichelpers/rollout_status.go).
    """
    status = found.get("status", {})
    if not observed(found):
        return False, "", "waiting for the controller"
    refused = ""
    for condition in status.get("conditions", ()):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            # A quota, for example: it may be met when an old pod has ended.
            refused = f"; {condition.get('message', 'no pod can be made')}"
    for condition in status.get("conditions", ()):
        if condition.get("reason") == "ProgressDeadlineExceeded":
            said = condition.get("message", "it made no progress")
            return False, f"{said}{refused}", "failed"
    wanted = found["spec"].get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    available = status.get("availableReplicas", 0)
    old = status.get("replicas", 0) - updated
    state = f"{updated} of {wanted} replicas are new, {available} available, {old} old{refused}"
    return updated >= wanted and old <= 0 and available >= updated, "", state


def observed(found: Mapping[str, Any]) -> bool:
    """Whether the controller's status is about the newest specification."""
    seen = found.get("status", {}).get("observedGeneration", 0)
    return bool(seen >= found["metadata"].get("generation", 1))


def of_newest(found: Mapping[str, Any], sets: list[Any], pods: list[Any]) -> list[Any]:
    """The pods of a Deployment's newest revision: older ones may well be broken."""
    newest = (found["metadata"].get("annotations") or {}).get(_REVISION)
    owners = {
        item["metadata"]["uid"]
        for item in sets
        if newest and (item["metadata"].get("annotations") or {}).get(_REVISION) == newest
    }
    return [
        pod
        for pod in pods
        if owners & {owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())}
    ]


def pod_ready(pod: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a pod is ready, and how it is."""
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return False, "it is going away"
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    if conditions.get("Ready", {}).get("status") == "True":
        return True, "ready"
    placed = conditions.get("PodScheduled", {})
    if placed.get("status") == "False":
        return False, f"not placed: {placed.get('message') or placed.get('reason')}"
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting")
        if waiting:
            return False, " ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
    return False, str(status.get("phase", "Pending")).lower()


def pod_problem(pod: Mapping[str, Any]) -> str:
    """Why a pod will not become ready by itself; empty: it may."""
    status = pod.get("status", {})
    every = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for container in every:
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            ended = container.get("lastState", {}).get("terminated") or {}
            said = [waiting["reason"], waiting.get("message", ""), _last_words(ended)]
            return ": ".join(part for part in said if part)
    if has_ended(pod):
        ended_all = [c.get("state", {}).get("terminated") or {} for c in every]
        said = [_last_words(ended) for ended in ended_all if ended.get("exitCode")]
        # A server that is asked to end, by a probe that failed, ends without an error.
        other = [status.get("reason") or "it has ended", status.get("message", "")]
        return "; ".join(said) or ": ".join(part for part in other if part)
    return ""


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is over, and will not be started again."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def remedy(problem: str) -> str:
    """What to do about a pod's problem, as far as that can be told."""
    return next((text for word, text in _REMEDIES.items() if word in problem), "")


def log_tail(log: str, lines: int = 12) -> str:
    """The last lines of a server's log."""
    return "\n".join(f"  {line[:300]}" for line in log.rstrip().splitlines()[-lines:])


def service_state(found: Mapping[str, Any]) -> tuple[bool, str, str]:
    """Whether an InferenceService is ready, why it failed, and how it is.

    Source: KServe's ``InferenceServiceStatus`` and ``ModelStatus`` (v1beta1).
    """
    status = found.get("status", {})
    if not observed(found):
        return False, "", "waiting for the controller"
    model = status.get("modelStatus", {})
    transition = model.get("transitionStatus", "UpToDate")
    if transition in ("BlockedByFailedLoad", "InvalidSpec"):
        info = model.get("lastFailureInfo", {})
        return False, f"{transition}: {info.get('reason', '')}: {info.get('message', '')}", "failed"
    predictor = status.get("components", {}).get("predictor", {})
    created, ready = predictor.get("latestCreatedRevision"), predictor.get("latestReadyRevision")
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    waiting = [
        f"{name}: {c.get('reason', '')} {c.get('message', '')}".strip()
        for name, c in conditions.items()
        if c.get("status") != "True" and c.get("severity", "") == ""
    ]
    done = (
        conditions.get("Ready", {}).get("status") == "True"
        and transition == "UpToDate"
        and created == ready
    )
    return done, "", "; ".join(waiting) or f"model is {transition}"


def _last_words(ended: Mapping[str, Any]) -> str:
    """A terminated container's reason, exit code and message."""
    if not ended:
        return ""
    message = str(ended.get("message", "")).strip()
    head = f"{ended.get('reason', 'ended')} (exit code {ended.get('exitCode')})"
    return f"{head}: {message[-600:]}" if message else head
