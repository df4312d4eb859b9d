"""Calls of Kubernetes' API, and what whoever makes them has to be allowed.

Sources: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and
https://kubernetes.io/docs/reference/access-authn-authz/rbac/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelport.deploy.base import Call, Result


def applied(
    identity: str,
    body: Mapping[str, Any],
    purpose: str,
    *,
    phase: str = "prepare",
    take_over: bool = False,
    previous: str = "",
) -> Call:
    """The call that creates an object, or changes it; taken back, it is as before.

    Parameters
    ----------
    identity : str
        The `Call.id`.
    body : mapping
        The object.
    take_over : bool
        Change fields, too, that somebody else manages.
    previous : str
        The purpose of putting the earlier state back.
    """
    kind, metadata = body["kind"], body["metadata"]
    where = {
        "apiVersion": body["apiVersion"],
        "kind": kind,
        "name": metadata["name"],
        "namespace": metadata["namespace"],
    }
    plural = resource_of(body)
    name = f"{kind} {metadata['name']}"
    restore = Call(
        f"{identity}-restore", "kubernetes", "replace", {"object": Result(identity, "before")},
        previous or f"put the earlier {name} back", rights=(f"update {plural}",),
    )  # fmt: skip
    change = Call(
        f"{identity}-change", "kubernetes", "patch", {"object": body, "force": take_over},
        purpose, rights=(f"patch {plural}",), phase=phase, undo=restore,
    )  # fmt: skip
    return Call(
        identity, "kubernetes", "create", {"object": body}, purpose,
        # Server-side apply creates with `patch`, and asks for `create` as well; and `otherwise`.
        rights=(f"create {plural}", f"get {plural}", f"patch {plural}", f"update {plural}"),
        phase=phase,
        otherwise=change,
        undo=Call(
            f"{identity}-delete", "kubernetes", "delete", where, f"delete {name}",
            rights=(f"delete {plural}",),
        ),
    )  # fmt: skip


def resource_of(body: Mapping[str, Any]) -> str:
    """What RBAC calls a kind: ``deployments.apps``."""
    group = body["apiVersion"].rpartition("/")[0]
    lower = str(body["kind"]).lower()
    if lower.endswith("y"):
        plural = lower[:-1] + "ies"
    else:
        plural = lower + ("es" if lower.endswith("s") else "s")
    return f"{plural}.{group}" if group else plural


def role(name: str, namespace: str, calls: Sequence[Call]) -> dict[str, Any]:
    """The least Role with which these calls, and what takes them back, can be made."""
    verbs: dict[tuple[str, str], set[str]] = {}
    waiting = list(calls)
    while waiting:
        call = waiting.pop()
        waiting += [more for more in (call.otherwise, call.undo) if more]
        for right in call.rights:
            verb, _, resource = right.partition(" ")
            plural, _, group = resource.partition(".")
            verbs.setdefault((group, plural), set()).add(verb)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "rules": [
            {"apiGroups": [group], "resources": [plural], "verbs": sorted(verbs[group, plural])}
            for group, plural in sorted(verbs)
        ],
    }
