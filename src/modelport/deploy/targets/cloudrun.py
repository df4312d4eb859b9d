"""Google Cloud Run, and Knative on any Kubernetes.

A new revision starts without traffic, with the tag ``candidate``; it is verified at the tag's
address; then it gets its share. Both read-modify-write steps carry the service's ``etag``, so
that nobody else's change is lost; only what is taken back after a failure is put as it was read.

Here is what a deployment is: who may call it, in which order, and what else is to be known. What
an instance is made of is in `modelport.deploy.google.run`, each call in ``google.rollout``, the
YAML in ``google.manifest``, with their sources.
"""

from __future__ import annotations

import re
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.deploy.base import Call, Plan, Result
from modelport.deploy.google import manifest, rollout, run
from modelport.deploy.google.place import (
    account_id,
    check_account,
    check_counts,
    check_member,
    check_percent,
    check_secret,
    image_reference,
    location,
)
from modelport.deploy.google.run import CloudRunSettings
from modelport.deploy.google.traffic import CANDIDATE
from modelport.deploy.keys import KEY_FROM
from modelport.deploy.kubernetes.manifests import read_key
from modelport.deploy.limits import Check, check_limits
from modelport.deploy.service import Service

_CLUSTER_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class CloudRunTarget:
    """Cloud Run services, through the Admin API v2."""

    name = "cloudrun"
    settings = CloudRunSettings
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
        _check_callers(settings)
        image, notes = image_reference(service, settings.image, "Cloud Run")
        account = check_account(settings.service_account) or (
            f"{account_id(service, settings.region)}@{settings.project}.iam.gserviceaccount.com"
        )
        template = run.template(service, settings, shape, image, account)
        return _plan(service, settings, shape, parent, template, notes)


def _check_callers(settings: CloudRunSettings) -> None:
    """Either Google's front end authenticates callers, or the server does."""
    check_secret(settings.key_secret)
    check_member(settings.invoker)
    if settings.public and not settings.key_secret:
        raise InputError(
            "a public service needs a key",
            where="--set public=true",
            hint="--set key-secret=NAME of a secret in Secret Manager that holds it",
        )
    if settings.key_secret and not settings.public:
        raise InputError(
            "a service that is not public has no key: Cloud Run's front end wants an identity "
            "token where the key would be",
            where="--set key-secret=…",
            hint="leave key-secret out, or --set public=true",
        )
    if settings.public and settings.invoker:
        raise InputError(
            "anybody may call a public service", where="--set invoker=…", hint="leave one out"
        )


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
        *([rollout.account_call(service, settings, account)] if own else []),
        *([rollout.reader_call(settings, account)] if own and settings.key_secret else []),
        rollout.create(service, parent, name, body),
        rollout.update(service, name, body),
        rollout.shift(service, settings, name, template["revision"]),
        *([rollout.invoker_call(settings, name)] if settings.invoker else []),
    )
    return Plan(
        target="cloudrun",
        service=service,
        image=image,
        applier="google",
        connection={
            "project": settings.project,
            "region": settings.region,
            **(KEY_FROM if settings.public else {}),
        },
        files=(manifest.for_gcloud(service, settings, template),),
        calls=calls,
        status=Call(
            "status", rollout.RUN, "get_service", {"name": name}, "read the service",
            rights=("run.services.get",),
        ),
        endpoint=Result("shift", "uri"),
        verify_at=Result("candidate", f"tag_uris.{CANDIDATE}"),
        protocol="cloudrun",
        checks=_checks(service, settings, shape, run.environment(settings)),
        notes=(*notes, *_notes(settings, account, own=own)),
        commands=_commands(service, settings, account if own else ""),
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


def _notes(settings: CloudRunSettings, account: str, *, own: bool) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    for secret, version in run.secrets(settings, "latest").values():
        if not own:
            notes += (
                "the service's account has to read the key: give it the role "
                f"roles/secretmanager.secretAccessor on the secret {secret} ({account})",
            )
        if version == "latest":
            notes += ("the key's version is not pinned: an instance takes the latest at its start",)
    if settings.ingress != "all":
        notes += (
            f"ingress is {settings.ingress}: the verification has to run where the service can be "
            "reached, or it fails, and everything is taken back",
        )
    if settings.public:
        return (
            *notes,
            "anybody can reach it; the server asks for the key",
            "the verification shows the key that is in MODELPORT_API_KEY",
        )
    return (
        *notes,
        "the server asks for no key: Cloud Run's front end authenticates",
        "callers need roles/run.invoker and an identity token"
        + ("" if settings.invoker else "; nobody is given it here: --set invoker=…"),
    )


def _commands(service: Service, settings: CloudRunSettings, account: str) -> tuple[str, ...]:
    where = f"--project {settings.project}"
    first: tuple[str, ...] = ()
    if account:
        name = account.partition("@")[0]
        first = (f"gcloud iam service-accounts create {name} {where}",)
        for secret, _ in run.secrets(settings, "latest").values():
            first += (
                f"gcloud secrets add-iam-policy-binding {secret} {where} "
                f"--member serviceAccount:{account} --role roles/secretmanager.secretAccessor",
            )
    last: tuple[str, ...] = ()
    if settings.invoker:
        last = (
            f"gcloud run services add-iam-policy-binding {service.name} {where} "
            f"--region {settings.region} --member {settings.invoker} --role roles/run.invoker",
        )
    replace = f"gcloud run services replace service.yaml {where} --region {settings.region}"
    return (*first, replace, *last)


def _on_knative(service: Service, settings: CloudRunSettings, shape: run.Shape) -> Plan:
    """A Service without anything of Google; nobody authenticates before it, so it has a key."""
    for setting in ("namespace", "service_account"):
        value = getattr(settings, setting)
        if value and not _CLUSTER_NAME.fullmatch(value):
            name = setting.replace("_", "-")
            raise InputError(
                f"not a {name} of Kubernetes: {value!r}",
                where=f"--set {name}=…",
                hint="lower-case letters, digits and dashes, at most 63",
            )
    key = read_key(settings.key_secret or f"{service.name}-key/api-key", False, "cloudrun")
    image, notes = image_reference(service, settings.image)
    where = f"-n {settings.namespace}"
    values = {"name": len(service.name), "package": service.package.size}
    return Plan(
        target="cloudrun",
        service=service,
        image=image,
        files=(manifest.for_cluster(service, settings, shape, image, key),),
        protocol="v2",
        checks=check_limits("cloudrun", values),
        notes=(
            *notes,
            f"the key that clients have to show is read from the secret {key.secret}, "
            f"key {key.entry}",
            "kubectl apply gives the new revision all traffic as soon as it is ready",
        ),
        commands=(
            f"kubectl create secret generic {key.secret} {where} --from-file={key.entry}=FILE",
            "kubectl apply -f service.yaml",
            f"kubectl wait ksvc/{service.name} {where} --for=condition=Ready --timeout=300s",
        ),
    )
