"""What can be set about a deployment on KServe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from modelport.core.errors import InputError
from modelport.deploy.base import Settings
from modelport.deploy.kubernetes import manifests
from modelport.deploy.kubernetes.manifests import MAX_BODY
from modelport.deploy.settings import setting

_PERCENTS: Final = ("cpu", "memory")
_STORAGE: Final = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
_PASSWORD: Final = re.compile(r"://[^/]*@")


@dataclass(frozen=True, kw_only=True)
class KserveSettings(Settings):
    """What can be set; the texts are in the fields."""

    namespace: str = setting("models", "namespace; it has to exist")
    context: str = setting("", "context of the kubeconfig (default: the current one)")
    mode: str = setting("standard", "how KServe deploys", ("standard", "knative"))
    protocol: str = setting("v2", "what clients speak", ("v1", "v2", "grpc-v2"))
    pull_secret: str = setting("", "the Secret with the credentials of the image's registry")
    key_secret: str = setting("", "NAME/KEY: the Secret's entry with the key that clients show")
    anonymous: bool = setting(False, "no key: what is in front of the service authenticates")
    canary: int = setting(100, "percent of the traffic for the new version (knative)")
    storage_uri: str = setting("", "where the package is (default: in the image)")
    service_account: str = setting("", "the account with the credentials for storage-uri")
    rps: float = setting(10.0, "requests a second at the peak, for the processor's share")
    min_replicas: int = setting(1, "replicas that always run; 0 needs knative")
    max_replicas: int = setting(10, "replicas at most")
    scale_metric: str = setting(
        "", "what is scaled by (default: cpu; with knative: concurrency)",
        (*_PERCENTS, "concurrency", "rps"),
    )  # fmt: skip
    scale_target: int = setting(0, "its value at which a replica is added (default: by the metric)")
    concurrency: int = setting(0, "requests at once for one replica (knative; 0: no limit)")
    timeout: int = setting(60, "seconds that a request may take")
    memory: str = setting("", "of a replica, as 512Mi (default: from the measured memory)")
    max_body: str = setting(MAX_BODY, "largest request body; memory grows by four of it")
    cpu: str = setting("", "of a replica, as 500m (default: from the measured time and rps)")
    take_over: bool = setting(False, "change fields, too, that other tools manage")


def metric_of(settings: KserveSettings) -> str:
    """By what is scaled. Knative's own autoscaler is the one that every Knative has."""
    default = "concurrency" if settings.mode == "knative" else "cpu"
    return settings.scale_metric or default


def check(settings: KserveSettings) -> None:
    """Refuse what cannot be used.

    Raises
    ------
    InputError
        With the key.
    """
    manifests.check_name("namespace", settings.namespace, label=True)
    for key in ("pull_secret", "service_account"):
        if text := getattr(settings, key):
            manifests.check_name(key.replace("_", "-"), text)
    for key, least in (("timeout", 1), ("concurrency", 0), ("min_replicas", 0)):
        if getattr(settings, key) < least:
            where = f"--set {key.replace('_', '-')}={getattr(settings, key)}"
            raise InputError(f"less than {least}", where=where)
    if settings.max_replicas < max(1, settings.min_replicas):
        raise InputError(
            f"max-replicas {settings.max_replicas} is less than min-replicas",
            hint=f"--set max-replicas={max(1, settings.min_replicas)}",
        )
    _check_canary(settings)
    _check_scaling(settings)
    _check_storage(settings.storage_uri)


def _check_canary(settings: KserveSettings) -> None:
    if not 0 <= settings.canary <= 100:
        raise InputError("not a percentage", where=f"--set canary={settings.canary}")
    if settings.canary < 100 and settings.mode != "knative":
        raise InputError(
            "KServe shares traffic between versions only with Knative",
            where=f"--set canary={settings.canary}", hint="--set mode=knative",
        )  # fmt: skip


def _check_scaling(settings: KserveSettings) -> None:
    metric, target = metric_of(settings), settings.scale_target
    if settings.mode == "standard" and metric not in _PERCENTS:
        raise InputError(
            f"{metric} is measured by Knative only", where=f"--set scale-metric={metric}",
            hint="--set scale-metric=cpu, or --set mode=knative",
        )  # fmt: skip
    if settings.mode == "knative" and metric in _PERCENTS and not settings.min_replicas:
        raise InputError(
            f"nothing scales from zero by {metric}", where="--set min-replicas=0",
            hint="--set scale-metric=concurrency",
        )  # fmt: skip
    if target < 0 or (metric in _PERCENTS and target > 100):
        raise InputError(f"not a target for {metric}", where=f"--set scale-target={target}")


def _check_storage(uri: str) -> None:
    if uri and not _STORAGE.fullmatch(uri):
        raise InputError(
            f"not a storage URI: {uri!r}", where=f"--set storage-uri={uri}",
            hint="s3://bucket/folder, gs://…, pvc://claim/folder",
        )  # fmt: skip
    if _PASSWORD.search(uri):
        raise InputError(
            "storage-uri holds credentials, which would stand in files",
            hint="--set service-account=NAME: KServe takes them from its Secrets",
        )
