"""The objects that serve a package on plain Kubernetes, for its manifests and for its Helm chart.

Both come from the same functions: for the chart a `Workload` holds template expressions
(`modelport.deploy.kubernetes.helm`) where it holds values for the manifests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelport.deploy.kubernetes import manifests
from modelport.deploy.service import Footprint

SERVER: Final = "model-server"
CANDIDATE: Final = "candidate"

#: Rules of checkov that are not met on purpose, and why.
_SKIPPED: Final = {
    "checkov.io/skip1": "CKV_K8S_15=The image is pinned by digest; Always would make every restart "
    "depend on the registry",
}


@dataclass(frozen=True)
class Workload:
    """What the objects are made of; `Any` may be a template expression.

    Parameters
    ----------
    name, namespace, version, package, image : str
        `version` is the package's tag, `package` its digest.
    footprint : Footprint
    resources : mapping or str
    max_body : int
        Bytes of the largest request body.
    environment, mounts, volumes : sequence
        Of the container and the pod.
    peers : sequence or str
        From where the server may be asked: NetworkPolicy peers; empty: from everywhere.
    grpc : bool
    scaling : mapping
        ``minReplicas``, ``maxReplicas``, ``utilization``.
    fixed : mapping
        What the Deployment's spec says about replicas, where no autoscaler does.
    placement : mapping
        More of the pod: pull secrets, node selector, tolerations.
    """

    name: str
    namespace: str
    version: str
    package: str
    image: Any
    footprint: Footprint
    resources: Any
    max_body: int
    environment: Sequence[Any]
    mounts: Sequence[Any]
    volumes: Sequence[Any]
    peers: Any
    grpc: bool
    scaling: Mapping[str, Any]
    fixed: Mapping[str, Any]
    placement: Mapping[str, Any]

    def selector(self, component: str = SERVER) -> dict[str, str]:
        """The labels by which its pods are found; they never change."""
        return {"app.kubernetes.io/name": self.name, "app.kubernetes.io/component": component}

    def labels(self, component: str = SERVER) -> dict[str, str]:
        """Every object's labels."""
        return {
            **self.selector(component),
            "app.kubernetes.io/version": self.version,
            "app.kubernetes.io/managed-by": "modelport",
        }

    def metadata(self, **more: Any) -> dict[str, Any]:
        """Every object's metadata."""
        labels = self.labels()
        return {"name": self.name, "namespace": self.namespace, "labels": labels, **more}


def service_account(work: Workload) -> dict[str, Any]:
    """An account without any right; the server asks Kubernetes nothing."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": work.metadata(),
        "automountServiceAccountToken": False,
    }


def deployment(work: Workload) -> dict[str, Any]:
    """The replicas; an update keeps every old one until a new one is ready."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": work.metadata(annotations=dict(_SKIPPED)),
        "spec": {
            **work.fixed,
            "revisionHistoryLimit": 5,
            "minReadySeconds": 5,
            "progressDeadlineSeconds": manifests.deadline(work.footprint),
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "selector": {"matchLabels": work.selector()},
            "template": {
                "metadata": _pod_metadata(work, SERVER),
                "spec": {
                    **_pod(work),
                    "topologySpreadConstraints": _spread(work),
                },
            },
        },
    }


def candidate(work: Workload) -> dict[str, Any]:
    """One pod of the new version that gets no traffic: what is verified before the shift.

    The Service does not select it. It is not started again, so that a failure is final and its
    last words can be read.
    """
    pod = _pod(work)
    container = dict(pod["containers"][0])
    del container["lifecycle"]  # it has no traffic to drain
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{work.name}-{CANDIDATE}",
            "namespace": work.namespace,
            **_pod_metadata(work, CANDIDATE),
        },
        "spec": {**pod, "containers": [container], "restartPolicy": "Never"},
    }


def _pod_metadata(work: Workload, component: str) -> dict[str, Any]:
    return {
        "labels": work.labels(component),
        "annotations": {
            "modelport/package": work.package,
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(manifests.HTTP_PORT),
            "prometheus.io/path": "/metrics",
            **_SKIPPED,
        },
    }


def _pod(work: Workload) -> dict[str, Any]:
    volume, mount = manifests.temporary()
    ports = [{"name": "http", "containerPort": manifests.HTTP_PORT, "protocol": "TCP"}]
    if work.grpc:
        ports.append({"name": "grpc", "containerPort": manifests.GRPC_PORT, "protocol": "TCP"})
    container = {
        "name": "server",
        "image": work.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": ports,
        "env": list(work.environment),
        "resources": work.resources,
        **manifests.probes(work.footprint, "http"),
        # Proxies keep sending for a moment after the pod is gone from the Service.
        "lifecycle": {
            "preStop": {
                "exec": {"command": ["python", "-c", f"import time; time.sleep({manifests.DRAIN})"]}
            }
        },
        "securityContext": manifests.container_security(),
        "volumeMounts": [mount, *work.mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {
        "serviceAccountName": work.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": manifests.pod_security(),
        "terminationGracePeriodSeconds": manifests.DRAIN + manifests.GRACE + 10,
        "containers": [container],
        "volumes": [volume, *work.volumes],
        **work.placement,
    }


def _spread(work: Workload) -> list[dict[str, Any]]:
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": work.selector()},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
