"""Google Cloud Run, and Knative on any Kubernetes.

A new revision starts without traffic, with the tag ``candidate``; it is verified at the tag's
address; then it gets its share. Both read-modify-write steps carry the service's ``etag``, so
that nobody else's change is lost.

Sources: the Cloud Run Admin API v2 (`google.cloud.run_v2` types), "Container runtime contract",
"Memory limits" and "CPU limits" of Cloud Run's documentation; Knative Serving's runtime contract.
"""

from __future__ import annotations

from typing import Any

from modelport.core.errors import InputError
from modelport.deploy.base import Call, Plan, PlannedFile, Result, Service
from modelport.deploy.documents import to_yaml
from modelport.deploy.google import run
from modelport.deploy.google.place import (
    account_id,
    check_account,
    check_counts,
    check_percent,
    image_reference,
    location,
    short_digest,
)
from modelport.deploy.google.run import CloudRunSettings
from modelport.deploy.google.traffic import CANDIDATE
from modelport.deploy.kubernetes import knative
from modelport.deploy.limits import Check, check_limits
from modelport.deploy.settings import mebibytes


class CloudRunTarget:
    """Cloud Run services, through the Admin API v2."""

    name = "cloudrun"
    settings = CloudRunSettings
    needs_image = True
    cold_start = "seconds: an instance starts with the first request, unless min-instances is set"

    def plan(self, service: Service, settings: CloudRunSettings) -> Plan:
        """Say what has to be written and called.

        Raises
        ------
        InputError
            When the project or the region is missing, or a setting cannot be used.
        """
        check_counts(settings.min_instances, settings.max_instances, 0)
        check_percent(settings.percent)
        shape = run.shape_of(service, settings)
        if settings.knative:
            return _on_knative(service, settings, shape)
        parent = location(settings.project, settings.region, "cloudrun")
        if settings.public and not settings.key_secret:
            raise InputError(
                "a public service needs a key",
                where="--set public=true",
                hint="--set key-secret=NAME of a secret in Secret Manager that holds it",
            )
        image, notes = image_reference(service, settings.image)
        account = check_account(settings.service_account) or (
            f"{account_id(service, settings.region)}@{settings.project}.iam.gserviceaccount.com"
        )
        template = run.template(service, settings, shape, image, account)
        return _plan(service, settings, shape, parent, template, notes)


def _plan(
    service: Service,
    settings: CloudRunSettings,
    shape: run.Shape,
    parent: str,
    template: dict[str, Any],
    notes: tuple[str, ...],
) -> Plan:
    name = f"{parent}/services/{service.name}"
    account = template["service_account"]
    own = not settings.service_account
    image = template["containers"][0]["image"]
    body = {
        "labels": service.labels,
        "ingress": run.INGRESS[settings.ingress],
        "invoker_iam_disabled": settings.public,
        "template": template,
    }
    calls = (
        *([run.account_call(service, settings, account)] if own else []),
        run.create(service, parent, name, body),
        run.update(service, name, body),
        run.shift(service, settings, name, template["revision"]),
    )
    return Plan(
        target="cloudrun",
        service=service,
        image=image,
        applier="google",
        connection={"project": settings.project, "region": settings.region},
        files=(_cloud_yaml(service, settings, template),),
        calls=calls,
        status=Call(
            "status", run.RUN, "get_service", {"name": name}, "read the service",
            rights=("run.services.get",),
        ),
        endpoint=Result("shift", "uri"),
        verify_at=Result("candidate", f"tag_uris.{CANDIDATE}"),
        protocol="cloudrun",
        checks=_checks(service, settings, shape, run.environment(settings)),
        notes=(*notes, *_notes(settings, account)),
        commands=_commands(settings, account if own else ""),
    )  # fmt: skip


def _checks(
    service: Service, settings: CloudRunSettings, shape: run.Shape, environment: dict[str, str]
) -> tuple[Check, ...]:
    values = {
        "name": len(service.name),
        "memory": shape.memory,
        "timeout": settings.timeout,
        "concurrency": shape.concurrency,
        "replicas": settings.max_instances,
        "environment": max(len(value) for value in environment.values()),
        "request": service.request_bytes,
        "package": service.package.size,
    }
    return check_limits("cloudrun", values, f"cpu-{shape.cpu}")


