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

import math
from dataclasses import dataclass
from typing import Any, Final

from modelport.core.digest import sha256_bytes
from modelport.core.errors import InputError
from modelport.deploy.azure.archive import locked
from modelport.deploy.azure.template import WEB, App, resources, template
from modelport.deploy.base import Call, Plan, PlannedFile, Service, Settings
from modelport.deploy.documents import to_json
from modelport.deploy.limits import Check, check_limits
from modelport.deploy.settings import setting

_RIGHTS: Final = (
    "Microsoft.Resources/deployments/write",
    "Microsoft.Resources/deployments/read",
    "Microsoft.Web/serverfarms/write",
    "Microsoft.Web/sites/write",
    "Microsoft.Web/sites/read",
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies/write",
    "Microsoft.Storage/storageAccounts/write",
    "Microsoft.Storage/storageAccounts/blobServices/write",
    "Microsoft.Storage/storageAccounts/blobServices/containers/write",
    "Microsoft.Authorization/roleAssignments/write",
)
_DELETE: Final = (
    "Microsoft.Web/sites/delete",
    "Microsoft.Web/serverfarms/delete",
    "Microsoft.Storage/storageAccounts/delete",
)
_DEPLOYMENTS: Final = "2022-09-01"

#: The sizes of instances, in megabytes, and what the host and the worker leave of them.
_SIZES: Final = {512: 256 << 20, 2048: 1536 << 20, 4096: 3584 << 20}

_APP: Final = '''\
"""{model} in Azure Functions: every route of modelport's server, from the root on."""

import os
from pathlib import Path

# As in host.json.
os.environ.setdefault("AzureFunctionsJobHost__extensions__http__routePrefix", "")

from modelport.serve.functions import create_function_app  # noqa: E402

app = create_function_app(
    [Path(__file__).parent / "models" / "{model}"], auth_level="{level}"
)
'''


@dataclass(frozen=True, kw_only=True)
class AzureFunctionsSettings(Settings):
    """What can be set."""

    subscription: str = setting("", "identifier of the subscription")
    resource_group: str = setting("", "resource group, which has to exist")
    location: str = setting("", "region: westeurope")
    app: str = setting("", "name of the app, unique in azurewebsites.net (default: made up)")
    python: str = setting("3.11", "version of Python", ("3.11", "3.12"))
    memory: int = setting(0, "megabytes of an instance (0: from the measurement)",
                          ("0", "512", "2048", "4096"))  # fmt: skip
    max_instances: int = setting(100, "most instances")
    always_ready: int = setting(0, "instances that never stop: no cold start, always paid")
    concurrency: int = setting(0, "requests at a time per instance (0: from the measurement)")
    timeout: int = setting(230, "seconds that a request may take")
    auth: str = setting(
        "function", "function: callers show the app's key; anonymous: anybody may call",
        ("function", "anonymous"),
    )  # fmt: skip
    api_key_secret: str = setting(
        "", "Key Vault secret (its https URI) with a key that modelport itself asks for"
    )
    subnet: str = setting("", "resource identifier of a subnet: storage is closed to all others")


class AzureFunctionsTarget:
    """See the module."""

    name = "azure-functions"
    settings = AzureFunctionsSettings
    needs_image = False
    cold_start = "seconds: the host starts, then the model; none with always-ready instances"

    def plan(self, service: Service, settings: AzureFunctionsSettings) -> Plan:
        """See `modelport.deploy.base.Target.plan`."""
        _refuse(settings)
        app = _app(service, settings)
        rendered = template(app)
        code = _code(service, settings)
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


def _refuse(settings: AzureFunctionsSettings) -> None:
    for key in ("subscription", "resource_group", "location"):
        if not getattr(settings, key):
            name = key.replace("_", "-")
            raise InputError(f"azure-functions needs the setting {name}", hint=f"--set {name}=…")
    secret = settings.api_key_secret
    if secret and not secret.startswith("https://"):
        raise InputError(
            "api-key-secret is no URI of a Key Vault secret", where="--set api-key-secret",
            hint="https://VAULT.vault.azure.net/secrets/NAME: the key itself is never written",
        )  # fmt: skip


