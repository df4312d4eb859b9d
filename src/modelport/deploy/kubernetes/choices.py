"""What can be set about a deployment on plain Kubernetes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from modelport.core.errors import InputError
from modelport.deploy.base import Settings
from modelport.deploy.kubernetes import manifests
from modelport.deploy.kubernetes.manifests import MAX_BODY
from modelport.deploy.settings import setting

_HOST: Final = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_LABELS: Final = ("namespace", "clients", "ingress_namespace", "monitoring_namespace")
_NAMED: Final = (
    "ingress_namespace", "monitoring_namespace", "ingress_class", "tls_secret", "pull_secret",
)  # fmt: skip
#: Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
_KEY: Final = re.compile(r"([a-z0-9][-a-z0-9.]*/)?[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_VALUE: Final = re.compile(r"[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")


@dataclass(frozen=True, kw_only=True)
class KubernetesSettings(Settings):
    """What can be set; the texts are in the fields."""

    namespace: str = setting("models", "namespace; it has to exist")
    context: str = setting("", "context of the kubeconfig (default: the current one)")
    pull_secret: str = setting("", "the Secret with the credentials of the image's registry")
    key_secret: str = setting("", "NAME/KEY: the Secret's entry with the key that clients show")
    anonymous: bool = setting(False, "no key: everybody that the network policy lets in may ask")
    rps: float = setting(10.0, "requests a second at the peak, for the processor's share")
    replicas: int = setting(2, "replicas that always run")
    max_replicas: int = setting(10, "replicas at most; as many as replicas: no autoscaler")
    utilization: int = setting(70, "percent of the requested processor at which one is added")
    memory: str = setting("", "of a replica, as 512Mi (default: from the measured memory)")
    max_body: str = setting(MAX_BODY, "largest request body; memory grows by four of it")
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


def check(settings: KubernetesSettings) -> None:
    """Refuse what cannot be used.

    Raises
    ------
    InputError
        With the key.
    """
    names = [(key, getattr(settings, key)) for key in _NAMED if getattr(settings, key)]
    names += [("clients", one) for one in clients(settings) if one != "*"]
    for key, text in [("namespace", settings.namespace), *names]:
        manifests.check_name(key.replace("_", "-"), text, label=key in _LABELS)
    if settings.host and not _HOST.fullmatch(settings.host):
        raise InputError(
            f"not a host name: {settings.host!r}", where=f"--set host={settings.host}",
            hint="--set host=models.example.com",
        )  # fmt: skip
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
    if settings.monitor_labels and not settings.service_monitor:
        raise InputError("monitor-labels without a ServiceMonitor", hint="--set service-monitor=on")
    monitor_labels(settings)


def clients(settings: KubernetesSettings) -> list[str]:
    """The namespaces that may ask."""
    return [name.strip() for name in settings.clients.split(",") if name.strip()]


def monitor_labels(settings: KubernetesSettings) -> dict[str, str]:
    """The labels by which a Prometheus finds its ServiceMonitors."""
    text = settings.monitor_labels
    pairs = [pair.strip().partition("=") for pair in text.split(",") if pair.strip()]
    if not all(_KEY.fullmatch(name) and _VALUE.fullmatch(value) for name, _, value in pairs):
        raise InputError(
            f"not labels: {text!r}", where=f"--set monitor-labels={text}",
            hint="--set monitor-labels=release=prometheus",
        )  # fmt: skip
    return {name: value for name, _, value in pairs}
