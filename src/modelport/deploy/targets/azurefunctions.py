"""Azure Functions, as code on the Flex Consumption plan.

::

    function_app.py ── AsgiFunctionApp ── modelport's whole request path, in the worker's process
    azuredeploy.json: app, plan, storage account, one role     one zip: files, package, server

Why code and not our image: a container on Functions has to carry Microsoft's host beside the
server (more than a gigabyte), runs on the Premium plan (never free when idle) or on Container
Apps (where our image runs better without the host), and starts slower. Flex Consumption scales to
zero, installs the locked wheels itself, and needs no registry.

Sources: "Azure Functions Flex Consumption plan hosting", "Azure Functions Python developer guide",
"Azure Functions hosting options" (time-outs), "host.json reference".
"""

from __future__ import annotations

from typing import Any, Final

from modelport.deploy.azure.functions import (
    AzureFunctionsSettings,
    app_of,
    check_settings,
    code_of,
)
from modelport.deploy.azure.place import in_group
from modelport.deploy.azure.template import WEB, App, resources, template
from modelport.deploy.base import Call, Plan, PlannedFile, Result
from modelport.deploy.documents import to_json
from modelport.deploy.keys import KEY_FROM
from modelport.deploy.limits import Check, check_limits
from modelport.deploy.service import Service

_RIGHTS: Final = (
    "Microsoft.Resources/deployments/write",
    "Microsoft.Resources/deployments/read",
    "Microsoft.Resources/deployments/operationStatuses/read",
    "Microsoft.Web/serverfarms/write",
    "Microsoft.Web/serverfarms/join/action",
    "Microsoft.Web/sites/write",
    "Microsoft.Web/sites/read",
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies/write",
    "Microsoft.Storage/storageAccounts/write",
    "Microsoft.Storage/storageAccounts/blobServices/write",
    "Microsoft.Storage/storageAccounts/blobServices/containers/write",
    "Microsoft.Authorization/roleAssignments/write",
)
_SUBNET_RIGHTS: Final = (
    "Microsoft.Network/virtualNetworks/subnets/join/action",
    "Microsoft.Network/virtualNetworks/subnets/joinViaServiceEndpoint/action",
)
_DELETE: Final = (
    "Microsoft.Web/sites/read",
    "Microsoft.Web/sites/delete",
    "Microsoft.Web/serverfarms/read",
    "Microsoft.Web/serverfarms/delete",
    "Microsoft.Storage/storageAccounts/read",
    "Microsoft.Storage/storageAccounts/delete",
)
_DELETE_ROLE: Final = (
    "Microsoft.Authorization/roleAssignments/read",
    "Microsoft.Authorization/roleAssignments/delete",
)
_DEPLOYMENTS: Final = "2022-09-01"


class AzureFunctionsTarget:
    """See the module."""

    name = "azure-functions"
    settings = AzureFunctionsSettings
    cold_start = "seconds: the host starts, then the model; none with always-ready instances"

    def plan(self, service: Service, settings: AzureFunctionsSettings) -> Plan:
        """See `modelport.deploy.base.Target.plan`."""
        check_settings(settings)
        app = app_of(service, settings)
        rendered = template(app)
        code = code_of(service, settings)
        purposes = {
            "function_app.py": "what the worker loads",
            "host.json": "the host's settings",
            "requirements.txt": "what the server needs, by hashes",
            ".funcignore": "what Core Tools leave out",
        }
        files = [PlannedFile(path, text, purposes[path]) for path, text in code.items()]
        arm = PlannedFile("azuredeploy.json", to_json(rendered), "app, plan, storage, role")
        scope = f"/subscriptions/{settings.subscription}/resourceGroups/{settings.resource_group}"
        site = f"{scope}/providers/Microsoft.Web/sites/{app.name}"
        return Plan(
            target=self.name,
            service=service,
            applier="azure",
            connection={
                "subscription": settings.subscription,
                "resource-group": settings.resource_group,
                "app": app.name,
                **(KEY_FROM if settings.api_key_secret else {}),
            },
            files=(*files, arm),
            calls=_calls(service, app, scope, rendered, code),
            status=Call(
                "status", "azure", "resources.get_by_id", {"id": site, "api_version": WEB},
                "read the app", ("Microsoft.Web/sites/read",),
            ),
            endpoint=f"https://{app.name}.azurewebsites.net",
            protocol="azure-functions",
            checks=_checks(app, service, settings),
            notes=_notes(app, settings),
            commands=_commands(service, app, settings),
        )  # fmt: skip


