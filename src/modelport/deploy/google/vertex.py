"""The calls of a deployment on Vertex AI, one function each.

Sources: the types of `google.cloud.aiplatform_v1` (ModelContainerSpec, Endpoint, DeployedModel)
and "Custom container requirements" of the Vertex AI documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.deploy.base import Call, Result, Settings
from modelport.deploy.service import Service
from modelport.deploy.settings import setting

MODELS: Final = "aiplatform.ModelServiceClient"
ENDPOINTS: Final = "aiplatform.EndpointServiceClient"
JOBS: Final = "aiplatform.JobServiceClient"
_PORT: Final = 8080
#: Of their own, so that no protocol of the server has another meaning for them.
_PREDICT, _HEALTH = "/vertex/predict", "/vertex/health"
_SHORT: Final = {"operation": 600}
LONG: Final = {"operation": 1800}

#: Memory of the machine types that are chosen here, each with two to eight processors.
#: Source: Compute Engine, "General-purpose machine family: E2 standard".
_MACHINES: Final = {"e2-standard-2": 8 << 30, "e2-standard-4": 16 << 30, "e2-standard-8": 32 << 30}
#: What the machine's own system and Vertex AI's agents are left.
_RESERVED: Final = 2 << 30

_CPU: Final = "aiplatform.googleapis.com/prediction/online/cpu/utilization"
_REQUESTS: Final = "aiplatform.googleapis.com/prediction/online/request_count"
_CPU_TARGET, _ALL_CPU = 60, 100
_MACHINE: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")


@dataclass(frozen=True, kw_only=True)
class VertexSettings(Settings):
    """What can be set about Vertex AI."""

    project: str = setting("", "Google Cloud project")
    region: str = setting("", "region, such as europe-west4")
    mode: str = setting("online", "an endpoint, or one batch prediction job", ("online", "batch"))
    machine: str = setting("", "machine type (default: the smallest e2-standard that fits)")
    min_replicas: int = setting(1, "machines that always run")
    max_replicas: int = setting(2, "machines at most")
    metric: str = setting("cpu", "what replicas are added by", ("cpu", "requests"))
    target: int = setting(
        0, "that metric's target: % of CPU (default: 60), or requests a minute per replica"
    )
    percent: int = setting(100, "share of the traffic for the new version")
    candidate: bool = setting(True, "verify on an endpoint of its own before it gets traffic")
    dedicated: bool = setting(False, "a dedicated endpoint: 10 MB, up to 3600 s; not 1.5 MB, 60 s")
    timeout: int = setting(60, "seconds for a prediction")
    deployment_timeout: int = setting(1800, "seconds in which a deployment must become ready")
    shared_memory: int = setting(0, "MB of /dev/shm (0: Vertex AI's default)")
    service_account: str = setting("", "identity of the container (default: one without rights)")
    source: str = setting("", "mode=batch: gs://… of the JSON Lines to score")
    destination: str = setting("", "mode=batch: gs://… folder for the predictions")


def machine(service: Service, settings: VertexSettings) -> dict[str, str]:
    """The machine type: as set, or the smallest that has twice the measured memory.

    Raises
    ------
    InputError
        When none of those that are chosen here has it.
    """
    if settings.machine:
        if not _MACHINE.fullmatch(settings.machine):
            raise InputError(
                f"not a machine type: {settings.machine!r}",
                where="--set machine=…",
                hint="n2-highmem-8, or another machine type of Vertex AI",
            )
        return {"machine_type": settings.machine}
    needed = 2 * service.footprint.memory + _RESERVED
    fitting = [name for name, memory in _MACHINES.items() if needed <= memory]
    if not fitting:
        raise InputError(
            f"the package needs more memory than {list(_MACHINES)[-1]} has",
            hint="--set machine=n2-highmem-8, or another machine type of Vertex AI",
        )
    return {"machine_type": fitting[0]}


def metric(settings: VertexSettings) -> dict[str, Any]:
    """What replicas are added by.

    Raises
    ------
    InputError
        When the target is none of that metric.
    """
    if settings.metric == "cpu":
        target = settings.target or _CPU_TARGET
        if not 0 < target <= _ALL_CPU:
            raise InputError(f"not a percentage of the CPU: {target}", where="--set target=…")
        return {"metric_name": _CPU, "target": target}
    if settings.target < 1:
        raise InputError(
            "metric=requests needs a target",
            hint="--set target=600: requests a minute that one replica should have",
        )
    return {"metric_name": _REQUESTS, "target": settings.target}


def alias(service: Service) -> str:
    """What the model's version is called: it holds the package's digest.

    Uploaded again, the alias moves to the new version. Source: Vertex AI, "How to use model
    version aliases".
    """
    return f"package-{service.tag}"


def upload(service: Service, settings: VertexSettings, parent: str, image: str) -> Call:
    """The model, or another version of it; the version has the package's digest as alias."""
    container: dict[str, Any] = {
        "image_uri": image,
        "env": [{"name": "MODELPORT_TIMEOUT", "value": str(settings.timeout)}],
        "ports": [{"container_port": _PORT}],
        "predict_route": _PREDICT,
        "health_route": _HEALTH,
        "deployment_timeout": f"{settings.deployment_timeout}s",
        "startup_probe": _probe(period=5, failures=max(3, settings.deployment_timeout // 5)),
        "health_probe": _probe(period=10, failures=3),
    }
    if settings.shared_memory:
        container["shared_memory_size_mb"] = str(settings.shared_memory)
    model = {
        "display_name": service.name,
        "version_aliases": [alias(service)],
        "version_description": f"{service.model}, package {service.package.digest}",
        "labels": service.labels,
        "container_spec": container,
    }
    name = f"{parent}/models/{service.name}"
    rights = (
        "aiplatform.models.upload",
        "aiplatform.operations.get",
        "artifactregistry.repositories.downloadArtifacts",
    )
    return Call(
        "model", MODELS, "upload_model",
        {"parent": parent, "model_id": service.name, "model": model},
        "upload the model", rights=rights, wait=_SHORT,
        otherwise=Call(
            "model-version", MODELS, "upload_model",
            {"parent": parent, "parent_model": name, "model": model},
            "upload another version of the model", rights=rights, wait=_SHORT,
            undo=Call(
                "model-version-delete", MODELS, "delete_model_version",
                {"name": Result("model", "versioned_name")}, "delete the version",
                rights=("aiplatform.models.delete",), wait=_SHORT,
            ),
        ),
        undo=Call(
            "model-delete", MODELS, "delete_model", {"name": name},
            "delete the model with all its versions",
            rights=("aiplatform.models.delete",), wait=_SHORT,
        ),
    )  # fmt: skip


def _probe(*, period: int, failures: int) -> dict[str, Any]:
    return {
        "http_get": {"path": _HEALTH, "port": _PORT},
        "period_seconds": period,
        "timeout_seconds": min(period, 5),
        "failure_threshold": failures,
    }


def endpoint(service: Service, settings: VertexSettings, parent: str, end: str, why: str) -> Call:
    """An endpoint, named ``NAME`` and what `end` says."""
    name = service.name + (f"-{end}" if end else "")
    body: dict[str, Any] = {
        "display_name": name,
        "labels": service.labels,
    }
    if settings.dedicated:
        body["dedicated_endpoint_enabled"] = True
        body["client_connection_config"] = {"inference_timeout": f"{settings.timeout}s"}
    full = f"{parent}/endpoints/{name}"
    id_ = end or "endpoint"
    return Call(
        id_, ENDPOINTS, "create_endpoint",
        {"parent": parent, "endpoint_id": name, "endpoint": body}, why,
        rights=("aiplatform.endpoints.create", "aiplatform.operations.get"), wait=_SHORT,
        otherwise=Call(
            f"{id_}-before", ENDPOINTS, "get_endpoint", {"name": full},
            "read the endpoint as it is", rights=("aiplatform.endpoints.get",),
        ),
        undo=delete(f"{id_}-delete", full),
    )  # fmt: skip


def delete(id_: str, full: str, phase: str = "prepare") -> Call:
    """Delete an endpoint with all that is deployed to it."""
    return Call(
        id_, ENDPOINTS, "delete_endpoint_with_models", {"endpoint": full},
        f"undeploy all from the endpoint {full.rpartition('/')[2]} and delete it",
        rights=("aiplatform.endpoints.undeploy", "aiplatform.endpoints.get",
                "aiplatform.endpoints.delete", "aiplatform.operations.get"),
        phase=phase, wait=LONG,
    )  # fmt: skip


def read(id_: str, full: str, phase: str) -> Call:
    """Read an endpoint: a dedicated one may have no address until something is deployed to it.

    Source: the SDK's ``Endpoint.predict``, which refuses as long as the address is empty.
    """
    return Call(
        id_, ENDPOINTS, "get_endpoint", {"name": full}, "read the endpoint's address",
        rights=("aiplatform.endpoints.get",), phase=phase,
    )  # fmt: skip


def undeploy(full: str) -> Call:
    """Take this version away again, whether it is there already or not."""
    return Call(
        "deploy-undo", ENDPOINTS, "undeploy_version",
        {
            "endpoint": full,
            "model": Result("model", "versioned_name"),
            "traffic_split": Result("endpoint", "traffic_split"),
        },
        "undeploy it, and give the traffic back",
        rights=("aiplatform.endpoints.undeploy", "aiplatform.endpoints.get",
                "aiplatform.operations.get", "aiplatform.operations.cancel"),
        wait=LONG,
    )  # fmt: skip


def clean(full: str) -> Call:
    """Undeploy versions that an earlier split had left without traffic."""
    return Call(
        "clean", ENDPOINTS, "undeploy_models", {"endpoint": full},
        "undeploy what has no traffic any more",
        rights=("aiplatform.endpoints.undeploy", "aiplatform.endpoints.get",
                "aiplatform.operations.get"),
        phase="shift", wait=LONG,
    )  # fmt: skip


def deploy(
    id_: str,
    service: Service,
    settings: VertexSettings,
    full: str,
    split: Any,
    *,
    replicas: tuple[int, int],
    phase: str,
    undo: Call | None = None,
) -> Call:
    """Deploy the model that the call ``model`` uploaded, with `replicas` from least to most."""
    resources = {
        "machine_spec": machine(service, settings),
        "min_replica_count": replicas[0],
        "max_replica_count": replicas[1],
        "autoscaling_metric_specs": [metric(settings)],
    }
    deployed: dict[str, Any] = {
        "model": Result("model", "versioned_name"),
        "display_name": f"{service.name}-{service.tag}",
        "dedicated_resources": resources,
    }
    if settings.service_account:
        deployed["service_account"] = settings.service_account
    return Call(
        id_, ENDPOINTS, "deploy_model",
        {"endpoint": full, "deployed_model": deployed, "traffic_split": split},
        f"deploy the model to the endpoint {full.rpartition('/')[2]}",
        rights=("aiplatform.endpoints.deploy", "aiplatform.endpoints.predict",
                "aiplatform.models.get", "aiplatform.operations.get", *acting(settings)),
        phase=phase, undo=undo, wait={"operation": settings.deployment_timeout + 900},
    )  # fmt: skip


def acting(settings: VertexSettings) -> tuple[str, ...]:
    """The right to let a container have an account's identity."""
    return ("iam.serviceAccounts.actAs",) if settings.service_account else ()
