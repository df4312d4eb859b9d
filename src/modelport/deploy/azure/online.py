"""The settings, and the documents, of Azure ML's managed online endpoints: what the YAML files say.

Sources: Microsoft's references "CLI (v2) managed online endpoint YAML schema" and "… deployment
YAML schema", and the articles "Use a custom container to deploy a model" and "Autoscale online
endpoints"; ``azure-ai-ml`` for what it accepts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from modelport.deploy.base import Settings
from modelport.deploy.documents import to_yaml
from modelport.deploy.service import Service
from modelport.deploy.settings import setting

_SCHEMA: Final = "https://azuremlschemas.azureedge.net/latest/managedOnline{}.schema.json"
_PORT: Final = 8080

#: Cores of the instance types that are small enough for most models.
_CORES: Final = {
    "Standard_F2s_v2": 2, "Standard_F4s_v2": 4, "Standard_F8s_v2": 8, "Standard_F16s_v2": 16,
    "Standard_DS2_v2": 2, "Standard_DS3_v2": 4, "Standard_DS4_v2": 8, "Standard_DS5_v2": 16,
    "Standard_E2s_v3": 2, "Standard_E4s_v3": 4, "Standard_E8s_v3": 8,
}  # fmt: skip

#: A queue that one instance works off in this time is short enough for anybody.
_BACKLOG: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class AzureMLSettings(Settings):
    """What can be set.

    ``auth-mode`` is ``aad_token`` unless set: callers are named and allowed one by one, and no
    key exists that could leak or has to be rotated.
    """

    subscription: str = setting("", "identifier of the subscription")
    resource_group: str = setting("", "resource group of the workspace")
    workspace: str = setting("", "Azure ML workspace")
    location: str = setting("", "region of the workspace, as in the endpoint's address: westeurope")
    instance_type: str = setting("Standard_F2s_v2", "size of each instance")
    instances: int = setting(2, "instances; with one, an update of the platform is a gap")
    max_instances: int = setting(0, "scale up to this many by processor load (0: no autoscaling)")
    identity: str = setting(
        "", "identifier of a user-assigned identity that may pull the image (default: its own)"
    )
    auth_mode: str = setting(
        "aad_token", "how callers authenticate", ("aad_token", "key", "aml_token")
    )
    public: bool = setting(True, "reachable from the internet")
    traffic: int = setting(100, "percent of the traffic after verification, the rest as before")
    mirror: int = setting(0, "percent of the traffic copied to it before it answers any (0-50)")
    keep_old: bool = setting(True, "keep the deployments before, without traffic, to go back")
    concurrency: int = setting(0, "requests at a time per instance (0: from the measurement)")
    timeout: int = setting(0, "seconds that a request may take (0: from the measurement)")


def named(service: Service) -> str:
    """The deployment's name: of the package, and beginning with a letter, as Azure insists."""
    return f"m-{service.tag}"


def endpoint_of(service: Service, settings: AzureMLSettings) -> dict[str, Any]:
    """The endpoint, which gets its traffic later."""
    own = {"user_assigned_identities": [{"resource_id": settings.identity}]}
    return {
        "name": service.name,
        **({"identity": {"type": "user_assigned", **own}} if settings.identity else {}),
        "auth_mode": settings.auth_mode,
        "public_network_access": "enabled" if settings.public else "disabled",
        "tags": {"modelport": service.model},
    }


