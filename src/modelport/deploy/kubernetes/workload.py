"""The objects that serve a package on plain Kubernetes, for its manifests and for its Helm chart.

Both come from the same functions: for the chart a `Workload` holds template expressions
(`modelport.deploy.kubernetes.helm`) where it holds values for the manifests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelport.deploy.base import Footprint
from modelport.deploy.kubernetes import manifests

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
    environment, mounts, volumes : sequence
        Of the container and the pod.
    peers : sequence or str
        From where the server may be asked: NetworkPolicy peers; empty: from everywhere.
    monitors : sequence or str
        From where metrics may be read, besides.
    grpc : bool
    scaling : mapping
        ``minReplicas``, ``maxReplicas``, ``utilization``.
    fixed : mapping
        What the Deployment's spec says about replicas, where no autoscaler does.
    placement : mapping
        More of the pod: node selector, tolerations.
    """

    name: str
    namespace: str
    version: str
    package: str
    image: Any
    footprint: Footprint
    resources: Any
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


def service(work: Workload) -> dict[str, Any]:
    """One address for the ready replicas; port 80, and 9000 for gRPC."""
    ports: list[dict[str, Any]] = [
        {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}
    ]
    if work.grpc:
        ports.append(
            {
                "name": "grpc", "port": manifests.GRPC_PORT, "targetPort": "grpc",
                "protocol": "TCP", "appProtocol": "kubernetes.io/h2c",
            }
        )  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": work.metadata(),
        "spec": {"type": "ClusterIP", "selector": work.selector(), "ports": ports},
    }


def deployment(work: Workload) -> dict[str, Any]:
    """The replicas; an update keeps every old one until a new one is ready."""
    deadline = math.ceil(max(60.0, 20 * work.footprint.start)) + 300
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": work.metadata(annotations=dict(_SKIPPED)),
        "spec": {
            **work.fixed,
            "revisionHistoryLimit": 5,
            "minReadySeconds": 5,
            "progressDeadlineSeconds": deadline,
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
                    **work.placement,
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


def autoscaler(work: Workload) -> dict[str, Any]:
    """Replicas follow the processor; it goes down slowly, since models take time to load."""
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": work.metadata(),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": work.name},
            "minReplicas": work.scaling["minReplicas"],
            "maxReplicas": work.scaling["maxReplicas"],
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {
                            "type": "Utilization",
                            "averageUtilization": work.scaling["utilization"],
                        },
                    },
                }
            ],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
        },
    }


def disruption_budget(work: Workload) -> dict[str, Any]:
    """Drained nodes take one replica at a time, and those that are not ready at once."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": work.metadata(),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": work.selector()},
        },
    }


def network_policy(work: Workload) -> dict[str, Any]:
    """Only clients reach the server, and the server reaches nobody."""
    ports = [{"port": "http", "protocol": "TCP"}]
    ports += [{"port": "grpc", "protocol": "TCP"}] if work.grpc else []
    rule: dict[str, Any] = {"ports": ports}
    if work.peers:
        rule["from"] = work.peers
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": work.metadata(),
        "spec": {
            # The candidate's pod as well.
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": work.name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [rule],
            "egress": [],
        },
    }


def service_monitor(
    work: Workload, labels: Any, authorization: Mapping[str, Any]
) -> dict[str, Any]:
    """What the Prometheus operator scrapes; needs its CustomResourceDefinition."""
    metadata = work.metadata()
    metadata["labels"] = {**metadata["labels"], **labels}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": work.selector()},
            "endpoints": [{"port": "http", "path": "/metrics", "interval": "30s", **authorization}],
        },
    }


def ingress(work: Workload, host: Any, route: Mapping[str, Any]) -> dict[str, Any]:
    """The Service under a host's name; `route` has the class and TLS."""
    backend = {"service": {"name": work.name, "port": {"name": "http"}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": work.metadata(),
        "spec": {**route, "rules": [{"host": host, "http": {"paths": [path]}}]},
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
