"""A plan as text for people, and as JSON for programs: the same plan, the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelport.core.digest import sha256_bytes
from modelport.deploy import limits
from modelport.deploy.base import Call, Plan, Result


def plain(value: Any) -> Any:
    """`value` with every `Result` as its text."""
    if isinstance(value, Result):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def to_json(plan: Plan) -> dict[str, Any]:
    """All of a plan as plain data."""
    return {
        "target": plan.target,
        "name": plan.service.name,
        "model": plan.service.model,
        "package": plan.service.package.digest,
        "image": plan.image,
        "connection": dict(plan.connection),
        "files": [
            {
                "path": file.path,
                "bytes": len(file.content.encode()),
                "sha256": sha256_bytes(file.content.encode()),
                "purpose": file.purpose,
            }
            for file in plan.files
        ],
        "calls": [_call(call) for call in plan.calls],
        "rights": list(plan.rights),
        "endpoint": plain(plan.endpoint),
        "protocol": plan.protocol,
        "limits": [limits.to_json(check) for check in plan.checks],
        "notes": list(plan.notes),
        "commands": list(plan.commands),
    }


def _call(call: Call) -> dict[str, Any]:
    return {
        "id": call.id,
        "call": f"{call.service}.{call.operation}",
        "phase": call.phase,
        "purpose": call.purpose,
        "parameters": plain(call.parameters),
        "rights": list(call.rights),
        "otherwise": _call(call.otherwise) if call.otherwise else None,
        "undo": _call(call.undo) if call.undo else None,
        "wait": plain(call.wait),
    }


def to_text(plan: Plan) -> str:
    """A plan, part by part; parts without content are left out."""
    service = plan.service
    lines = [
        f"deploy {service.model} to {plan.target} as {service.name}",
        f"  package  {service.package.digest} ({_size(service.package.size)})",
    ]
    lines += [f"  image    {plan.image}"] if plan.image else []
    lines += [f"  {key:8} {value}" for key, value in plan.connection.items() if value]
    lines += _part("files", [_file_line(plan, index) for index in range(len(plan.files))])
    calls = [
        f"{number}. {call.service}.{call.operation}: {call.purpose}"
        for number, call in enumerate(plan.calls, 1)
    ]
    lines += _part("calls, in order", calls)
    lines += _part("run", plan.commands)
    lines += _part("limits", [_check_line(check) for check in plan.checks])
    lines += _part("rights needed", plan.rights)
    lines += _part("notes", plan.notes)
    if plan.endpoint:
        lines += ["", f"endpoint: {plain(plan.endpoint)}"]
    return "\n".join(lines) + "\n"


def _part(title: str, lines: Any) -> list[str]:
    return ["", f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _file_line(plan: Plan, index: int) -> str:
    file = plan.files[index]
    return f"{file.path} ({_size(len(file.content.encode()))}): {file.purpose}"


def _check_line(check: limits.Check) -> str:
    mark = "ok" if check.passed else "EXCEEDED"
    return f"{mark}: {check.describe()}"


def _size(size: int) -> str:
    return limits.amount(size, "bytes")
