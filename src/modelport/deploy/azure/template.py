"""The Resource Manager template of a function app: Flex Consumption, storage, one role.

No key exists anywhere: the app reaches its storage with its own identity, the account takes no
shared keys, and publishing takes no user name and password.

Sources: Microsoft's references ``Microsoft.Web/sites`` (``functionAppConfig``),
``Microsoft.Storage/storageAccounts``, the article "Automate resource deployment for your function
app", and "Connecting to host storage with an identity" for the role that the host needs.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_SCHEMA: Final = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
WEB: Final = "2024-04-01"
STORAGE: Final = "2023-05-01"
AUTHORIZATION: Final = "2022-04-01"
#: "Storage Blob Data Owner": the least that the Functions host itself works with.
_BLOB_OWNER: Final = "b7e6dc6d-f1e8-4753-8033-0f276bb0955b"
#: "Key Vault Secrets User": reads the values of secrets.
_VAULT_READER: Final = "4633458b-17de-408a-b874-0445c86b69e6"
CONTAINER: Final = "packages"


@dataclass(frozen=True)
class App:
    """A function app.

    Parameters
    ----------
    name, storage : str
        Of the app and of its storage account; both unique in the world.
    location, python, subnet : str
        An empty subnet: the internet reaches the account's front door, though nobody gets in
        without a token.
    memory, instances, ready, concurrency : int
        Megabytes of an instance, most instances, instances that never stop, requests at a time.
    variables : mapping of str to str
        Application settings.
    tags : mapping of str to str
    secret : tuple of (str, str)
        A vault of the same resource group and the name of the secret with the key, or empty texts.
    """

    name: str
    storage: str
    location: str
    python: str
    subnet: str
    memory: int
    instances: int
    ready: int
    concurrency: int
    variables: Mapping[str, str]
    tags: Mapping[str, str]
    secret: tuple[str, str] = ("", "")


def template(app: App) -> dict[str, Any]:
    """The template, without parameters: the plan knows everything."""
    return {
        "$schema": _SCHEMA,
        "contentVersion": "1.0.0.0",
        "resources": [
            _account(app),
            _nested(app, "blobServices", f"{app.storage}/default", _blob_service(), ()),
            _nested(
                app, "blobServices/containers", f"{app.storage}/default/{CONTAINER}",
                {"publicAccess": "None"}, (("blobServices", "default"),),
            ),
            _server(app),
            _site(app),
            *(_no_password(app, kind) for kind in ("ftp", "scm")),
            _role(app),
            *([_reader(app)] if all(app.secret) else []),
        ],
    }  # fmt: skip


def resources(scope: str, app: App) -> list[dict[str, str]]:
    """What the template creates, in the order in which it can be deleted."""
    web, storage = f"{scope}/providers/Microsoft.Web", f"{scope}/providers/Microsoft.Storage"
    role = f"{scope}/providers/{_secret(app)}/providers/Microsoft.Authorization/roleAssignments/"
    reader = {"id": f"{role}{_reader_name(app)}", "api_version": AUTHORIZATION}
    return [
        *([reader] if all(app.secret) else []),
        {"id": f"{web}/sites/{app.name}", "api_version": WEB},
        {"id": f"{web}/serverfarms/{app.name}", "api_version": WEB},
        {"id": f"{storage}/storageAccounts/{app.storage}", "api_version": STORAGE},
    ]


def _accepted(**reasons: str) -> dict[str, Any]:
    """What checkov would have otherwise, and why it is as it is; Azure passes over it."""
    return {"checkov": [f"checkov:skip={check}:{reason}" for check, reason in reasons.items()]}


def _id(kind: str, *names: str) -> str:
    return f"[resourceId('{kind}', {', '.join(repr(name) for name in names)})]"


def _account(app: App) -> dict[str, Any]:
    rules = [{"id": app.subnet, "action": "Allow"}] if app.subnet else []
    reasons = {
        "CKV_AZURE_59": "Flex Consumption fetches the package; no blob is public, no key works",
        "CKV_AZURE_206": "holds only the package, which can be published again",
    }
    if not app.subnet:
        reasons["CKV_AZURE_35"] = "there is no subnet to let in; tokens are asked for everywhere"
    return {
        "type": "Microsoft.Storage/storageAccounts",
        "apiVersion": STORAGE,
        "name": app.storage,
        "location": app.location,
        "tags": dict(app.tags),
        "metadata": _accepted(**reasons),
        "kind": "StorageV2",
        "sku": {"name": "Standard_LRS"},
        "properties": {
            "accessTier": "Hot",
            "allowBlobPublicAccess": False,
            "allowSharedKeyAccess": False,
            "allowCrossTenantReplication": False,
            "defaultToOAuthAuthentication": True,
            "minimumTlsVersion": "TLS1_2",
            "supportsHttpsTrafficOnly": True,
            "publicNetworkAccess": "Enabled",
            "networkAcls": {
                "bypass": "AzureServices",
                "defaultAction": "Deny" if app.subnet else "Allow",
                "virtualNetworkRules": rules,
            },
        },
    }


def _blob_service() -> dict[str, Any]:
    week = {"enabled": True, "days": 7}
    return {"deleteRetentionPolicy": week, "containerDeleteRetentionPolicy": week}


def _nested(
    app: App, kind: str, name: str, properties: dict[str, Any], after: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    needed = [_id("Microsoft.Storage/storageAccounts", app.storage)]
    needed += [
        _id(f"Microsoft.Storage/storageAccounts/{inner}", app.storage, inner_name)
        for inner, inner_name in after
    ]
    return {
        "type": f"Microsoft.Storage/storageAccounts/{kind}",
        "apiVersion": STORAGE,
        "name": name,
        "properties": properties,
        "dependsOn": needed,
    }


def _server(app: App) -> dict[str, Any]:
    return {
        "type": "Microsoft.Web/serverfarms",
        "apiVersion": WEB,
        "name": app.name,
        "location": app.location,
        "tags": dict(app.tags),
        "metadata": _accepted(
            CKV_AZURE_225="Flex Consumption starts instances where there is room, and has no others"
        ),
        "kind": "functionapp",
        "sku": {"name": "FC1", "tier": "FlexConsumption"},
        "properties": {"reserved": True},
    }


def _site(app: App) -> dict[str, Any]:
    network = {"virtualNetworkSubnetId": app.subnet} if app.subnet else {}
    settings = {
        "AzureWebJobsStorage__accountName": app.storage,
        "AzureWebJobsStorage__credential": "managedidentity",
        **app.variables,
    }
    ready = [{"name": "http", "instanceCount": app.ready}] if app.ready else []
    blobs = f"https://{app.storage}.blob.core.windows.net/{CONTAINER}"
    return {
        "type": "Microsoft.Web/sites",
        "apiVersion": WEB,
        "name": app.name,
        "location": app.location,
        "tags": dict(app.tags),
        "metadata": _accepted(
            CKV_AZURE_17="callers show a key or a token",
            CKV_AZURE_212="it scales from zero; instances that always run are a setting",
            CKV_AZURE_213="Flex Consumption replaces instances by itself and asks no health route",
            CKV_AZURE_222="it is there to be called from outside",
        ),
        "kind": "functionapp,linux",
        "identity": {"type": "SystemAssigned"},
        "properties": {
            "serverFarmId": _id("Microsoft.Web/serverfarms", app.name),
            "httpsOnly": True,
            "publicNetworkAccess": "Enabled",
            **network,
            "functionAppConfig": {
                "runtime": {"name": "python", "version": app.python},
                "deployment": {
                    "storage": {
                        "type": "blobContainer",
                        "value": blobs,
                        "authentication": {"type": "SystemAssignedIdentity"},
                    }
                },
                "scaleAndConcurrency": {
                    "instanceMemoryMB": app.memory,
                    "maximumInstanceCount": app.instances,
                    "alwaysReady": ready,
                    "triggers": {"http": {"perInstanceConcurrency": app.concurrency}},
                },
            },
            "siteConfig": {
                "minTlsVersion": "1.2",
                "scmMinTlsVersion": "1.2",
                "ftpsState": "Disabled",
                "http20Enabled": True,
                "remoteDebuggingEnabled": False,
                "appSettings": [
                    {"name": name, "value": value} for name, value in settings.items()
                ],
            },
        },
        "dependsOn": [
            _id("Microsoft.Web/serverfarms", app.name),
            _id(
                "Microsoft.Storage/storageAccounts/blobServices/containers",
                app.storage, "default", CONTAINER,
            ),
        ],
    }  # fmt: skip


def _no_password(app: App, kind: str) -> dict[str, Any]:
    """Publishing takes tokens of people and identities only."""
    return {
        "type": "Microsoft.Web/sites/basicPublishingCredentialsPolicies",
        "apiVersion": WEB,
        "name": f"{app.name}/{kind}",
        "properties": {"allow": False},
        "dependsOn": [_id("Microsoft.Web/sites", app.name)],
    }


def _role(app: App) -> dict[str, Any]:
    """The app's identity may use the blobs of its own account."""
    site = f"resourceId('Microsoft.Web/sites', '{app.name}')"
    account = f"resourceId('Microsoft.Storage/storageAccounts', '{app.storage}')"
    return _assignment(
        app,
        name=f"[guid({account}, {site}, '{_BLOB_OWNER}')]",
        scope=f"Microsoft.Storage/storageAccounts/{app.storage}",
        role=_BLOB_OWNER,
        after=[_id("Microsoft.Storage/storageAccounts", app.storage)],
    )


def _reader(app: App) -> dict[str, Any]:
    """And read the one secret with the key. Its name is known here, so that it can be deleted."""
    return _assignment(
        app, name=_reader_name(app), scope=_secret(app), role=_VAULT_READER, after=[]
    )


def _secret(app: App) -> str:
    vault, name = app.secret
    return f"Microsoft.KeyVault/vaults/{vault}/secrets/{name}"


def _reader_name(app: App) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{app.storage}/{app.name}/{_secret(app)}"))


def _assignment(app: App, *, name: str, scope: str, role: str, after: list[str]) -> dict[str, Any]:
    site = f"resourceId('Microsoft.Web/sites', '{app.name}')"
    return {
        "type": "Microsoft.Authorization/roleAssignments",
        "apiVersion": AUTHORIZATION,
        "name": name,
        "scope": scope,
        "properties": {
            "principalId": f"[reference({site}, '{WEB}', 'Full').identity.principalId]",
            "principalType": "ServicePrincipal",
            "roleDefinitionId": (
                f"[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '{role}')]"
            ),
        },
        "dependsOn": [_id("Microsoft.Web/sites", app.name), *after],
    }
