"""Azure ML managed online endpoints: our image as it is, one deployment per package.

::

    endpoint NAME ── traffic ─┬─ deployment m-TAG      this package
                              └─ deployment m-OTHER    the one before, kept until it is removed

A deployment is named by its package's digest, so a new package never touches the one that is
serving: it starts beside it, is asked through ``azureml-model-deployment``, and then gets traffic.

Sources: Microsoft's references "CLI (v2) managed online endpoint YAML schema" and "… deployment
YAML schema", the articles "Use a custom container to deploy a model", "Safe rollout for online
endpoints" and "Authenticate clients for online endpoints"; ``azure-ai-ml`` for what it accepts.
"""

from __future__ import annotations

from typing import Any, Final

from modelport.core.errors import InputError
from modelport.deploy.azure.online import (
    AzureMLSettings,
    autoscale,
    concurrency,
    deployment_of,
    endpoint_of,
    named,
    timeout,
    yaml_of,
)
from modelport.deploy.azure.place import check_place, in_group
from modelport.deploy.base import Call, Plan, PlannedFile
from modelport.deploy.documents import to_json
from modelport.deploy.limits import Check, check_limits
from modelport.deploy.service import Service

_ASSIGN: Final = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"
_RIGHTS: Final = "Microsoft.MachineLearningServices/workspaces"
#: What the verification needs, by the way of authenticating.
_ASKING: Final = {"aad_token": "score", "key": "listKeys", "aml_token": "token"}


class AzureMLTarget:
    """See the module."""

    name = "azureml"
    settings = AzureMLSettings
    cold_start = "none: instances are always running"

    def plan(self, service: Service, settings: AzureMLSettings) -> Plan:
        """See `modelport.deploy.base.Target.plan`."""
        _refuse(settings)
        endpoint = endpoint_of(service, settings)
        deployment = deployment_of(service, settings)
        files = [
            PlannedFile("endpoint.yml", yaml_of(endpoint, "Endpoint"), "the endpoint"),
            PlannedFile("deployment.yml", yaml_of(deployment, "Deployment"), "the deployment"),
        ]
        if settings.max_instances:
            template = to_json(autoscale(service, settings))
            files.append(PlannedFile("autoscale.json", template, "ARM template: scaling by load"))
        address = f"https://{service.name}.{settings.location}.inference.ml.azure.com/score"
        return Plan(
            target=self.name,
            service=service,
            image=service.image(settings.image),
            applier="azureml",
            connection={
                "subscription": settings.subscription,
                "resource-group": settings.resource_group,
                "workspace": settings.workspace,
                "endpoint": service.name,
                "deployment": named(service),
            },
            files=tuple(files),
            calls=_calls(service, settings, endpoint, deployment),
            status=Call(
                "status", "azureml", "online_endpoints.get", {"name": service.name},
                "read the endpoint", (f"{_RIGHTS}/onlineEndpoints/read",),
            ),
            endpoint=address,
            # Its own header asks the new deployment, whatever the traffic is.
            verify_at=f"{address}?deployment={named(service)}",
            protocol="azureml",
            checks=_checks(service, settings),
            notes=_notes(service, settings),
            commands=_commands(service, settings),
        )  # fmt: skip


def _refuse(settings: AzureMLSettings) -> None:
    check_place(settings, "azureml", ("subscription", "resource_group", "workspace", "location"))
    for key in ("timeout", "concurrency", "max_instances"):
        if getattr(settings, key) < 0:
            name = key.replace("_", "-")
            raise InputError(f"not a {name}: {getattr(settings, key)}", where=f"--set {name}=…")
    for name, most in (("traffic", 100), ("mirror", 50)):
        if not 0 <= getattr(settings, name) <= most:
            raise InputError(
                f"{name} is {getattr(settings, name)}, expected 0 to {most} percent",
                hint=f"--set {name}=10",
            )
    if settings.mirror and settings.traffic:
        raise InputError(
            "a deployment gets a copy of the traffic, or a part of it, not both",
            hint="--set mirror=10 --set traffic=0 first, and later --set traffic=100",
        )
    if settings.max_instances and settings.max_instances < settings.instances:
        raise InputError(
            f"max-instances is {settings.max_instances}, fewer than instances",
            hint=f"--set max-instances={settings.instances * 2}",
        )


