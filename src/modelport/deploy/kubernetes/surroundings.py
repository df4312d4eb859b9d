"""What stands around the replicas on plain Kubernetes: address, number, drains, network, metrics.

As for `modelport.deploy.kubernetes.workload`, a `Workload` of template expressions gives the
templates of the Helm chart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelport.deploy.kubernetes import manifests
from modelport.deploy.kubernetes.workload import CANDIDATE, SERVER, Workload

#: As large as what the server takes; ingress-nginx alone takes 1 MiB.
#: Source: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/
_BODY: Final = "nginx.ingress.kubernetes.io/proxy-body-size"


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
            "podSelector": {
                "matchLabels": {"app.kubernetes.io/name": work.name},
                "matchExpressions": [
                    {
                        "key": "app.kubernetes.io/component",
                        "operator": "In",
                        "values": [SERVER, CANDIDATE],
                    }
                ],
            },
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
    """The Service under a host's name; `route` has the class and TLS.

    Only HTTP: gRPC wants a host, and annotations of the controller, of its own.
    """
    backend = {"service": {"name": work.name, "port": {"name": "http"}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": work.metadata(annotations={_BODY: str(work.max_body)}),
        "spec": {**route, "rules": [{"host": host, "http": {"paths": [path]}}]},
    }
