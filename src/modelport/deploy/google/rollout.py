"""The calls of a deployment on Cloud Run, one function each.

Source: the Cloud Run Admin API v2 (`google.cloud.run_v2` types), and its page on access control.
"""

from __future__ import annotations

from typing import Any, Final

from modelport.deploy.base import Call, Result
from modelport.deploy.google import run
from modelport.deploy.google.place import ACCOUNTS, SECRETS, SERVICES
from modelport.deploy.google.traffic import CANDIDATE, TO_LATEST, camel, revisions_of
from modelport.deploy.service import Service

RUN: Final = "run.ServicesClient"
_WAIT: Final = {"operation": 900}
_POLICY: Final = {"policy": 120}


def account_call(service: Service, settings: run.CloudRunSettings, account: str) -> Call:
    """The service's own account; it is waited for, because others learn of it late."""
    project = f"projects/{settings.project}"
    body = {
        "accountId": account.partition("@")[0],
        "serviceAccount": {"displayName": f"modelport: {service.name} ({settings.region})"},
    }
    return Call(
        "account", ACCOUNTS, "create", {"name": project, "body": body},
        "create the service's own account, without any role",
        rights=("iam.serviceAccounts.create", "iam.serviceAccounts.get"),
        undo=Call(
            "account-delete", ACCOUNTS, "delete", {"name": f"{project}/serviceAccounts/{account}"},
            "delete the service's account", rights=("iam.serviceAccounts.delete",),
        ),
        wait={"exists": 120},
    )  # fmt: skip


def reader_call(settings: run.CloudRunSettings, account: str) -> Call:
    """Without it, no instance of the service would start: the key is read at its start."""
    name, _ = run.secrets(settings, "latest")[run.KEY]
    grant = {
        "resource": name if "/" in name else f"projects/{settings.project}/secrets/{name}",
        "role": "roles/secretmanager.secretAccessor",
        "member": f"serviceAccount:{account}",
    }
    rights = ("secretmanager.secrets.getIamPolicy", "secretmanager.secrets.setIamPolicy")
    return Call(
        "key-reader", SECRETS, "grant", grant,
        f"let the service's account read the secret {name}", rights=rights, wait=_POLICY,
        undo=Call(
            "key-reader-undo", SECRETS, "revoke", grant, f"take the secret {name} from it again",
            rights=rights, wait=_POLICY,
        ),
    )  # fmt: skip


def invoker_call(settings: run.CloudRunSettings, name: str) -> Call:
    """After the verification, like the traffic."""
    grant = {"resource": name, "role": "roles/run.invoker", "member": settings.invoker}
    rights = ("run.services.getIamPolicy", "run.services.setIamPolicy")
    return Call(
        "invoker", SERVICES, "grant", grant, f"let {settings.invoker} call the service",
        rights=rights, phase="shift", wait=_POLICY,
        undo=Call(
            "invoker-undo", SERVICES, "revoke", grant, f"let {settings.invoker} no longer call it",
            rights=rights, wait=_POLICY,
        ),
    )  # fmt: skip


def create(service: Service, parent: str, name: str, body: dict[str, Any]) -> Call:
    """The first revision is the latest, which gets all traffic; an existing service is only read.

    `update` names the revision: one that does not exist yet cannot be named.
    """
    first = [{"type_": TO_LATEST, "percent": 100}]
    return Call(
        "service", RUN, "create_service",
        {"parent": parent, "service_id": service.name, "service": {**body, "traffic": first}},
        "create the service",
        rights=("run.services.create", "run.services.get", "run.operations.get",
                "iam.serviceAccounts.actAs", "artifactregistry.repositories.downloadArtifacts",
                *_opening(body)),
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
                *(_opening(body) or ("run.routes.invoke",))),
        phase="serve",
        undo=Call(
            "candidate-undo", RUN, "update_service",
            {"service": {"name": name, **before}, "update_mask": _mask(*body, "traffic")},
            "put the service back as it was",
            rights=("run.services.update", "run.operations.get"), wait=_WAIT,
        ),
        wait=_WAIT,
    )  # fmt: skip


def shift(service: Service, settings: run.CloudRunSettings, name: str, revision: str) -> Call:
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


def _opening(body: dict[str, Any]) -> tuple[str, ...]:
    """To let everybody in takes the right to say who may come in."""
    return ("run.services.setIamPolicy",) if body["invoker_iam_disabled"] else ()


def _mask(*fields: str) -> str:
    """A field mask as JSON has it."""
    return ",".join(camel(field) for field in fields)