def _calls(
    service: Service,
    settings: AzureMLSettings,
    endpoint: dict[str, Any],
    deployment: dict[str, Any],
) -> tuple[Call, ...]:
    name, part = service.name, named(service)
    on, within = f"{_RIGHTS}/onlineEndpoints", f"{_RIGHTS}/onlineEndpoints/deployments"
    both = {"name": part, "endpoint_name": name}
    started = {"until": "Succeeded", "minutes": 30}
    found = (f"{_RIGHTS}/read", f"{on}/read")
    calls = [
        Call(
            "endpoint", "azureml", "online_endpoints.begin_create_or_update",
            {"create": endpoint}, f"create the endpoint {name}",
            (*found, f"{on}/write", *([_ASSIGN] if settings.identity else [])),
            otherwise=Call(
                "endpoint-read", "azureml", "online_endpoints.get", {"name": name},
                f"read the endpoint {name}, which exists", found,
            ),
            undo=Call(
                "endpoint-delete", "azureml", "online_endpoints.begin_delete", {"name": name},
                f"delete the endpoint {name} and its deployments", (f"{on}/delete",), wait=started,
            ),
            wait=started,
        ),
        Call(
            "deployment", "azureml", "online_deployments.begin_create_or_update",
            {"create": deployment}, f"start the deployment {part}",
            (*found, f"{within}/read", f"{within}/write", f"{_RIGHTS}/environments/versions/write",
             f"{_RIGHTS}/environments/versions/read", f"{on}/{_ASKING[settings.auth_mode]}/action"),
            phase="serve",
            otherwise=Call(
                "deployment-update", "azureml", "online_deployments.begin_create_or_update",
                {"update": deployment}, f"update the deployment {part}, which exists",
                (f"{within}/write",), phase="serve", wait=started,
                undo=Call(
                    "deployment-back", "azureml", "online_deployments.restore", both,
                    f"put the deployment {part} back to its settings before",
                    (f"{within}/write",), wait=started,
                ),
            ),
            undo=Call(
                "deployment-delete", "azureml", "online_deployments.begin_delete", both,
                f"delete the deployment {part}", (f"{within}/delete",), wait=started,
            ),
            wait=started,
        ),
        _shift(name, part, settings),
    ]  # fmt: skip
    if not settings.keep_old and settings.traffic == 100:
        calls.append(
            Call(
                "old", "azureml", "online_deployments.delete_others", both,
                "delete the deployments that have no traffic any more",
                (f"{within}/read", f"{within}/delete"), phase="shift", wait=started,
            )
        )  # fmt: skip
    return tuple(calls)


def _shift(name: str, part: str, settings: AzureMLSettings) -> Call:
    percent, kind = settings.traffic, "traffic"
    if settings.mirror:
        percent, kind = settings.mirror, "mirror_traffic"
    rights = (f"{_RIGHTS}/onlineEndpoints/read", f"{_RIGHTS}/onlineEndpoints/write")
    share = {"endpoint_name": name, "deployment": part, "kind": kind}
    wait = {"until": "Succeeded", "minutes": 10}
    return Call(
        "traffic", "azureml", "online_endpoints.shift", {**share, "percent": percent},
        f"give {part} {percent} percent of the {kind.replace('_', ' ')}", rights,
        phase="shift", wait=wait,
        undo=Call(
            "traffic-back", "azureml", "online_endpoints.shift_back", share,
            f"give the traffic of {part} back", rights, wait=wait,
        ),
    )  # fmt: skip


def _checks(service: Service, settings: AzureMLSettings) -> tuple[Check, ...]:
    values = {
        "name": len(service.name),
        "timeout": timeout(service, settings),
        "concurrency": concurrency(service, settings),
        "replicas": max(settings.instances, settings.max_instances),
        "memory": service.footprint.memory,
        "request": service.request_bytes,
    }
    return check_limits("azureml", values, settings.instance_type)


def _notes(service: Service, settings: AzureMLSettings) -> tuple[str, ...]:
    registry = settings.image.partition("/")[0] or "the registry"
    notes = [
        "the server asks for no key of its own: the endpoint's front end authenticates "
        f"({settings.auth_mode})",
        f"{registry}: "
        + (
            "the identity that is set needs AcrPull on it"
            if settings.identity
            else "Azure lets the endpoint's own identity pull from the workspace's registry only; "
            "for another one, --set identity=… one that has AcrPull there"
        ),
        "an endpoint that exists keeps its way of authenticating and its network",
        "by hand: deployments that had traffic are named in the last command, too, with 0",
        "destroy deletes the endpoint with every deployment on it",
    ]
    if settings.auth_mode == "aad_token":
        notes.append(
            "callers need the right Microsoft.MachineLearningServices/workspaces/onlineEndpoints/"
            "score/action, as in the role AzureML Data Scientist"
        )
    if not settings.public:
        notes.append(
            "not public: verification has to run inside the workspace's network; what instances "
            "may reach themselves is the workspace's managed network's matter"
        )
    if settings.max_instances:
        notes.append("autoscale.json is not applied by --yes: run the last command")
    if not settings.keep_old:
        notes.append("old deployments are deleted after the traffic is shifted: no quick way back")
    if "@sha256:" not in settings.image:
        notes.append("--yes builds the image, pushes it and pins it by its digest")
    return tuple(notes)


def _commands(service: Service, settings: AzureMLSettings) -> tuple[str, ...]:
    where = f"{in_group(settings)} --workspace-name {settings.workspace}"
    name, part = service.name, named(service)
    kind = "mirror-traffic" if settings.mirror else "traffic"
    commands = [
        f"az ml online-endpoint create --file endpoint.yml {where}",
        f"az ml online-deployment create --file deployment.yml {where}",
        f'az ml online-endpoint update --name {name} --{kind} "{part}='
        f'{settings.mirror or settings.traffic}" {where}',
    ]
    if settings.max_instances:
        create = f"az deployment group create {in_group(settings)}"
        commands.append(f"{create} --template-file autoscale.json")
    return tuple(commands)
