"""Kubernetes: manifests for ``kubectl apply -k``, the same as a Helm chart, and server-side apply.

The calls start one pod of the new version that gets no traffic, have it verified through a port
forward, and only then update the Deployment, which replaces its pods one by one.

Sources: https://kubernetes.io/docs/reference/kubernetes-api/ (objects),
https://kubernetes.io/docs/reference/using-api/server-side-apply/,
https://helm.sh/docs/topics/charts/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.deploy import documents
from modelport.deploy.base import Call, Plan, PlannedFile, Result, Service, Settings
from modelport.deploy.kubernetes import calls as kubecalls
from modelport.deploy.kubernetes import helm, manifests, workload
from modelport.deploy.limits import check_limits
from modelport.deploy.settings import setting

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HOST: Final = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")


@dataclass(frozen=True, kw_only=True)
class KubernetesSettings(Settings):
    """What can be set; the texts are in the fields."""

    namespace: str = setting("models", "namespace; it has to exist")
    context: str = setting("", "context of the kubeconfig (default: the current one)")
    key_secret: str = setting("", "NAME/KEY: the Secret's entry with the key that clients show")
    anonymous: bool = setting(False, "no key: everybody that the network policy lets in may ask")
    rps: float = setting(10.0, "requests a second at the peak, for the processor's share")
    replicas: int = setting(2, "replicas that always run")
    max_replicas: int = setting(10, "replicas at most; as many as replicas: no autoscaler")
    utilization: int = setting(70, "percent of the requested processor at which one is added")
    memory: str = setting("", "of a replica, as 512Mi (default: from the measured memory)")
    cpu: str = setting("", "of a replica, as 500m (default: from the measured time and rps)")
    grpc: bool = setting(False, "gRPC as well, on port 9000")
    clients: str = setting("", "namespaces that may ask, with commas; * all (default: its own)")
    host: str = setting("", "host name of an Ingress (default: no Ingress)")
    ingress_class: str = setting("", "class of the Ingress (default: the cluster's)")
    ingress_namespace: str = setting("ingress-nginx", "where the Ingress controller's pods are")
    tls_secret: str = setting("", "the Secret with the certificate of the host")
    service_monitor: bool = setting(False, "a ServiceMonitor, where the Prometheus operator is")
    monitor_labels: str = setting("", "labels of the ServiceMonitor: release=prometheus")
    monitoring_namespace: str = setting("monitoring", "where Prometheus' pods are")
    take_over: bool = setting(False, "change fields, too, that other tools manage")


class KubernetesTarget:
    """Plans for Kubernetes 1.27 and newer."""

    name = "kubernetes"
    settings = KubernetesSettings
    needs_image = True
    cold_start = "none (replicas always run)"

    def plan(self, service: Service, settings: KubernetesSettings) -> Plan:
        """Say what has to be written and called.

        Raises
        ------
        InputError
            When a setting is missing or cannot be used, with the key.
        """
        _check(settings)
        key = manifests.read_key(settings.key_secret, settings.anonymous, self.name)
        sizing = manifests.size(
            service.footprint, rps=settings.rps, replicas=settings.replicas,
            memory=settings.memory, cpu=settings.cpu,
        )  # fmt: skip
        image, unpinned = manifests.image_of(settings.image, service)
        work = _workload(service, settings, key, sizing, image)
        objects = _objects(work, settings, key)
        calls = _calls(work, settings, objects)
        chart = helm.chart(work, objects, key, _chart_choices(settings))
        namespace = settings.namespace
        return Plan(
            target=self.name,
            service=service,
            image=image,
            applier="kubernetes",
            connection={"context": settings.context, "namespace": namespace},
            files=(*_files(work, objects, calls), *chart),
            calls=calls,
            status=Call(
                "status", "kubernetes", "get", _reference(objects["deployment"]),
                "read the Deployment", rights=("get deployments.apps",),
            ),
            endpoint=_endpoint(service, settings),
            verify_at=Result("forward", "url"),
            checks=check_limits(self.name, _measures(service, objects)),
            notes=_notes(service, settings, sizing, unpinned),
            commands=(
                f"kubectl create namespace {namespace}  # once",
                "kubectl apply -k manifests",
                f"# or: helm upgrade --install --atomic -n {namespace} {service.name} "
                f"helm/{service.name}",
            ),
        )  # fmt: skip


def _check(settings: KubernetesSettings) -> None:
    for key, text, pattern in (
        ("namespace", settings.namespace, _LABEL),
        ("ingress-namespace", settings.ingress_namespace, _LABEL),
        ("monitoring-namespace", settings.monitoring_namespace, _LABEL),
        *(("host", host, _HOST) for host in (settings.host,) if host),
        *(("clients", one, _LABEL) for one in _clients(settings) if one != "*"),
    ):
        if not pattern.fullmatch(text):
            raise InputError(f"not a name: {text!r}", where=f"--set {key}={text}", hint="a-z 0-9 -")
    if settings.replicas < 1:
        raise InputError("no replica would run", where=f"--set replicas={settings.replicas}")
    if settings.max_replicas < settings.replicas:
        raise InputError(
            f"max-replicas {settings.max_replicas} is less than replicas {settings.replicas}",
            hint=f"--set max-replicas={settings.replicas} switches the autoscaler off",
        )
    if not 1 <= settings.utilization <= 100:
        raise InputError("not a percentage", where=f"--set utilization={settings.utilization}")
    if settings.tls_secret and not settings.host:
        raise InputError("tls-secret without host", hint="--set host=models.example.com")


def _clients(settings: KubernetesSettings) -> list[str]:
    return [name.strip() for name in settings.clients.split(",") if name.strip()]


def _namespace_peer(name: str) -> dict[str, Any]:
    # Kubernetes sets this label on every namespace since 1.21.
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _peers(settings: KubernetesSettings) -> list[dict[str, Any]]:
    """From where the server may be asked; empty: from everywhere."""
    names = _clients(settings)
    if "*" in names:
        return []
    names += [settings.ingress_namespace] if settings.host else []
    names += [settings.monitoring_namespace] if settings.service_monitor else []
    return [{"podSelector": {}}, *(_namespace_peer(name) for name in dict.fromkeys(names))]


def _workload(
    service: Service,
    settings: KubernetesSettings,
    key: manifests.Key,
    sizing: manifests.Sizing,
    image: str,
) -> workload.Workload:
    environment = [{"name": "MODELPORT_GRACE", "value": str(manifests.GRACE)}]
    if settings.grpc:
        environment.append({"name": "MODELPORT_GRPC_PORT", "value": str(manifests.GRPC_PORT)})
    mounts, volumes = [], []
    if key.secret:
        variable, mount, volume = manifests.key_parts(key.secret, key.entry)
        mounts, volumes = [mount], [volume]
    else:
        variable = manifests.anonymous_part()
    scaled = settings.max_replicas > settings.replicas
    return workload.Workload(
        name=service.name,
        namespace=settings.namespace,
        version=service.tag,
        package=service.package.digest,
        image=image,
        footprint=service.footprint,
        resources=sizing.resources(),
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
        fixed={} if scaled else {"replicas": settings.replicas},
        placement={},
    )


def _objects(
    work: workload.Workload, settings: KubernetesSettings, key: manifests.Key
) -> dict[str, dict[str, Any]]:
    """All objects by the `Call.id` that creates each, in order."""
    objects = {
        "service-account": workload.service_account(work),
        "network-policy": workload.network_policy(work),
        "service": workload.service(work),
        "disruption-budget": workload.disruption_budget(work),
        "deployment": workload.deployment(work),
    }
    if settings.max_replicas > settings.replicas:
        objects["autoscaler"] = workload.autoscaler(work)
    if settings.host:
        route: dict[str, Any] = {}
        if settings.ingress_class:
            route["ingressClassName"] = settings.ingress_class
        if settings.tls_secret:
            route["tls"] = [{"hosts": [settings.host], "secretName": settings.tls_secret}]
        objects["ingress"] = workload.ingress(work, settings.host, route)
    if settings.service_monitor:
        objects["service-monitor"] = workload.service_monitor(
            work, _labels(settings.monitor_labels), authorization(key.secret, key.entry)
        )
    return objects


def authorization(secret: str, entry: str) -> dict[str, Any]:
    """How Prometheus shows the key; nothing without one."""
    if not secret:
        return {}
    return {"authorization": {"type": "Bearer", "credentials": {"name": secret, "key": entry}}}


def _labels(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(name and value for name, _, value in pairs):
        raise InputError(
            f"not labels: {text!r}", where=f"--set monitor-labels={text}",
            hint="--set monitor-labels=release=prometheus",
        )  # fmt: skip
    return {name.strip(): value.strip() for name, _, value in pairs}


def _reference(body: Mapping[str, Any]) -> dict[str, str]:
    return {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "name": body["metadata"]["name"],
        "namespace": body["metadata"]["namespace"],
    }


def _calls(
    work: workload.Workload, settings: KubernetesSettings, objects: Mapping[str, dict[str, Any]]
) -> tuple[Call, ...]:
    """Prepare, start a pod without traffic, verify it, then roll the Deployment over."""

    def apply(identity: str, purpose: str, phase: str, previous: str = "") -> Call:
        return kubecalls.applied(
            identity, objects[identity], purpose,
            phase=phase, take_over=settings.take_over, previous=previous,
        )  # fmt: skip

    name = work.name
    calls = [
        apply("service-account", "create the account without rights", "prepare"),
        apply("network-policy", "close the network but for clients", "prepare"),
        apply("service", f"create the address {name}.{work.namespace}.svc", "prepare"),
        apply("disruption-budget", "let nodes be drained one replica at a time", "prepare"),
        *_candidate(work),
        apply("deployment", "replace the replicas one by one", "shift", "roll the Deployment back"),
        Call(
            "rollout", "kubernetes", "get", _reference(objects["deployment"]),
            "wait until all replicas are new",
            rights=("get deployments.apps", "list events", "list pods", "list replicasets.apps"),
            phase="shift",
            wait={"for": "rollout", "selector": work.selector()},
        ),
    ]  # fmt: skip
    if "autoscaler" in objects:
        calls.append(apply("autoscaler", "let the replicas follow the load", "shift"))
    if "ingress" in objects:
        calls.append(apply("ingress", f"route {settings.host} to it", "shift"))
    if "service-monitor" in objects:
        calls.append(apply("service-monitor", "let Prometheus find it", "shift"))
    done = _reference(workload.candidate(work))
    calls.append(
        Call(
            "candidate-done", "kubernetes", "delete", {**done, "missing": "ok"},
            "remove the verified pod", rights=("delete pods",), phase="shift",
        )
    )  # fmt: skip
    return tuple(calls)


def _candidate(work: workload.Workload) -> list[Call]:
    pod = workload.candidate(work)
    reference = _reference(pod)
    gone = Call(
        "candidate-delete", "kubernetes", "delete", reference, "remove the pod without traffic",
        rights=("delete pods",),
    )  # fmt: skip
    again = Call(
        "candidate-again", "kubernetes", "recreate", {"object": pod},
        "start a pod without traffic, in place of an earlier one",
        rights=("create pods", "delete pods", "get pods"), phase="serve", undo=gone,
    )  # fmt: skip
    return [
        Call(
            "candidate", "kubernetes", "create", {"object": pod},
            "start one pod of the new version, without traffic",
            rights=("create pods", "get pods", "patch pods"), phase="serve",
            otherwise=again, undo=gone,
        ),
        Call(
            "candidate-ready", "kubernetes", "get", reference,
            "wait until it has answered its golden records",
            rights=("get pods", "list events"), phase="serve",
            wait={"for": "ready"},
        ),
        Call(
            "forward", "kubernetes", "portforward",
            {
                "namespace": work.namespace,
                "selector": work.selector(workload.CANDIDATE),
                "port": manifests.HTTP_PORT,
            },
            "open a port here that reaches it",
            # Kubernetes 1.35 asks for `create` where older ones ask for `get`.
            rights=("create pods/portforward", "get pods/portforward", "list pods"),
            phase="serve",
        ),
    ]  # fmt: skip


_FILES: Final = {
    "service-account": ("service-account.yaml", "the account without rights"),
    "network-policy": ("network-policy.yaml", "who may ask the server"),
    "service": ("service.yaml", "its address in the cluster"),
    "disruption-budget": ("pod-disruption-budget.yaml", "how nodes may be drained"),
    "deployment": ("deployment.yaml", "the replicas"),
    "autoscaler": ("horizontal-pod-autoscaler.yaml", "how many there are"),
    "ingress": ("ingress.yaml", "its address outside"),
    "service-monitor": ("service-monitor.yaml", "its metrics, for the Prometheus operator"),
}


def _files(
    work: workload.Workload, objects: Mapping[str, dict[str, Any]], calls: tuple[Call, ...]
) -> list[PlannedFile]:
    files = [
        PlannedFile(f"manifests/{_FILES[key][0]}", documents.to_yaml(body), _FILES[key][1])
        for key, body in objects.items()
    ]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [_FILES[key][0] for key in objects],
    }
    role = kubecalls.role(f"{work.name}-deployer", work.namespace, calls)
    return [
        PlannedFile(
            "manifests/kustomization.yaml", documents.to_yaml(kustomization),
            "all of them, for kubectl apply -k",
        ),
        *files,
        PlannedFile(
            "deployer-role.yaml",
            documents.to_yaml(role, comment="What modelport deploy --yes has to be allowed."),
            "the least rights of whoever deploys; nothing applies it",
        ),
    ]  # fmt: skip


def _chart_choices(settings: KubernetesSettings) -> helm.Choices:
    return helm.Choices(
        replicas=settings.replicas,
        max_replicas=settings.max_replicas,
        utilization=settings.utilization,
        host=settings.host,
        ingress_class=settings.ingress_class,
        tls_secret=settings.tls_secret,
        service_monitor=settings.service_monitor,
        monitor_labels=_labels(settings.monitor_labels),
    )


def _measures(service: Service, objects: Mapping[str, Any]) -> dict[str, float]:
    largest = max(len(documents.to_json(body).encode()) for body in objects.values())
    return {
        "name": len(service.name),
        "object": largest,
        "package": service.package.size,
    }


def _endpoint(service: Service, settings: KubernetesSettings) -> str:
    if settings.host:
        return f"{'https' if settings.tls_secret else 'http'}://{settings.host}"
    return f"http://{service.name}.{settings.namespace}.svc"


def _notes(
    service: Service, settings: KubernetesSettings, sizing: manifests.Sizing, unpinned: str
) -> tuple[str, ...]:
    notes = [unpinned] if unpinned else []
    notes.append(manifests.sizing_note(service.footprint, sizing, settings.rps))
    notes.append(
        "verification asks the pod without traffic, through a forwarded port of 127.0.0.1 that "
        "ends with the command"
    )
    if not settings.host:
        notes.append("the endpoint is reached from inside the cluster; host=… adds an Ingress")
    if settings.anonymous:
        notes.append("there is no key: everybody that the network policy lets in may ask")
    else:
        notes.append(
            f"the Secret of {settings.key_secret} has to be in the namespace before; to verify, "
            "modelport shows the key in MODELPORT_API_KEY"
        )
    if settings.host and not settings.tls_secret:
        notes.append("the Ingress has no TLS: keys and data are readable on the way to it")
    if not settings.service_monitor:
        notes.append(
            "service-monitor is off, since it needs the Prometheus operator; the pods carry the "
            "prometheus.io annotations"
        )
    notes.append(
        "the network policy takes effect where the cluster's network plug-in enforces policies"
    )
    return tuple(notes)
