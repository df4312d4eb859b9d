"""Kubernetes: manifests for ``kubectl apply -k``, the same as a Helm chart, and server-side apply.

The calls start one pod of the new version that gets no traffic, have it verified through a port
forward, and only then update the Deployment, which replaces its pods one by one.

Sources: https://kubernetes.io/docs/reference/kubernetes-api/ (objects),
https://kubernetes.io/docs/reference/using-api/server-side-apply/,
https://helm.sh/docs/topics/charts/.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

from modelport.deploy import documents
from modelport.deploy.base import Call, Plan, PlannedFile, Result
from modelport.deploy.kubernetes import assembly, helm, manifests, workload
from modelport.deploy.kubernetes import calls as kubecalls
from modelport.deploy.kubernetes.choices import KubernetesSettings, check
from modelport.deploy.kubernetes.objects import reference_of
from modelport.deploy.kubernetes.rollout import rollout_calls
from modelport.deploy.limits import check_limits
from modelport.deploy.service import Service


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
        check(settings)
        key = manifests.read_key(settings.key_secret, settings.anonymous, self.name)
        sizing = manifests.size(
            service.footprint, rps=settings.rps, replicas=settings.replicas,
            memory=settings.memory, cpu=settings.cpu, max_body=settings.max_body,
        )  # fmt: skip
        image = service.image(settings.image)
        unpinned = manifests.unpinned_note(image)
        work = assembly.assemble(service, settings, key, sizing, image)
        objects = assembly.objects_of(work, settings, key)
        calls = rollout_calls(work, objects, force=settings.take_over)
        namespace = settings.namespace
        return Plan(
            target=self.name,
            service=service,
            image=image,
            applier="kubernetes",
            connection={"context": settings.context, "namespace": namespace},
            files=(*_files(work, objects, calls), *helm.chart(work, key, settings)),
            calls=calls,
            status=Call(
                "status", "kubernetes", "get", reference_of(objects["deployment"]),
                "read the Deployment", rights=("get deployments.apps",),
            ),
            endpoint=_endpoint(service, settings),
            verify_at=Result("forward", "url"),
            checks=check_limits(self.name, _measures(service, objects)),
            notes=_notes(service, settings, sizing, unpinned),
            commands=_commands(service, settings),
        )  # fmt: skip


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


def _commands(service: Service, settings: KubernetesSettings) -> tuple[str, ...]:
    context = shlex.quote(settings.context)
    kubectl = f"kubectl --context {context}" if settings.context else "kubectl"
    helm_ = f"helm --kube-context {context}" if settings.context else "helm"
    name, namespace = service.name, settings.namespace
    return (
        f"{kubectl} create namespace {namespace}  # once",
        f"{kubectl} apply -k manifests",
        f"# or: {helm_} upgrade --install --atomic -n {namespace} {name} helm/{name}",
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
    if settings.anonymous and settings.host:
        notes.append("there is no key: whoever reaches the Ingress may ask, unless it asks for one")
    elif settings.anonymous:
        notes.append("there is no key: everybody that the network policy lets in may ask")
    else:
        notes.append(
            f"the Secret of {settings.key_secret} has to be in the namespace before; to verify, "
            "modelport shows the key in MODELPORT_API_KEY"
        )
    if settings.host and not settings.tls_secret:
        notes.append("the Ingress has no TLS: keys and data are readable on the way to it")
    if settings.host and settings.grpc:
        notes.append("the Ingress routes HTTP only; gRPC is reached from inside the cluster")
    if settings.replicas == 1:
        notes.append("one replica: draining its node interrupts the service; replicas=2 does not")
    if not settings.service_monitor:
        notes.append(
            "service-monitor is off, since it needs the Prometheus operator; the pods carry the "
            "prometheus.io annotations"
            + ("" if settings.anonymous else ", and metrics ask for the key")
        )
    notes.append(
        "the network policy takes effect where the cluster's network plug-in enforces policies"
    )
    return tuple(notes)
