"""The calls of a deployment on Cloud Run, and what they have in common with Knative's YAML.

Sources: the Cloud Run Admin API v2 (`google.cloud.run_v2` types), "Container runtime contract",
"Configure memory limits" and "Configure CPU limits" of Cloud Run's documentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.deploy.base import Call, Result, Service, Settings
from modelport.deploy.google.place import short_digest
from modelport.deploy.google.traffic import BY_REVISION, CANDIDATE, camel, revisions_of
from modelport.deploy.kubernetes import knative
from modelport.deploy.settings import mebibytes, quantity, setting

RUN: Final = "run.ServicesClient"
_ACCOUNTS: Final = "iam.projects.serviceAccounts"
KEY: Final = "MODELPORT_API_KEY"
READY, LIVE = "/v2/health/ready", "/v2/health/live"
#: 240 seconds together: the most that a start may take.
STARTUP: Final = {"period": 2, "timeout": 1, "failures": 120}
LIVENESS: Final = {"period": 10, "timeout": 5, "failures": 3}
_WAIT: Final = {"operation": 900}

#: The most memory with so many CPUs. Source: "Configure memory limits for services".
_MOST: Final = {1: 4 << 30, 2: 8 << 30, 4: 16 << 30, 8: 32 << 30}
#: The second generation needs 512 MiB; files written to /tmp count, too.
_LEAST_MEMORY: Final = 512 << 20
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
    public: bool = setting(False, "anybody may call it who has the key (needs key-secret)")
    key_secret: str = setting(
        "", "NAME[:VERSION] of the secret with the key: of Secret Manager; Knative: NAME[:KEY]"
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


def account_call(service: Service, settings: CloudRunSettings, account: str) -> Call:
    """The service's own account; it is waited for, because others learn of it late."""
    project = f"projects/{settings.project}"
    body = {
        "accountId": account.partition("@")[0],
        "serviceAccount": {"displayName": f"modelport: {service.name} ({settings.region})"},
    }
    return Call(
        "account", _ACCOUNTS, "create", {"name": project, "body": body},
        "create the service's own account, without any role",
        rights=("iam.serviceAccounts.create", "iam.serviceAccounts.get"),
        undo=Call(
            "account-delete", _ACCOUNTS, "delete", {"name": f"{project}/serviceAccounts/{account}"},
            "delete the service's account", rights=("iam.serviceAccounts.delete",),
        ),
        wait={"exists": 120},
    )  # fmt: skip


def create(service: Service, parent: str, name: str, body: dict[str, Any]) -> Call:
    """The first revision gets all traffic; an existing service is only read."""
    revision = body["template"]["revision"]
    first = [{"type_": BY_REVISION, "revision": revision, "percent": 100}]
    return Call(
        "service", RUN, "create_service",
        {"parent": parent, "service_id": service.name, "service": {**body, "traffic": first}},
        "create the service",
        rights=("run.services.create", "run.services.get", "run.operations.get",
                "iam.serviceAccounts.actAs", "artifactregistry.repositories.downloadArtifacts"),
        phase="serve",
        otherwise=Call(
            "service-before", RUN, "get_service", {"name": name},
            "read the service as it is", rights=("run.services.get",),
        ),
        undo=Call(
            "service-delete", RUN, "delete_service", {"name": name}, "delete the service",
            rights=("run.services.delete", "run.operations.get"), wait=_WAIT,
        ),
        wait=_WAIT,
    )  # fmt: skip


def update(service: Service, name: str, body: dict[str, Any]) -> Call:
    """A revision without traffic; taken back, everything is as it was before."""
    traffic = revisions_of("service", body["template"]["revision"], 0, CANDIDATE)
    changed = {**body, "name": name, "etag": Result("service", "etag"), "traffic": traffic}
    before = {key: Result("service", key) for key in (*body, "traffic")}
    return Call(
        "candidate", RUN, "update_service",
        {"service": changed, "update_mask": _mask(*body, "traffic")},
        f"start the new revision without traffic, at the tag {CANDIDATE}",
        rights=("run.services.update", "run.operations.get", "iam.serviceAccounts.actAs",
                *([] if body["invoker_iam_disabled"] else ["run.routes.invoke"])),
        phase="serve",
        undo=Call(
            "candidate-undo", RUN, "update_service",
            {"service": {"name": name, **before}, "update_mask": _mask(*body, "traffic")},
            "put the service back as it was",
            rights=("run.services.update", "run.operations.get"), wait=_WAIT,
        ),
        wait=_WAIT,
    )  # fmt: skip


def shift(service: Service, settings: CloudRunSettings, name: str, revision: str) -> Call:
    """Its share of the traffic; `update` takes it back."""
    traffic = revisions_of("candidate", revision, settings.percent, "")
    changed = {"name": name, "etag": Result("candidate", "etag"), "traffic": traffic}
    return Call(
        "shift", RUN, "update_service",
        {"service": changed, "update_mask": _mask("traffic")},
        f"give the new revision {settings.percent} % of the traffic",
        rights=("run.services.update", "run.operations.get"),
        phase="shift",
        wait=_WAIT,
    )  # fmt: skip


def _mask(*fields: str) -> str:
    """A field mask as JSON has it."""
    return ",".join(camel(field) for field in fields)
