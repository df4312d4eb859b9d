"""What a function app is: its settings, the size of its instances, and its code.

Sources: "Azure Functions Flex Consumption plan hosting", "Azure Functions Python developer guide",
"host.json reference"; "Use Key Vault references": what cannot be read is left as it stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from modelport.core.digest import sha256_bytes
from modelport.core.errors import InputError
from modelport.deploy.azure.archive import locked
from modelport.deploy.azure.place import check_place, read_secret
from modelport.deploy.azure.template import App
from modelport.deploy.base import Settings
from modelport.deploy.documents import to_json
from modelport.deploy.service import Service
from modelport.deploy.settings import setting

#: The sizes of instances, in megabytes, and what the host and the worker leave of them.
_SIZES: Final = {512: 256 << 20, 2048: 1536 << 20, 4096: 3584 << 20}

_APP: Final = '''\
"""{model} in Azure Functions: every route of modelport's server, with or without /api."""

import os
from pathlib import Path

from modelport.serve.functions import create_function_app

# What Azure leaves where it cannot read the secret is in the template, and would be the key.
if os.environ.get("MODELPORT_API_KEY", "").startswith("@Microsoft.KeyVault"):
    raise RuntimeError("the app's identity cannot read the Key Vault secret of MODELPORT_API_KEY")

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
        "function", "function: callers show the app's key; anonymous: that of api-key-secret",
        ("function", "anonymous"),
    )  # fmt: skip
    api_key_secret: str = setting(
        "", "URI of a secret, in a Key Vault of the group, with a key that modelport asks for"
    )
    subnet: str = setting("", "resource identifier of a subnet: storage is closed to all others")


def check_settings(settings: AzureFunctionsSettings) -> None:
    """Refuse what Azure would refuse later, and an app without any key.

    Raises
    ------
    InputError
        With the setting.
    """
    check_place(settings, "azure-functions", ("subscription", "resource_group", "location"))
    if settings.auth == "anonymous" and not settings.api_key_secret:
        raise InputError(
            "an app that anybody may call needs a key",
            where="--set auth=anonymous",
            hint="--set api-key-secret=https://VAULT.vault.azure.net/secrets/NAME",
        )
    if settings.timeout < 1:
        raise InputError(f"not a time-out: {settings.timeout} s", where="--set timeout=…")
    if not 0 <= settings.always_ready <= settings.max_instances:
        raise InputError(
            f"always-ready is {settings.always_ready}, of {settings.max_instances} instances",
            where="--set always-ready=…",
        )


def app_of(service: Service, settings: AzureFunctionsSettings) -> App:
    """The app, with names that are unique in the world and the same each time."""
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
        secret=read_secret(settings.api_key_secret) if settings.api_key_secret else ("", ""),
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


def code_of(service: Service, settings: AzureFunctionsSettings) -> dict[str, str]:
    """The files at the root of the archive, by path."""
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
