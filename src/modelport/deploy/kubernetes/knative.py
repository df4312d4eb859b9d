"""Knative Services as YAML: for any Knative, and for ``gcloud run services replace``.

Sources: Knative Serving API ``serving.knative.dev/v1`` and its runtime contract; Cloud Run's YAML
reference, which is the same with annotations of its own. Annotations are always texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelport.deploy.service import Service

PORT: Final = 8080

#: Our image runs as this user; nothing but /tmp is written.
_SECURITY: Final[dict[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def knative_service(
    service: Service,
    *,
    revision: str,
    spec: Mapping[str, Any],
    annotations: Mapping[str, str],
    revision_annotations: Mapping[str, str],
    namespace: str = "",
    more_labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A Service, with all traffic at the one revision.

    Parameters
    ----------
    service : Service
    revision : str
        Its name: ``SERVICE-…``.
    spec : mapping
        Of the revision.
    annotations, revision_annotations : mapping of str to str
    namespace : str
    more_labels : mapping of str to str, optional
        Of the service.
    """
    metadata: dict[str, Any] = {"name": service.name}
    metadata |= {"namespace": namespace} if namespace else {}
    metadata["labels"] = {**service.labels, **(more_labels or {})}
    metadata |= {"annotations": dict(annotations)} if annotations else {}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "template": {
                "metadata": {
                    "name": revision,
                    "labels": service.labels,
                    "annotations": dict(revision_annotations),
                },
                "spec": dict(spec),
            },
            "traffic": [{"revisionName": revision, "percent": 100}],
        },
    }


def container(
    image: str,
    environment: Mapping[str, str],
    secrets: Mapping[str, tuple[str, str]],
    limits: Mapping[str, str],
    probes: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The one container of a revision.

    Parameters
    ----------
    image : str
    environment : mapping of str to str
    secrets : mapping of str to (str, str)
        Variables whose value is in a secret: its name, and the key in it (for Cloud Run: the
        version).
    limits : mapping of str to str
        ``cpu`` and ``memory``.
    probes : mapping
        ``startupProbe``, ``readinessProbe``, ``livenessProbe``.
    """
    env: list[dict[str, Any]] = [{"name": k, "value": v} for k, v in environment.items()]
    env += [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
        for variable, (name, key) in secrets.items()
    ]
    return {
        "name": "server",
        "image": image,
        "ports": [{"name": "http1", "containerPort": PORT}],
        "env": env,
        "resources": {"limits": dict(limits)},
        **probes,
    }


def hardened(spec: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A revision's spec on a cluster of one's own: as little as the server needs."""
    return {
        **spec,
        "automountServiceAccountToken": False,
        "containers": [
            {
                **item,
                "securityContext": _SECURITY,
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a volume
            }
            for item in containers
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }


def probe(path: str, *, period: int, timeout: int, failures: int) -> dict[str, Any]:
    """An HTTP probe at the serving port."""
    return {
        "httpGet": {"path": path, "port": PORT},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }
