"""Where things are on Azure, and whether what the user set can be so.

What is set ends in resource identifiers, in expressions of templates and in commands: nothing
that could be more than a name there is let through.

Source: "Naming rules and restrictions for Azure resources".
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

from modelport.core.errors import InputError

_GUID: Final = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_GROUP: Final = r"[-A-Za-z0-9_.()]{0,89}[-A-Za-z0-9_()]"
_WITHIN: Final = rf"/subscriptions/{_GUID}/resourceGroups/{_GROUP}/providers/"
_NAME: Final = r"[A-Za-z0-9][-A-Za-z0-9_.]*"

_PATTERNS: Final = {
    "subscription": (_GUID, "az account show --query id"),
    "resource_group": (_GROUP, "az group list --query [].name"),
    "location": (r"[a-z][a-z0-9]+", "westeurope: az account list-locations --query [].name"),
    "workspace": (r"[A-Za-z0-9][-A-Za-z0-9_]{2,32}", "az ml workspace list --query [].name"),
    "app": (r"[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?", "letters, digits and dashes"),
    "instance_type": (r"[A-Z][A-Za-z0-9]*(?:_[A-Za-z0-9-]+)+", "Standard_F2s_v2"),
    "subnet": (
        rf"{_WITHIN}Microsoft\.Network/virtualNetworks/{_NAME}/subnets/{_NAME}",
        "its whole identifier: az network vnet subnet show --query id",
    ),
    "identity": (
        rf"{_WITHIN}Microsoft\.ManagedIdentity/userAssignedIdentities/{_NAME}",
        "its whole identifier: az identity show --query id",
    ),
}  # fmt: skip
_SECRET: Final = re.compile(
    r"https://([A-Za-z][-A-Za-z0-9]{2,23})\.vault\.azure\.net/secrets/([-A-Za-z0-9]{1,127})"
    r"(?:/[0-9a-f]{32})?"
)


def check_place(settings: Any, target: str, needed: tuple[str, ...]) -> None:
    """Hold what is set against Azure's rules for names.

    Raises
    ------
    InputError
        When one of `needed` is missing, or something set is no such name.
    """
    for key, (pattern, hint) in _PATTERNS.items():
        value, name = getattr(settings, key, ""), key.replace("_", "-")
        if not value and key in needed:
            raise InputError(f"{target} needs the setting {name}", hint=f"--set {name}=…")
        if value and not re.fullmatch(pattern, value):
            raise InputError(
                f"not a {name} of Azure: {value!r}", where=f"--set {name}=…", hint=hint
            )


def read_secret(uri: str) -> tuple[str, str]:
    """The vault and the name of a Key Vault secret.

    Raises
    ------
    InputError
        When it is no URI of one; it is not repeated, for it may be the key itself.
    """
    match = _SECRET.fullmatch(uri)
    if match is None:
        raise InputError(
            "api-key-secret is no URI of a Key Vault secret",
            where="--set api-key-secret",
            hint="https://VAULT.vault.azure.net/secrets/NAME: the key itself is never written",
        )
    return match[1], match[2]


def in_group(settings: Any) -> str:
    """The options of ``az`` that say where."""
    group = shlex.quote(settings.resource_group)
    return f"--subscription {settings.subscription} --resource-group {group}"
