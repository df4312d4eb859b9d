"""Cloud Run: what can be set, and what an instance is made of.

Sources: the Cloud Run Admin API v2 (`google.cloud.run_v2` types), "Container runtime contract",
"Configure memory limits" and "Configure CPU limits" of Cloud Run's documentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.deploy.base import Settings
from modelport.deploy.google.place import short_digest
from modelport.deploy.kubernetes import knative
from modelport.deploy.service import Service
from modelport.deploy.settings import mebibytes, quantity, setting

KEY: Final = "MODELPORT_API_KEY"
READY, LIVE = "/v2/health/ready", "/v2/health/live"
#: 240 seconds together: the most that a start may take.
STARTUP: Final = {"period": 2, "timeout": 1, "failures": 120}
LIVENESS: Final = {"period": 10, "timeout": 5, "failures": 3}

#: The most memory with so many CPUs. Source: "Configure memory limits for services".
_MOST: Final = {1: 4 << 30, 2: 8 << 30, 4: 16 << 30, 8: 32 << 30}
#: The second generation needs 512 MiB; files written to /tmp count, too. Source: "Execution
#: environments" and "Memory limits" of Cloud Run's documentation.
_LEAST_MEMORY: Final = 512 << 20
GENERATIONS: Final = {
    "default": "EXECUTION_ENVIRONMENT_UNSPECIFIED",
    "gen1": "EXECUTION_ENVIRONMENT_GEN1",
    "gen2": "EXECUTION_ENVIRONMENT_GEN2",
}
#: Concurrent requests: as many as an instance answers in this time; and Cloud Run's own default.
_QUEUE_SECONDS: Final = 0.1
_DEFAULT_CONCURRENCY: Final = 80
#: After SIGTERM an instance has ten seconds.
_GRACE: Final = "8"

INGRESS: Final = {
    "all": "INGRESS_TRAFFIC_ALL",
    "internal": "INGRESS_TRAFFIC_INTERNAL_ONLY",
    "internal-and-cloud-load-balancing": "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER",
}


@dataclass(frozen=True, kw_only=True)
class CloudRunSettings(Settings):
    """What can be set about a Cloud Run service."""

    project: str = setting("", "Google Cloud project")
    region: str = setting("", "region, such as europe-west1")
    memory: str = setting("", "memory of an instance (default: twice what was measured)")
    cpu: int = setting(0, "CPUs of an instance: 1, 2, 4, 8 (default: what the memory needs)")
    concurrency: int = setting(0, "requests at once per instance (default: from measured cost)")
    min_instances: int = setting(0, "instances that always run")
    max_instances: int = setting(10, "instances at most")
    timeout: int = setting(60, "seconds for a request")
    ingress: str = setting("all", "who can reach it over the network", tuple(INGRESS))
    generation: str = setting("default", "execution environment", tuple(GENERATIONS))
    public: bool = setting(False, "anybody may call it who has the key (needs key-secret)")
    key_secret: str = setting(
        "", "NAME[:VERSION] of the secret with the key: of Secret Manager; Knative: NAME/KEY"
    )
    invoker: str = setting(
        "", "who may call it, beside those who may already: user:… group:… serviceAccount:…"
    )
    service_account: str = setting("", "the service's identity (default: its own, without roles)")
    percent: int = setting(100, "share of the traffic for the new revision")
    knative: bool = setting(False, "write a Service for Knative on any Kubernetes instead")
    namespace: str = setting("default", "namespace, for Knative")


@dataclass(frozen=True)
class Shape:
    """An instance: worked out from the settings and what was measured.

    Parameters
    ----------
    memory : int
        Bytes.
    cpu : int
    concurrency : int
    """

    memory: int
    cpu: int
    concurrency: int


def shape_of(service: Service, settings: CloudRunSettings) -> Shape:
    """Memory, processors and concurrent requests of an instance.

    Raises
    ------
    InputError
        When there is no instance with so many processors.
    """
    wanted = -(-max(2 * service.footprint.memory, _LEAST_MEMORY) >> 27) << 27  # whole 128 MiB
    memory = quantity(settings.memory, "--set memory=…") if settings.memory else wanted
    cpu = settings.cpu or next((n for n, most in _MOST.items() if memory <= most), max(_MOST))
    if cpu not in _MOST:
        raise InputError(f"not a number of CPUs: {cpu}", where="--set cpu=…", hint="1, 2, 4 or 8")
    if settings.generation == "gen2" and memory < _LEAST_MEMORY:
        raise InputError(
            f"the second generation needs 512Mi, not {settings.memory}",
            where="--set generation=gen2",
            hint="--set memory=512Mi, or generation=gen1",
        )
    cost = max(service.footprint.processor, 1e-6)
    fitting = math.floor(cpu * _QUEUE_SECONDS / cost)
    concurrency = settings.concurrency or min(_DEFAULT_CONCURRENCY, max(cpu, fitting))
    return Shape(memory, cpu, concurrency)


def times(settings: CloudRunSettings) -> dict[str, str]:
    """Time-outs: of a request, and of what runs at the end of an instance."""
    return {"MODELPORT_TIMEOUT": str(settings.timeout), "MODELPORT_GRACE": _GRACE}


def environment(settings: CloudRunSettings) -> dict[str, str]:
    """Values that are no secrets; ``PORT`` and ``K_SERVICE`` come from the platform.

    Without a key: Google's front end lets nobody in who may not invoke the service.
    """
    anonymous = {} if settings.key_secret else {"MODELPORT_ALLOW_ANONYMOUS": "1"}
    return times(settings) | anonymous


def secrets(settings: CloudRunSettings, default: str) -> dict[str, tuple[str, str]]:
    """Variables whose value is in a secret: its name, and the version or key in it."""
    name, _, version = settings.key_secret.partition(":")
    return {KEY: (name, version or default)} if name else {}


def template(
    service: Service, settings: CloudRunSettings, shape: Shape, image: str, account: str
) -> dict[str, Any]:
    """The API's `RevisionTemplate`; its name holds a digest of all of it."""
    env: list[dict[str, Any]] = [
        {"name": key, "value": value} for key, value in environment(settings).items()
    ]
    env += [
        {"name": key, "value_source": {"secret_key_ref": {"secret": secret, "version": version}}}
        for key, (secret, version) in secrets(settings, "latest").items()
    ]
    template = {
        "labels": service.labels,
        "scaling": {
            "min_instance_count": settings.min_instances,
            "max_instance_count": settings.max_instances,
        },
        "timeout": f"{settings.timeout}s",
        "service_account": account,
        "execution_environment": GENERATIONS[settings.generation],
        "max_instance_request_concurrency": shape.concurrency,
        "containers": [
            {
                "name": "server",
                "image": image,
                "ports": [{"name": "http1", "container_port": knative.PORT}],
                "env": env,
                "resources": {
                    "limits": {"cpu": str(shape.cpu), "memory": mebibytes(shape.memory)},
                    "cpu_idle": True,
                    "startup_cpu_boost": True,
                },
                "startup_probe": _probe(READY, **STARTUP),
                "liveness_probe": _probe(LIVE, **LIVENESS),
            }
        ],
    }
    return {"revision": f"{service.name}-{short_digest(template)}", **template}


def _probe(path: str, *, period: int, timeout: int, failures: int) -> dict[str, Any]:
    return {
        "http_get": {"path": path, "port": knative.PORT},
        "timeout_seconds": timeout,
        "period_seconds": period,
        "failure_threshold": failures,
    }