def deployment_of(service: Service, settings: AzureMLSettings) -> dict[str, Any]:
    """The deployment of our image: its routes, its probes, and room for its requests."""
    seconds = timeout(service, settings)
    start = math.ceil(service.footprint.start)
    probe = {"period": 10, "timeout": 2, "success_threshold": 1, "failure_threshold": 30}
    return {
        "name": named(service),
        "endpoint_name": service.name,
        "environment": {
            "name": f"modelport-{service.name}",
            "version": _version(service.image(settings.image)),
            "image": service.image(settings.image),
            "tags": {"modelport": service.model},
            "inference_config": {
                "liveness_route": {"port": _PORT, "path": "/healthz"},
                "readiness_route": {"port": _PORT, "path": "/ready"},
                "scoring_route": {"port": _PORT, "path": "/score"},
            },
        },
        "environment_variables": {
            # The endpoint's own front end authenticates every caller.
            "MODELPORT_ALLOW_ANONYMOUS": "1",
            "MODELPORT_MODELS": f"/models/{service.model}",
            "MODELPORT_PORT": str(_PORT),
            # So that the server says what took too long, before the front end hangs up.
            "MODELPORT_TIMEOUT": str(seconds),
        },
        "instance_type": settings.instance_type,
        "instance_count": settings.instances,
        "request_settings": {
            "request_timeout_ms": seconds * 1000,
            "max_concurrent_requests_per_instance": concurrency(service, settings),
            "max_queue_wait_ms": 1000,
        },
        "liveness_probe": {"initial_delay": 10 + 10 * start, **probe},
        "readiness_probe": {"initial_delay": 1 + start, **probe},
        # Managed deployments take no other: see autoscale.json.
        "scale_settings": {"type": "default"},
        "tags": {"modelport": service.model, "package": service.package.digest},
    }


def _version(image: str) -> str:
    """An environment's version is one image: it can never be changed."""
    _, separator, digest = image.partition("@sha256:")
    return digest[:12] if separator else image.rpartition(":")[2].strip("<>")[:12]


def timeout(service: Service, settings: AzureMLSettings) -> int:
    """Seconds that a request may take."""
    # Azure's own 5 s fail the first large request; what is slow gets a hundred times its time.
    return settings.timeout or max(30, math.ceil(100 * service.footprint.latency))


def concurrency(service: Service, settings: AzureMLSettings) -> int:
    """Requests that an instance works off in a tenth of a second; Azure's own default is 1."""
    if settings.concurrency:
        return settings.concurrency
    cores = _CORES.get(settings.instance_type, 2)
    cost = max(service.footprint.processor, 1e-6)
    return max(2 * cores, min(256, int(cores * _BACKLOG / cost)))


def yaml_of(document: dict[str, Any], kind: str) -> str:
    """A document as a file, with Microsoft's schema of its kind."""
    return to_yaml({"$schema": _SCHEMA.format(kind), **document})


def autoscale(service: Service, settings: AzureMLSettings) -> dict[str, Any]:
    """Azure Monitor scales managed deployments. Source: "Autoscale online endpoints"."""
    target = (
        "[resourceId('Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments', "
        f"'{settings.workspace}', '{service.name}', '{named(service)}')]"
    )

    def rule(operator: str, threshold: int, direction: str) -> dict[str, Any]:
        return {
            "metricTrigger": {
                "metricName": "CpuUtilizationPercentage",
                "metricResourceUri": target,
                "timeGrain": "PT1M",
                "statistic": "Average",
                "timeWindow": "PT5M",
                "timeAggregation": "Average",
                "operator": operator,
                "threshold": threshold,
            },
            "scaleAction": {
                "direction": direction,
                "type": "ChangeCount",
                "value": "1",
                "cooldown": "PT5M",
            },
        }

    capacity = {
        "minimum": str(settings.instances),
        "maximum": str(settings.max_instances),
        "default": str(settings.instances),
    }
    rules = [rule("GreaterThan", 70, "Increase"), rule("LessThan", 30, "Decrease")]
    return {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "resources": [
            {
                "type": "Microsoft.Insights/autoscaleSettings",
                "apiVersion": "2022-10-01",
                "name": f"{service.name}-{named(service)}",
                "location": settings.location,
                "properties": {
                    "enabled": True,
                    "targetResourceUri": target,
                    "profiles": [{"name": "load", "capacity": capacity, "rules": rules}],
                },
            }
        ],
    }