def _notes(settings: CloudRunSettings, account: str) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    for secret, version in run.secrets(settings, "latest").values():
        notes += (
            "the service's account has to read the key: give it the role "
            f"roles/secretmanager.secretAccessor on the secret {secret} ({account})",
        )
        if version == "latest":
            notes += ("the key's version is not pinned: an instance takes the latest at its start",)
    if settings.public:
        return (*notes, "anybody can reach it; the server asks for the key")
    if not settings.key_secret:
        notes += ("the server asks for no key: Cloud Run's front end authenticates",)
    return (
        *notes,
        "callers need roles/run.invoker and an identity token; nobody is given it here",
    )


def _cloud_yaml(
    service: Service, settings: CloudRunSettings, template: dict[str, Any]
) -> PlannedFile:
    """The same service as ``gcloud run services replace`` takes it."""
    server = template["containers"][0]
    document = knative.knative_service(
        service,
        revision=template["revision"],
        annotations={
            "run.googleapis.com/ingress": settings.ingress,
            "run.googleapis.com/invoker-iam-disabled": str(settings.public).lower(),
        },
        revision_annotations={
            "autoscaling.knative.dev/minScale": str(settings.min_instances),
            "autoscaling.knative.dev/maxScale": str(settings.max_instances),
            "run.googleapis.com/cpu-throttling": "true",
            "run.googleapis.com/startup-cpu-boost": "true",
        },
        spec={
            "containerConcurrency": template["max_instance_request_concurrency"],
            "timeoutSeconds": settings.timeout,
            "serviceAccountName": template["service_account"],
            "containers": [
                knative.container(
                    server["image"],
                    run.environment(settings),
                    run.secrets(settings, "latest"),
                    server["resources"]["limits"],
                    {
                        "startupProbe": knative.probe(run.READY, **run.STARTUP),
                        "livenessProbe": knative.probe(run.LIVE, **run.LIVENESS),
                    },
                )
            ],
        },
    )
    text = to_yaml(document, comment="Written by modelport: gcloud run services replace FILE")
    return PlannedFile("service.yaml", text, "the service, for gcloud run services replace")


def _commands(settings: CloudRunSettings, account: str) -> tuple[str, ...]:
    where = f"--project {settings.project}"
    name = account.partition("@")[0]
    create = (f"gcloud iam service-accounts create {name} {where}",) if account else ()
    return (
        *create,
        f"gcloud run services replace service.yaml {where} --region {settings.region}",
    )


def _on_knative(service: Service, settings: CloudRunSettings, shape: run.Shape) -> Plan:
    """A Service without anything of Google; nobody authenticates before it, so it has a key."""
    image, notes = image_reference(service, settings.image)
    secrets = run.secrets(settings, "api-key") or {run.KEY: (f"{service.name}-key", "api-key")}
    name, key = secrets[run.KEY]
    spec = knative.hardened(
        {
            "containerConcurrency": shape.concurrency,
            "timeoutSeconds": settings.timeout,
            **(
                {"serviceAccountName": settings.service_account} if settings.service_account else {}
            ),
        },
        [
            knative.container(
                image,
                run.times(settings),
                secrets,
                {"cpu": str(shape.cpu), "memory": mebibytes(shape.memory)},
                {
                    "readinessProbe": knative.probe(run.READY, period=5, timeout=2, failures=3),
                    "livenessProbe": knative.probe(run.LIVE, **run.LIVENESS),
                },
            )
        ],
    )
    # Only inside of the cluster, unless all may reach it. Source: Knative, "Private services".
    inside = {"networking.knative.dev/visibility": "cluster-local"}
    document = knative.knative_service(
        service,
        revision=f"{service.name}-{short_digest(spec)}",
        namespace=settings.namespace,
        annotations={},
        more_labels={} if settings.ingress == "all" else inside,
        revision_annotations={
            "autoscaling.knative.dev/min-scale": str(settings.min_instances),
            "autoscaling.knative.dev/max-scale": str(settings.max_instances),
        },
        spec=spec,
    )
    text = to_yaml(document, comment="Written by modelport: kubectl apply -f FILE")
    where = f"-n {settings.namespace}"
    return Plan(
        target="cloudrun",
        service=service,
        image=image,
        files=(PlannedFile("service.yaml", text, "the Knative Service"),),
        protocol="v2",
        checks=check_limits(
            "cloudrun", {"name": len(service.name), "package": service.package.size}
        ),
        notes=(
            *notes,
            f"the key that clients have to show is read from the secret {name}, key {key}",
            "kubectl apply gives the new revision all traffic as soon as it is ready",
        ),
        commands=(
            f"kubectl create secret generic {name} {where} --from-file={key}=FILE",
            "kubectl apply -f service.yaml",
            f"kubectl wait ksvc/{service.name} {where} --for=condition=Ready --timeout=300s",
        ),
    )
