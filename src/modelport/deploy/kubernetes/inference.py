"""The objects that serve a package on KServe: a ServingRuntime and an InferenceService.

The runtime's name holds a digest of all that it says. It is never changed, so that what runs is
not changed by preparing what comes next, and the earlier one is there for the way back.

Sources: https://github.com/kserve/kserve, ``config/crd/full/*.yaml``, ``pkg/constants`` and
``pkg/apis/serving/v1beta1/inference_service_validation.go``; for Knative
https://github.com/knative/serving, ``pkg/apis/serving/fieldmask.go`` (what a revision may say) and
``pkg/apis/config/features.go`` (what of it is switched off).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from modelport.core.digest import sha256_bytes
from modelport.deploy import documents
from modelport.deploy.kubernetes import manifests
from modelport.deploy.kubernetes.inference_choices import KserveSettings, metric_of
from modelport.deploy.service import Service

#: Where KServe puts what `storage-uri` names.
_MOUNT: Final = "/mnt/models"
#: Seconds after which Knative gives a revision up, unless it is told otherwise.
_PROGRESS: Final = 600
_REVISION: Final = "modelport/revision"


@dataclass(frozen=True)
class Inference:
    """What the objects are made of."""

    service: Service
    settings: KserveSettings
    key: manifests.Key
    sizing: manifests.Sizing
    image: str

    @property
    def knative(self) -> bool:
        """Whether Knative runs it, and not a Deployment."""
        return self.settings.mode == "knative"

    @property
    def reference(self) -> dict[str, str]:
        """What finds the InferenceService."""
        return {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "name": self.service.name,
            "namespace": self.settings.namespace,
        }

    @property
    def selector(self) -> dict[str, str]:
        """The labels of the pods of this version with these settings."""
        labels = inference_service(self, 100)["spec"]["predictor"]["labels"]
        return {
            "serving.kserve.io/inferenceservice": self.service.name,
            _REVISION: labels[_REVISION],
        }

    def labels(self) -> dict[str, str]:
        """Every object's labels."""
        return {
            "app.kubernetes.io/name": self.service.name,
            "app.kubernetes.io/version": self.service.tag,
            "app.kubernetes.io/managed-by": "modelport",
        }


def serving_runtime(work: Inference) -> dict[str, Any]:
    """How KServe starts the image: its arguments are the flags that it gives every runtime."""
    tmp, mount = manifests.temporary()
    volumes, mounts = [tmp], [mount]
    if work.key.secret:
        # Knative lets a pod have no group: there everybody in the container may read the key.
        variable, key_mount, volume = manifests.key_parts(
            work.key.secret, work.key.entry, group=not work.knative
        )
        volumes.append(volume)
        mounts.append(key_mount)
    else:
        variable = manifests.anonymous_part()
    spec: dict[str, Any] = {
        "annotations": {
            "prometheus.kserve.io/port": str(manifests.HTTP_PORT),
            "prometheus.kserve.io/path": "/metrics",
        },
        "multiModel": False,
        "protocolVersions": [work.settings.protocol],
        # Only an InferenceService that names it uses it.
        "supportedModelFormats": [{"name": "modelport", "version": "1", "autoSelect": False}],
        "containers": [_container(work, variable, mounts)],
        "volumes": volumes,
    }
    if work.settings.pull_secret:
        spec["imagePullSecrets"] = [{"name": work.settings.pull_secret}]
    package = work.service.package.digest
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {
            "name": f"{work.service.name}-{_digest([package, spec])}",
            "namespace": work.settings.namespace,
            "labels": work.labels(),
            "annotations": {"modelport/package": package},
        },
        "spec": spec,
    }