def _app(service: Service, settings: AzureFunctionsSettings) -> App:
    where = f"{settings.subscription}/{settings.resource_group}/{service.name}"
    unique = sha256_bytes(where.encode()).removeprefix("sha256:")
    variables = {"MODELPORT_TIMEOUT": str(settings.timeout)}
    if settings.api_key_secret:
        reference = f"@Microsoft.KeyVault(SecretUri={settings.api_key_secret})"
        variables["MODELPORT_API_KEY"] = reference
    memory = settings.memory or _memory(service)
    return App(
        name=settings.app or f"{service.name}-{unique[:8]}",
        storage=f"mp{unique[:18]}",
        location=settings.location,
        python=settings.python,
        subnet=settings.subnet,
        memory=memory,
        instances=settings.max_instances,
        ready=settings.always_ready,
        concurrency=settings.concurrency or _concurrency(service, memory),
        variables=variables,
        tags={"modelport": service.model, "package": service.package.digest},
    )


def _memory(service: Service) -> int:
    """The smallest size that the server fits into beside the host."""
    fitting = (size for size, left in _SIZES.items() if service.footprint.memory <= left)
    return next(fitting, max(_SIZES))


def _concurrency(service: Service, memory: int) -> int:
    """Requests that an instance works off in a tenth of a second: 2048 MB have one core."""
    cores = memory / 2048
    cost = max(service.footprint.processor, 1e-6)
    return max(1, min(64, math.floor(cores * 0.1 / cost)))


def _code(service: Service, settings: AzureFunctionsSettings) -> dict[str, str]:
    hours, rest = divmod(settings.timeout, 3600)
    host = {
        "version": "2.0",
        "functionTimeout": f"{hours:02}:{rest // 60:02}:{rest % 60:02}",
        "extensions": {"http": {"routePrefix": ""}},
    }
    return {
        "function_app.py": _APP.format(model=service.model, level=settings.auth.upper()),
        "host.json": to_json(host),
        "requirements.txt": locked(service.package),
        ".funcignore": "azuredeploy.json\n__pycache__/\n.venv/\n",
    }


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
    return (
        Call(
            "resources", "azure", "resources.begin_create_or_update_by_id", deployment,
            f"create the app {app.name}, its storage and its role", _RIGHTS,
            otherwise=Call(
                "resources-update", "azure", "resources.begin_create_or_update_by_id",
                {key: value for key, value in deployment.items() if key != "unless"},
                f"update the app {app.name}, which exists", _RIGHTS, wait=wait,
            ),
            undo=Call(
                "resources-delete", "azure", "resources.begin_delete_by_id",
                {"resources": resources(scope, app)},
                f"delete the app {app.name} and its storage", _DELETE, wait=wait,
            ),
            wait=wait,
        ),
        Call(
            "publish", "azure", "sites.publish",
            {"id": site, "api_version": WEB, "documents": code, "model": service.model,
             "package": str(service.package.path)},
            "publish the code and the package; Azure installs the locked requirements",
            ("Microsoft.Web/sites/read", "Microsoft.Web/sites/publish/Action"),
            phase="serve", wait={"until": "published", "minutes": 15},
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
        "by --yes",
        "a role of the app's identity can take minutes to count: publishing is tried again",
        "destroy leaves the record of the deployment in the resource group; it costs nothing",
    ]
    if settings.image:
        notes.append("the image is not used: this runs code, --to azureml or kubernetes an image")
    if settings.auth == "function":
        notes.append(
            "callers show the app's key in x-functions-key: az functionapp keys list "
            f"--resource-group {settings.resource_group} --name {app.name}"
        )
    else:
        notes.append("anybody may call it, unless api-key-secret or a front asks for something")
    if settings.api_key_secret:
        notes.append("the app's identity needs the role Key Vault Secrets User on that secret")
    if settings.subnet:
        notes.append(
            "the subnet has to be delegated to Microsoft.App/environments, with the service "
            "endpoint Microsoft.Storage"
        )
    else:
        notes.append("its storage account can be reached from everywhere, with a token only")
    return tuple(notes)


def _commands(service: Service, app: App, settings: AzureFunctionsSettings) -> tuple[str, ...]:
    group = f"--subscription {settings.subscription} --resource-group {settings.resource_group}"
    return (
        f"az deployment group create {group} --template-file azuredeploy.json",
        f"mkdir -p models && cp -r <package> models/{service.model}",
        "cp -r \"$(python -c 'import modelport; print(modelport.__path__[0])')\" .",
        "zip -r app.zip function_app.py host.json requirements.txt models modelport",
        f"az functionapp deployment source config-zip {group} --name {app.name} --src app.zip "
        "--build-remote true",
    )
