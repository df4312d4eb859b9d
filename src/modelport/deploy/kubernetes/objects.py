"""Where Kubernetes keeps an object, and which of its fields somebody has applied.

Sources: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris and
https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

#: By this label, on all that is created, modelport knows its own.
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "modelport"


def resource_of(kind: Mapping[str, Any]) -> str:
    """What RBAC calls a kind: ``deployments.apps``.

    Parameters
    ----------
    kind : mapping
        ``apiVersion`` and ``kind``: an object, or what refers to one.
    """
    group = kind["apiVersion"].rpartition("/")[0]
    lower = str(kind["kind"]).lower()
    if lower.endswith("y"):
        plural = lower[:-1] + "ies"
    else:
        plural = lower + ("es" if lower.endswith("s") else "s")
    return f"{plural}.{group}" if group else plural


def reference_of(body: Mapping[str, Any]) -> dict[str, str]:
    """What finds an object again."""
    return {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "name": body["metadata"]["name"],
        "namespace": body["metadata"]["namespace"],
    }


def folder_of(api_version: str, kind: str, namespace: str) -> str:
    """The path of all objects of a kind in a namespace."""
    plural = resource_of({"apiVersion": api_version, "kind": kind}).partition(".")[0]
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{plural}"


def path_of(reference: Mapping[str, Any]) -> str:
    """The path of an object."""
    folder = folder_of(reference["apiVersion"], reference["kind"], reference["namespace"])
    return f"{folder}/{reference['name']}"


def is_own(found: Mapping[str, Any]) -> bool:
    """Whether an object says that modelport manages it."""
    return (found["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER


def owned_fields(found: Mapping[str, Any], manager: str = MANAGER) -> dict[str, Any] | None:
    """What a manager applied of an object: that, applied again, puts its part back.

    None where it has applied nothing.

    Source: ``ExtractInto`` of k8s.io/apimachinery/pkg/util/managedfields.
    """
    for entry in found["metadata"].get("managedFields", ()):
        if (entry.get("manager"), entry.get("operation")) == (manager, "Apply") and not entry.get(
            "subresource"
        ):
            own: dict[str, Any] = _owned(found, entry.get("fieldsV1", {}))
            own["apiVersion"], own["kind"] = found["apiVersion"], found["kind"]
            metadata = own.setdefault("metadata", {})
            metadata["name"] = found["metadata"]["name"]
            metadata["namespace"] = found["metadata"]["namespace"]
            return own
    return None


def without(body: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A copy of `body` without the field at `path`, keys with dots between."""
    key, _, below = path.partition(".")
    left = dict(body)
    if not below:
        left.pop(key, None)
    elif isinstance(left.get(key), Mapping):
        left[key] = without(left[key], below)
    return left


def _owned(value: Any, fields: Mapping[str, Any]) -> Any:
    """The part of `value` that a set of fields names."""
    inner = {key: below for key, below in fields.items() if key != "."}
    if isinstance(value, Mapping):
        if not inner and "." not in fields:
            return value  # owned as a whole
        return {
            key[2:]: _owned(value[key[2:]], below)
            for key, below in inner.items()
            if key.startswith("f:") and key[2:] in value
        }
    if isinstance(value, list) and inner:
        return [part for item in value for part in _owned_items(item, inner)]
    return value


def _owned_items(item: Any, fields: Mapping[str, Any]) -> list[Any]:
    for key, below in fields.items():
        if key.startswith("v:") and json.loads(key[2:]) == item:
            return [item]
        if key.startswith("k:") and isinstance(item, Mapping):
            keys = json.loads(key[2:])
            if all(item.get(name) == value for name, value in keys.items()):
                return [{**_owned(item, below), **keys}]
    return []