def _container(
    work: Inference, variable: dict[str, str], mounts: list[dict[str, Any]]
) -> dict[str, Any]:
    settings = work.settings
    grpc = settings.protocol == "grpc-v2"
    # Knative takes one port, and tells HTTP/2 by its name.
    port = (
        {"name": "h2c", "containerPort": manifests.GRPC_PORT, "protocol": "TCP"}
        if grpc
        else {"name": "http1", "containerPort": manifests.HTTP_PORT, "protocol": "TCP"}
    )
    arguments = ["--model_name={{.Name}}", f"--http_port={manifests.HTTP_PORT}"]
    arguments += [f"--grpc_port={manifests.GRPC_PORT}"] if grpc else []
    arguments += [f"--model_dir={_MOUNT}"] if settings.storage_uri else []
    return {
        "name": "kserve-container",  # KServe looks for this name
        "image": work.image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "ports": [port],
        "env": [
            *({"name": k, "value": v} for k, v in work.sizing.environment().items()),
            {"name": "MODELPORT_TIMEOUT", "value": str(settings.timeout)},
            variable,
        ],
        **manifests.probes(work.service.footprint, manifests.HTTP_PORT, grpc=grpc),
        "securityContext": manifests.container_security(),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def inference_service(work: Inference, canary: int) -> dict[str, Any]:
    """The service, with that percentage of the traffic for this version."""
    settings = work.settings
    predictor = _predictor(work)
    # By this the new pods are told from those that run, whatever has changed.
    labels = {**work.labels(), _REVISION: _digest(predictor)}
    if work.knative and canary < 100:
        predictor["canaryTrafficPercent"] = canary
    annotations = {
        "serving.kserve.io/deploymentMode": "Knative" if work.knative else "Standard",
        "modelport/package": work.service.package.digest,
    }
    if not work.knative:
        annotations["serving.kserve.io/autoscalerClass"] = "hpa"
    elif metric_of(settings) in ("cpu", "memory"):
        # Knative's own autoscaler knows concurrency and rate only, and cannot do without them.
        annotations["autoscaling.knative.dev/class"] = "hpa.autoscaling.knative.dev"
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": work.service.name,
            "namespace": settings.namespace,
            "labels": work.labels(),
            "annotations": annotations,
        },
        "spec": {"predictor": {"labels": labels, **predictor}},
    }


def _predictor(work: Inference) -> dict[str, Any]:
    settings = work.settings
    model: dict[str, Any] = {
        "modelFormat": {"name": "modelport", "version": "1"},
        "runtime": serving_runtime(work)["metadata"]["name"],
        "protocolVersion": settings.protocol,
        "resources": work.sizing.resources(),
    }
    if settings.storage_uri:
        model["storageUri"] = settings.storage_uri
    predictor: dict[str, Any] = {
        "minReplicas": settings.min_replicas,
        "maxReplicas": settings.max_replicas,
        "scaleMetric": metric_of(settings),
        "scaleTarget": _target(work),
        "timeout": settings.timeout,
        "automountServiceAccountToken": False,
    }
    if settings.service_account:
        predictor["serviceAccountName"] = settings.service_account
    if work.knative:
        # A pod's security context and grace are refused: the container's says enough, and the
        # grace is `timeout`.
        predictor["containerConcurrency"] = settings.concurrency
        deadline = manifests.deadline(work.service.footprint)
        if deadline > _PROGRESS:
            predictor["annotations"] = {"serving.knative.dev/progress-deadline": f"{deadline}s"}
    else:
        predictor["securityContext"] = manifests.pod_security()
        predictor["deploymentStrategy"] = {
            "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        }  # fmt: skip
        predictor["terminationGracePeriodSeconds"] = manifests.GRACE + 15
    return {**predictor, "model": model}


def _target(work: Inference) -> int:
    """At what one more replica is started; Knative goes by 70 % of it for rates."""
    settings, metric = work.settings, metric_of(work.settings)
    if settings.scale_target:
        return settings.scale_target
    if metric == "rps":
        return max(1, math.floor(work.sizing.cores / max(work.service.footprint.processor, 1e-6)))
    if metric == "concurrency":
        return min(100, settings.concurrency or 100)
    return 70


def _digest(value: Any) -> str:
    return sha256_bytes(documents.to_json(value).encode()).removeprefix("sha256:")[:12]
