"""From settings to the objects of a deployment on plain Kubernetes."""

from __future__ import annotations

from typing import Any

from modelport.deploy.kubernetes import manifests, surroundings, workload
from modelport.deploy.kubernetes.choices import KubernetesSettings, clients, monitor_labels
from modelport.deploy.service import Service


def scales(settings: KubernetesSettings) -> bool:
    """Whether an autoscaler sets the number of replicas."""
    return settings.max_replicas > settings.replicas


def assemble(
    service: Service,
    settings: KubernetesSettings,
    key: manifests.Key,
    sizing: manifests.Sizing,
    image: str,
) -> workload.Workload:
    """What the objects are made of."""
    environment = [{"name": k, "value": v} for k, v in sizing.environment().items()]
    if settings.grpc:
        environment.append({"name": "MODELPORT_GRPC_PORT", "value": str(manifests.GRPC_PORT)})
    mounts, volumes = [], []
    if key.secret:
        variable, mount, volume = manifests.key_parts(key.secret, key.entry)
        mounts, volumes = [mount], [volume]
    else:
        variable = manifests.anonymous_part()
    pull = [{"name": settings.pull_secret}] if settings.pull_secret else []
    return workload.Workload(
        name=service.name,
        namespace=settings.namespace,
        version=service.tag,
        package=service.package.digest,
        image=image,
        footprint=service.footprint,
        resources=sizing.resources(),
        max_body=sizing.max_body,
        environment=[*environment, variable],
        mounts=mounts,
        volumes=volumes,
        peers=_peers(settings),
        grpc=settings.grpc,
        scaling={
            "minReplicas": settings.replicas,
            "maxReplicas": settings.max_replicas,
            "utilization": settings.utilization,
        },
        # With an autoscaler the number is its own, or every update would set it back.
        fixed={} if scales(settings) else {"replicas": settings.replicas},
        placement={"imagePullSecrets": pull} if pull else {},
    )


def objects_of(
    work: workload.Workload, settings: KubernetesSettings, key: manifests.Key
) -> dict[str, dict[str, Any]]:
    """All objects by the `Call.id` that creates each, in order."""
    found = {
        "service-account": workload.service_account(work),
        "network-policy": surroundings.network_policy(work),
        "service": surroundings.service(work),
        "disruption-budget": surroundings.disruption_budget(work),
        "deployment": workload.deployment(work),
    }
    if scales(settings):
        found["autoscaler"] = surroundings.autoscaler(work)
    if settings.host:
        route: dict[str, Any] = {}
        if settings.ingress_class:
            route["ingressClassName"] = settings.ingress_class
        if settings.tls_secret:
            route["tls"] = [{"hosts": [settings.host], "secretName": settings.tls_secret}]
        found["ingress"] = surroundings.ingress(work, settings.host, route)
    if settings.service_monitor:
        found["service-monitor"] = surroundings.service_monitor(
            work, monitor_labels(settings), _authorization(key)
        )
    return found


def _peers(settings: KubernetesSettings) -> list[dict[str, Any]]:
    """From where the server may be asked; empty: from everywhere."""
    names = clients(settings)
    if "*" in names:
        return []
    names += [settings.ingress_namespace] if settings.host else []
    names += [settings.monitoring_namespace] if settings.service_monitor else []
    return [{"podSelector": {}}, *(_namespace_peer(name) for name in dict.fromkeys(names))]


def _namespace_peer(name: str) -> dict[str, Any]:
    # Kubernetes sets this label on every namespace since 1.21.
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _authorization(key: manifests.Key) -> dict[str, Any]:
    """How Prometheus shows the key; nothing without one."""
    if not key.secret:
        return {}
    return {
        "authorization": {
            "type": "Bearer",
            "credentials": {"name": key.secret, "key": key.entry},
        }
    }
