"""The role that a server on AWS runs as: who may take it, what it may do, and its tags.

Sources: "Creating a role to delegate permissions to an AWS service" and "Policies and permissions"
(IAM user guide).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from modelport.core.digest import sha256_bytes
from modelport.core.errors import InputError
from modelport.deploy.aws.place import ACCOUNT, Place
from modelport.deploy.base import Call, Result
from modelport.deploy.service import Service

_ROLE: Final = re.compile(r"arn:aws[-a-z]*:iam::\d{12}:role/.+")
_DOCUMENT_VERSION: Final = "2012-10-17"


def role_of(target: str, service: Service, place: Place, role: str) -> str:
    """The ARN of the role that the server runs as.

    Raises
    ------
    InputError
        When `role` is no ARN of a role.
    """
    if role and not _ROLE.fullmatch(role):
        raise InputError(
            f"not the ARN of a role: {role!r}",
            hint="--set role=arn:aws:iam::NUMBER:role/NAME, or leave it empty: one is created",
        )
    return role or f"arn:{place.partition}:iam::{ACCOUNT}:role/{role_name(target, service)}"


def role_name(target: str, service: Service) -> str:
    """What the created role is called."""
    return f"modelport-{target}-{service.name}"


def trust_policy(principal: str, condition: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Who may act as the role: one service, in this account alone where it can be said."""
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": principal},
        "Action": "sts:AssumeRole",
    }
    if condition:
        statement["Condition"] = dict(condition)
    return {"Version": _DOCUMENT_VERSION, "Statement": [statement]}


def policy(statements: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A policy document."""
    return {"Version": _DOCUMENT_VERSION, "Statement": [dict(s) for s in statements]}


def allow(name: str, actions: Sequence[str], resource: Any, **more: Any) -> dict[str, Any]:
    """One statement: these actions on that resource, or on those."""
    return {"Sid": name, "Effect": "Allow", "Action": list(actions), "Resource": resource, **more}


def role_calls(
    target: str, service: Service, place: Place, trust: Mapping[str, Any], rights: Mapping[str, Any]
) -> list[Call]:
    """Create the role, and say what it may do."""
    name = role_name(target, service)
    read = Call(
        "read-role", "iam", "GetRole", {"RoleName": name}, "read the role", ("iam:GetRole",)
    )
    create = Call(
        "create-role", "iam", "CreateRole",
        {
            "RoleName": name,
            "AssumeRolePolicyDocument": _compact(trust),
            "Description": f"modelport: {service.name} on {target}",
            "Tags": tags(service),
        },
        f"create the role {name}",
        ("iam:CreateRole", "iam:GetRole", "iam:TagRole"),
        otherwise=read,
        undo=Call(
            "delete-role", "iam", "DeleteRole", {"RoleName": name},
            f"delete the role {name}", ("iam:DeleteRole",),
        ),
    )  # fmt: skip
    return [create, *_policy_calls(name, _compact(rights))]


def _policy_calls(role: str, document: str) -> list[Call]:
    """Say what the role may do; an update that fails gives it its former rights back."""
    inline = {"RoleName": role, "PolicyName": "modelport"}
    former = Call(
        "former-role-policy", "iam", "GetRolePolicy", inline,
        "see what the role may do now, if it exists", ("iam:GetRolePolicy",),
        wait={"missing": "allowed", "default": {"PolicyDocument": document}},
    )  # fmt: skip
    delete = undone(
        "role-policy", "iam", "DeleteRolePolicy", inline, "the role's policy",
        "iam:DeleteRolePolicy",
    )  # fmt: skip
    back = Call(
        "restore-role-policy", "iam", "PutRolePolicy",
        {**inline, "PolicyDocument": Result("former-role-policy", "PolicyDocument")},
        "give the role its former rights", ("iam:PutRolePolicy",),
    )  # fmt: skip
    put = Call(
        "put-role-policy", "iam", "PutRolePolicy", {**inline, "PolicyDocument": document},
        "say what the role may do", ("iam:GetRolePolicy", "iam:PutRolePolicy"), undo=delete,
    )  # fmt: skip
    return [former, only_new(put, back)]


def only_new(put: Call, back: Call | None = None) -> Call:
    """A put that is deleted only when nothing was there before; `back` restores what was."""
    again = replace(put, id=f"{put.id}-again", undo=back)
    return replace(put, wait={**put.wait, "only": "new"}, otherwise=again)


def tags(service: Service) -> list[dict[str, str]]:
    """On everything that can carry tags: whose it is, and of which package."""
    return [{"Key": key, "Value": value} for key, value in tag_values(service).items()]


def tag_values(service: Service) -> dict[str, str]:
    """`tags` as a mapping, as Lambda wants them."""
    return {
        "modelport:service": service.name,
        "modelport:model": service.model,
        "modelport:package": service.package.digest.removeprefix("sha256:"),
    }


def fingerprint(value: Any) -> str:
    """Eight characters that differ where `value` does: for names of what cannot be changed."""
    return sha256_bytes(_compact(value).encode()).removeprefix("sha256:")[:8]


def undone(thing: str, service: str, operation: str, parameters: Mapping[str, Any], what: str,
           right: str) -> Call:  # fmt: skip
    """The call that deletes something."""
    return Call(f"delete-{thing}", service, operation, parameters, f"delete {what}", (right,))


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