def _calls(
    service: Service, app: App, scope: str, rendered: dict[str, Any], code: dict[str, str]
) -> tuple[Call, ...]:
    site = f"{scope}/providers/Microsoft.Web/sites/{app.name}"
    deployment = {
        "id": f"{scope}/providers/Microsoft.Resources/deployments/{app.name}-{service.tag}",
        "api_version": _DEPLOYMENTS,
        "unless": {"id": site, "api_version": WEB},
        "body": {"properties": {"mode": "Incremental", "template": rendered, "parameters": {}}},
    }
    wait = {"until": "Succeeded", "minutes": 20}
    rights = (*_RIGHTS, *(_SUBNET_RIGHTS if app.subnet else ()))
    undone = (*_DELETE, *(_DELETE_ROLE if all(app.secret) else ()))
    return (
        Call(
            "resources", "azure", "resources.begin_create_or_update_by_id", deployment,
            f"create the app {app.name}, its storage and its role", rights,
            otherwise=Call(
                "resources-update", "azure", "resources.begin_create_or_update_by_id",
                {key: value for key, value in deployment.items() if key != "unless"},
                f"update the app {app.name}, which exists", rights, wait=wait,
            ),
            undo=Call(
                "resources-delete", "azure", "resources.begin_delete_by_id",
                {"resources": resources(scope, app)},
                f"delete the app {app.name} and its storage", undone, wait=wait,
            ),
            wait=wait,
        ),
        Call(
            "publish", "azure", "sites.publish",
            {"id": site, "api_version": WEB, "documents": code, "model": service.model,
             "package": str(service.package.path)},
            "publish the code and the package; Azure installs the locked requirements",
            ("Microsoft.Web/sites/read", "Microsoft.Web/sites/publish/Action",
             "Microsoft.Web/sites/host/listkeys/action"),
            phase="serve", wait={"until": "published", "minutes": 15},
            # Nothing to take back in a new app, which goes as a whole; nothing to `destroy`.
            undo=Call(
                "publish-stays", "azure", "sites.keep",
                {"deployment": Result("resources", "name")},
                f"look whether the app {app.name} was there before",
            ),
        ),
    )  # fmt: skip


def _checks(app: App, service: Service, settings: AzureFunctionsSettings) -> tuple[Check, ...]:
    values = {
        "name": len(app.name),
        "memory": service.footprint.memory,
        "timeout": settings.timeout,
        "replicas": app.instances,
        "concurrency": app.concurrency,
        "request": service.request_bytes,
    }
    return check_limits("azure-functions", values, str(app.memory))


def _notes(app: App, settings: AzureFunctionsSettings) -> tuple[str, ...]:
    notes = [
        "the resource group has to exist: no right on the subscription is needed",
        "an update is live when it is published: Flex Consumption has no slots; what should be "
        "looked at first gets an app of its own, --set app=…",
        "going back is deploying the earlier package again: the code before an update is not kept "
        "by --yes, and an update that fails its verification stays, which is said",
        "an update replaces all application settings, also those that were made by hand",
        "a role of the app's identity can take minutes to count: publishing is tried again",
        "destroy leaves the record of the deployment in the resource group; it costs nothing",
    ]
    if settings.image:
        notes.append("the image is not used: this runs code, --to azureml or kubernetes an image")
    if settings.auth == "function":
        notes.append(
            "callers show the app's key in x-functions-key: az functionapp keys list "
            f"{in_group(settings)} --name {app.name}"
        )
    if settings.api_key_secret:
        notes += [
            "the template lets the app's identity read the secret: its vault has to be in the same "
            "resource group, with role-based access; without the secret the app does not start",
            "the verification shows the key that is in MODELPORT_API_KEY",
        ]
    if settings.subnet:
        notes.append(
            "the subnet has to be delegated to Microsoft.App/environments, with the service "
            "endpoint Microsoft.Storage"
        )
    else:
        notes.append("its storage account can be reached from everywhere, with a token only")
    return tuple(notes)


def _commands(service: Service, app: App, settings: AzureFunctionsSettings) -> tuple[str, ...]:
    group = in_group(settings)
    return (
        f"az deployment group create {group} --template-file azuredeploy.json",
        f"mkdir -p models && cp -r <package> models/{service.model}",
        "cp -r \"$(python -c 'import modelport; print(modelport.__path__[0])')\" .",
        "zip -r app.zip function_app.py host.json requirements.txt models modelport",
        f"az functionapp deployment source config-zip {group} --name {app.name} --src app.zip "
        "--build-remote true",
    )
