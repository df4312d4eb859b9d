"""Calls of Kubernetes' API, and what whoever makes them has to be allowed.

Sources: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and
https://kubernetes.io/docs/reference/access-authn-authz/rbac/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from modelport.deploy.base import Call, Result
from modelport.deploy.kubernetes.objects import reference_of, resource_of

#: Of a call that waits: what it reads besides, to say why something does not get ready.
WATCHING: Final = ("get pods/log", "list events", "list pods")


def applied(
    identity: str,
    body: Mapping[str, Any],
    purpose: str,
    *,
    phase: str = "prepare",
    previous: str = "",
    **how: Any,
) -> Call:
    """The call that creates an object, or changes it; taken back, it is as before.

    Parameters
    ----------
    identity : str
        The `Call.id`.
    body : mapping
        The object.
    previous : str
        The purpose of putting the earlier state back.
    **how
        More of `Changes.patch`: ``force``, ``steady``, ``scaled``.
    """
    plural, reference = resource_of(body), reference_of(body)
    name = f"{body['kind']} {reference['name']}"
    change = Call(
        f"{identity}-change", "kubernetes", "patch", {"object": body, **how},
        purpose, rights=(f"get {plural}", f"patch {plural}"), phase=phase,
        undo=_restored(identity, plural, previous or f"put the earlier {name} back"),
    )  # fmt: skip
    return Call(
        identity, "kubernetes", "create", {"object": body}, purpose,
        # Server-side apply creates with `patch`, and asks for `create` as well.
        rights=(f"create {plural}", f"get {plural}", f"patch {plural}"),
        phase=phase,
        otherwise=change,
        undo=Call(
            f"{identity}-delete", "kubernetes", "delete", reference, f"delete {name}",
            rights=(f"delete {plural}", f"get {plural}"),
        ),
    )  # fmt: skip


def left_out(identity: str, reference: Mapping[str, Any], purpose: str) -> Call:
    """The call that deletes what an earlier deployment needed, and this one does not."""
    plural = resource_of(reference)
    return Call(
        identity, "kubernetes", "delete", {**reference, "unless": ["missing", "foreign"]}, purpose,
        rights=(f"delete {plural}", f"get {plural}"), phase="shift",
        undo=_restored(identity, plural, f"put the {reference['kind']} back"),
    )  # fmt: skip


def _restored(identity: str, plural: str, purpose: str) -> Call:
    return Call(
        f"{identity}-restore", "kubernetes", "replace", {"object": Result(identity, "before")},
        purpose,
        rights=(f"create {plural}", f"get {plural}", f"patch {plural}", f"update {plural}"),
    )  # fmt: skip


def forwarded(namespace: str, selector: Mapping[str, str], port: int, path: str = "") -> Call:
    """The call that opens a port here which reaches a new pod."""
    return Call(
        "forward", "kubernetes", "portforward",
        {"namespace": namespace, "selector": selector, "port": port, "path": path},
        "open a port here that reaches it",
        # Kubernetes 1.35 asks for `create` where older ones ask for `get`.
        rights=("create pods/portforward", "get pods/portforward", "list pods"),
        phase="serve", undo=_closed("forward-undo"),
    )  # fmt: skip


def forward_closed() -> Call:
    """The call that closes it: the first of the shift, since only the verification needs it."""
    return replace(_closed("forward-closed"), phase="shift")


def _closed(identity: str) -> Call:
    return Call(
        identity, "kubernetes", "closeforward", {"url": Result("forward", "url")},
        "close the port here",
    )  # fmt: skip


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
