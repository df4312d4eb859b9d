"""KServe: a ServingRuntime of this package's image, and an InferenceService that uses it.

The runtime's name holds the package's digest, so that a change of the InferenceService is a change
of version, and Knative's revisions share the traffic.

Sources: https://github.com/kserve/kserve, ``config/crd/full/*.yaml`` and ``pkg/constants``;
https://knative.dev/docs/serving/ (one port, named ``http1`` or ``h2c``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.deploy import documents
from modelport.deploy.base import Call, Plan, PlannedFile, Result, Service, Settings
from modelport.deploy.kubernetes import calls as kubecalls
from modelport.deploy.kubernetes import manifests
from modelport.deploy.limits import check_limits
from modelport.deploy.settings import setting

_MODES: Final = ("standard", "knative")
#: Where KServe puts what `storage-uri` names.
_MOUNT: Final = "/mnt/models"


@dataclass(frozen=True, kw_only=True)
class KserveSettings(Settings):
    """What can be set; the texts are in the fields."""

    namespace: str = setting("models", "namespace; it has to exist")
    context: str = setting("", "context of the kubeconfig (default: the current one)")
    mode: str = setting("standard", "how KServe deploys", _MODES)
    protocol: str = setting("v2", "what clients speak", ("v1", "v2", "grpc-v2"))
    key_secret: str = setting("", "NAME/KEY: the Secret's entry with the key that clients show")
    anonymous: bool = setting(False, "no key: what is in front of the service authenticates")
    canary: int = setting(100, "percent of the traffic for the new version (knative)")
    storage_uri: str = setting("", "where the package is (default: in the image)")
    service_account: str = setting("", "the account with the credentials for storage-uri")
    rps: float = setting(10.0, "requests a second at the peak, for the processor's share")
    min_replicas: int = setting(1, "replicas that always run; 0 needs knative")
    max_replicas: int = setting(10, "replicas at most")
    scale_metric: str = setting("cpu", "what is scaled by", ("cpu", "memory", "concurrency", "rps"))
    scale_target: int = setting(70, "its value at which a replica is added")
    concurrency: int = setting(0, "requests at once for one replica (knative; 0: no limit)")
    timeout: int = setting(60, "seconds that a request may take")
    memory: str = setting("", "of a replica, as 512Mi (default: from the measured memory)")
    cpu: str = setting("", "of a replica, as 500m (default: from the measured time and rps)")
    take_over: bool = setting(False, "change fields, too, that other tools manage")


class KserveTarget:
    """Plans for KServe 0.15 and newer."""

    name = "kserve"
    settings = KserveSettings
    needs_image = True
    cold_start = "none (replicas always run); tens of seconds with knative and min-replicas=0"

    def plan(self, service: Service, settings: KserveSettings) -> Plan:
        """Say what has to be written and called.

        Raises
        ------
        InputError
            When a setting is missing or cannot be used, with the key.
        """
        _check(settings)
        key = manifests.read_key(settings.key_secret, settings.anonymous, self.name)
        sizing = manifests.size(
            service.footprint, rps=settings.rps, replicas=max(1, settings.min_replicas),
            memory=settings.memory, cpu=settings.cpu,
        )  # fmt: skip
        image, unpinned = manifests.image_of(settings.image, service)
        runtime = _runtime(service, settings, key, image)
        inference = _inference_service(service, settings, sizing, settings.canary)
        calls = _calls(service, settings, runtime, sizing)
        role = kubecalls.role(f"{service.name}-deployer", settings.namespace, calls)
        return Plan(
            target=self.name,
            service=service,
            image=image,
            applier="kubernetes",
            connection={"context": settings.context, "namespace": settings.namespace},
            files=(
                PlannedFile("servingruntime.yaml", documents.to_yaml(runtime), "how it is served"),
                PlannedFile(
                    "inferenceservice.yaml", documents.to_yaml(inference), "the service"
                ),
                PlannedFile(
                    "deployer-role.yaml",
                    documents.to_yaml(
                        role, comment="What modelport deploy --yes has to be allowed."
                    ),
                    "the least rights of whoever deploys; nothing applies it",
                ),
            ),
            calls=calls,
            status=Call(
                "status", "kubernetes", "get", _reference(service, settings),
                "read the InferenceService",
                rights=("get inferenceservices.serving.kserve.io",),
            ),
            endpoint=Result("ready", "url"),
            verify_at=Result("forward", "url"),
            checks=check_limits(
                self.name,
                {
                    "name": len(service.name),
                    "timeout": settings.timeout,
                    "concurrency": settings.concurrency,
                    "replicas": settings.min_replicas,
                },
                settings.mode,
            ),
            notes=_notes(service, settings, sizing, unpinned),
            commands=(
                "kubectl apply --server-side -f servingruntime.yaml",
                "kubectl apply --server-side -f inferenceservice.yaml",
            ),
        )  # fmt: skip


def _check(settings: KserveSettings) -> None:
    if not 0 <= settings.canary <= 100:
        raise InputError("not a percentage", where=f"--set canary={settings.canary}")
    if settings.canary < 100 and settings.mode != "knative":
        raise InputError(
            "KServe shares traffic between versions only with Knative",
            where=f"--set canary={settings.canary}", hint="--set mode=knative",
        )  # fmt: skip
    if settings.max_replicas < max(1, settings.min_replicas):
        raise InputError(
            f"max-replicas {settings.max_replicas} is less than min-replicas",
            hint=f"--set max-replicas={max(1, settings.min_replicas)}",
        )
    if settings.mode == "standard" and settings.scale_metric in ("concurrency", "rps"):
        raise InputError(
            f"{settings.scale_metric} is measured by Knative only",
            where=f"--set scale-metric={settings.scale_metric}",
            hint="--set scale-metric=cpu, or --set mode=knative",
        )


def _runtime_name(service: Service) -> str:
    return f"{service.name}-{service.tag}"


def _labels(service: Service) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": service.name,
        "app.kubernetes.io/version": service.tag,
        "app.kubernetes.io/managed-by": "modelport",
    }


def _runtime(
    service: Service, settings: KserveSettings, key: manifests.Key, image: str
) -> dict[str, Any]:
    """How KServe starts the image: its arguments are the flags that it gives every runtime."""
    grpc = settings.protocol == "grpc-v2"
    tmp, mount = manifests.temporary()
    volumes, mounts = [tmp], [mount]
    if key.secret:
        variable, key_mount, volume = manifests.key_parts(key.secret, key.entry)
        volumes.append(volume)
        mounts.append(key_mount)
    else:
        variable = manifests.anonymous_part()
    # Knative takes one port, and tells HTTP/2 by its name.
    port = (
        {"name": "h2c", "containerPort": manifests.GRPC_PORT, "protocol": "TCP"}
        if grpc
        else {"name": "http1", "containerPort": manifests.HTTP_PORT, "protocol": "TCP"}
    )
    arguments = ["--model_name={{.Name}}", f"--http_port={manifests.HTTP_PORT}"]
    arguments += [f"--grpc_port={manifests.GRPC_PORT}"] if grpc else []
    arguments += [f"--model_dir={_MOUNT}"] if settings.storage_uri else []
    probes = manifests.probes(service.footprint, manifests.HTTP_PORT, grpc=grpc)
    container = {
        "name": "kserve-container",  # KServe looks for this name
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "ports": [port],
        "env": [
            {"name": "MODELPORT_GRACE", "value": str(manifests.GRACE)},
            {"name": "MODELPORT_TIMEOUT", "value": str(settings.timeout)},
            variable,
        ],
        **probes,
        "securityContext": manifests.container_security(),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {
            "name": _runtime_name(service),
            "namespace": settings.namespace,
            "labels": _labels(service),
            "annotations": {"modelport/package": service.package.digest},
        },
        "spec": {
            "annotations": {
                "prometheus.kserve.io/port": str(manifests.HTTP_PORT),
                "prometheus.kserve.io/path": "/metrics",
            },
            "multiModel": False,
            "protocolVersions": [settings.protocol],
            # Only an InferenceService that names it uses it.
            "supportedModelFormats": [{"name": "modelport", "version": "1", "autoSelect": False}],
            "containers": [container],
            "volumes": volumes,
        },
    }


def _inference_service(
    service: Service, settings: KserveSettings, sizing: manifests.Sizing, canary: int
) -> dict[str, Any]:
    knative = settings.mode == "knative"
    model: dict[str, Any] = {
        "modelFormat": {"name": "modelport", "version": "1"},
        "runtime": _runtime_name(service),
        "protocolVersion": settings.protocol,
        "resources": sizing.resources(),
    }
    if settings.storage_uri:
        model["storageUri"] = settings.storage_uri
    predictor: dict[str, Any] = {
        "labels": _labels(service),
        "minReplicas": settings.min_replicas,
        "maxReplicas": settings.max_replicas,
        "scaleMetric": settings.scale_metric,
        "scaleTarget": settings.scale_target,
        "timeout": settings.timeout,
        "automountServiceAccountToken": False,
        "securityContext": manifests.pod_security(),
    }
    if settings.service_account:
        predictor["serviceAccountName"] = settings.service_account
    if knative:
        # Knative sets the pod's own grace to `timeout`, and refuses what it does not know.
        predictor["containerConcurrency"] = settings.concurrency
        if canary < 100:
            predictor["canaryTrafficPercent"] = canary
    else:
        predictor["deploymentStrategy"] = {
            "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        }  # fmt: skip
        predictor["terminationGracePeriodSeconds"] = manifests.GRACE + 15
    annotations = {
        "serving.kserve.io/deploymentMode": "Knative" if knative else "Standard",
        "modelport/package": service.package.digest,
    }
    if knative and settings.scale_metric in ("cpu", "memory"):
        # Knative's own autoscaler knows concurrency and rate only, and cannot do without them.
        annotations["autoscaling.knative.dev/class"] = "hpa.autoscaling.knative.dev"
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": service.name,
            "namespace": settings.namespace,
            "labels": _labels(service),
            "annotations": annotations,
        },
        "spec": {"predictor": {**predictor, "model": model}},
    }


def _reference(service: Service, settings: KserveSettings) -> dict[str, str]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "name": service.name,
        "namespace": settings.namespace,
    }


def _calls(
    service: Service, settings: KserveSettings, runtime: dict[str, Any], sizing: manifests.Sizing
) -> tuple[Call, ...]:
    """With Knative the new revision gets no traffic before it was verified."""
    knative = settings.mode == "knative"
    selector = {
        "serving.kserve.io/inferenceservice": service.name,
        "app.kubernetes.io/version": service.tag,
    }

    def service_call(identity: str, purpose: str, phase: str, canary: int) -> Call:
        body = _inference_service(service, settings, sizing, canary)
        return kubecalls.applied(
            identity, body, purpose, phase=phase, take_over=settings.take_over,
            previous="put the earlier version back",
        )  # fmt: skip

    def ready(identity: str, phase: str) -> Call:
        return Call(
            identity, "kubernetes", "get", _reference(service, settings),
            "wait until it has answered its golden records" if phase == "serve"
            else "wait until the traffic has moved",
            rights=("get inferenceservices.serving.kserve.io", "list pods", "list events"),
            phase=phase,
            wait={"for": "service", "selector": selector},
        )  # fmt: skip

    calls = [
        kubecalls.applied(
            "runtime", runtime, "say how the image is served", take_over=settings.take_over
        ),
        service_call(
            "service",
            "start the new version" + (", without traffic where one runs" if knative else ""),
            "serve",
            0 if knative else 100,
        ),
        ready("ready", "serve"),
        Call(
            "forward", "kubernetes", "portforward",
            {
                "namespace": settings.namespace,
                "selector": selector,
                "port": manifests.HTTP_PORT,
                "path": f"/v2/models/{service.name}/infer",
            },
            "open a port here that reaches it",
            # Kubernetes 1.35 asks for `create` where older ones ask for `get`.
            rights=("create pods/portforward", "get pods/portforward", "list pods"),
            phase="serve",
        ),
    ]  # fmt: skip
    if knative:
        calls += [
            service_call("traffic", f"give it {settings.canary} % of the traffic", "shift",
                         settings.canary),
            ready("moved", "shift"),
        ]  # fmt: skip
    return tuple(calls)


def _notes(
    service: Service, settings: KserveSettings, sizing: manifests.Sizing, unpinned: str
) -> tuple[str, ...]:
    notes = [unpinned] if unpinned else []
    notes.append(manifests.sizing_note(service.footprint, sizing, settings.rps))
    notes.append(
        f"clients call the model {service.name}, as KServe demands; verification asks the new pod "
        "through a forwarded port of 127.0.0.1 that ends with the command"
    )
    if settings.mode == "standard":
        notes.append(
            "without Knative the new version gets traffic as soon as it is ready, which is after "
            "it has answered its own golden records; wrong answers put the earlier one back"
        )
    if settings.protocol == "grpc-v2":
        notes.append("clients speak gRPC; verification asks the same model over HTTP, in the pod")
    if settings.anonymous:
        notes.append("there is no key: everybody who reaches the service may ask")
    else:
        notes.append(f"the Secret of {settings.key_secret} has to be in the namespace before")
    notes.append("ServingRuntimes of earlier versions stay, for a way back; delete them at will")
    if settings.canary < 100:
        notes.append("canary=100 later gives the new version all of the traffic")
    return tuple(notes)
