"""What Kubernetes' own fields say about objects: where they are, how they do, who owns a field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from modelport.deploy.kubernetes.calls import resource_of

#: Reasons of a waiting container that do not go away by themselves.
_HOPELESS: Final = (
    "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull",
    "ImagePullBackOff", "InvalidImageName", "RunContainerError",
)  # fmt: skip


def object_path(api_version: str, kind: str, namespace: str) -> str:
    """The path of all objects of a kind in a namespace.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
    """
    plural = resource_of({"apiVersion": api_version, "kind": kind}).partition(".")[0]
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{plural}"


def rollout_state(found: Mapping[str, Any]) -> tuple[bool, str, str]:
    """Whether a Deployment's rollout is done, why it failed, and how far it is.

    Source: ``kubectl rollout status`` (k8s.io/kubectl/pkg/polymorphichelpers/rollout_status.go).
    """
    status = found.get("status", {})
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 1):
        return False, "", "waiting for the controller"
    for condition in status.get("conditions", ()):
        if condition.get("reason") == "ProgressDeadlineExceeded":
            return False, str(condition.get("message", "it made no progress")), "failed"
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return False, str(condition.get("message", "no pod could be made")), "failed"
    wanted = found["spec"].get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    available = status.get("availableReplicas", 0)
    old = status.get("replicas", 0) - updated
    state = f"{updated} of {wanted} replicas are new, {available} available, {old} old"
    return updated >= wanted and old <= 0 and available >= updated, "", state


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
    if status.get("phase") == "Failed":
        ended_all = [c.get("state", {}).get("terminated") or {} for c in every]
        said = [_last_words(ended) for ended in ended_all if ended.get("exitCode")]
        return "; ".join(said) or f"{status.get('reason', 'failed')}: {status.get('message', '')}"
    return ""


def service_state(found: Mapping[str, Any]) -> tuple[bool, str, str]:
    """Whether an InferenceService is ready, why it failed, and how it is.

    Source: KServe's ``InferenceServiceStatus`` and ``ModelStatus`` (v1beta1).
    """
    status = found.get("status", {})
    seen = status.get("observedGeneration", 0)
    if seen < found["metadata"].get("generation", 1):
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


def owned_fields(found: Mapping[str, Any], manager: str) -> dict[str, Any] | None:
    """What a manager applied of an object: that, applied again, puts its part back.

    None where it has applied nothing.

    Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management and
    ``ExtractInto`` of k8s.io/apimachinery/pkg/util/managedfields.
    """
    for entry in found["metadata"].get("managedFields", ()):
        if (entry.get("manager"), entry.get("operation")) == (manager, "Apply") and not entry.get(
            "subresource"
        ):
            own: dict[str, Any] = _owned(found, entry.get("fieldsV1", {}))
            own["apiVersion"], own["kind"] = found["apiVersion"], found["kind"]
            metadata = own.setdefault("metadata", {})
            metadata["name"] = found["metadata"]["name"]
            metadata["namespace"] = found["metadata"]["namespace"]
            return own
    return None


def _owned(value: Any, fields: Mapping[str, Any]) -> Any:
    """The part of `value` that a set of fields names."""
    inner = {key: below for key, below in fields.items() if key != "."}
    if isinstance(value, Mapping):
        if not inner and "." not in fields:
            return value  # owned as a whole
        return {
            key[2:]: _owned(value[key[2:]], below)
            for key, below in inner.items()
            if key.startswith("f:") and key[2:] in value
        }
    if isinstance(value, list) and inner:
        return [part for item in value for part in _owned_items(item, inner)]
    return value


def _owned_items(item: Any, fields: Mapping[str, Any]) -> list[Any]:
    for key, below in fields.items():
        if key.startswith("v:") and json.loads(key[2:]) == item:
            return [item]
        if key.startswith("k:") and isinstance(item, Mapping):
            keys = json.loads(key[2:])
            if all(item.get(name) == value for name, value in keys.items()):
                return [{**_owned(item, below), **keys}]
    return []


def _last_words(ended: Mapping[str, Any]) -> str:
    """A terminated container's reason, exit code and message."""
    if not ended:
        return ""
    message = str(ended.get("message", "")).strip()
    head = f"{ended.get('reason', 'ended')} (exit code {ended.get('exitCode')})"
    return f"{head}: {message[-600:]}" if message else head
