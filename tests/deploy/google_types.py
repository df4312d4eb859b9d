"""What a plan's requests are held against: the SDK's own messages, and what they say of fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import proto  # type: ignore[import-untyped]
from google.cloud import aiplatform_v1, run_v2

from modelport.deploy.base import Call, Plan, Result
from modelport.deploy.google.place import REST
from modelport.deploy.google.traffic import REVISIONS, SHARES

MODULES = {"run": run_v2, "aiplatform": aiplatform_v1}
#: Calls that are not one method of a client.
OTHERS = (*REST, "undeploy_models", "undeploy_version", "delete_endpoint_with_models")

#: Fields that the documentation calls required, and the API itself fills in.
_FILLED = {("Service", "template"), ("Model", "display_name")}


def every_call(plan: Plan) -> Iterator[Call]:
    """All calls, also otherwise, to take back, and for the status."""
    waiting = [*plan.calls, *([plan.status] if plan.status else [])]
    while waiting:
        call = waiting.pop()
        yield call
        waiting += [more for more in (call.otherwise, call.undo) if more]


def is_method(call: Call) -> bool:
    return call.service not in OTHERS and call.operation not in OTHERS


def answered(value: Any, key: str = "") -> Any:
    """`value` with an example in every `Result`'s place, of the kind that the path says."""
    if isinstance(value, Result):
        return _EXAMPLES.get(value.path, f"example-{key}")
    if isinstance(value, Mapping):
        if SHARES in value or REVISIONS in value:
            return {k: answered(v) for k, v in value.items()}
        return {k: answered(v, k) for k, v in value.items()}
    return [answered(item) for item in value] if isinstance(value, list | tuple) else value


_EXAMPLES: dict[str, Any] = {
    "traffic": [{"type_": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "percent": 100,
                 "revision": "churn-before"}],
    "latest_ready_revision": "projects/p/locations/l/services/churn/revisions/churn-before",
    "traffic_split": {"17": 100},
    "labels": {"managed-by": "modelport"},
    "ingress": "INGRESS_TRAFFIC_ALL",
    "invoker_iam_disabled": False,
    "template": {"containers": [{"image": "before"}]},
    "deployed_model.id": "17",
    "versioned_name": "projects/p/locations/l/models/churn@1",
}  # fmt: skip


def missing_fields(message: proto.Message, where: str = "") -> list[str]:
    """Fields that the SDK's own documentation calls required, and that are not set."""
    kind = type(message)
    partial = kind.__name__ == "Service" and where == "UpdateServiceRequest.service"
    missing = [] if partial else [f"{where}.{n}" for n in required(kind) if not getattr(message, n)]
    for name, field in kind.meta.fields.items():
        value = getattr(message, name)
        if field.proto_type == proto.MESSAGE and value:
            many = value if hasattr(value, "append") else [value]
            for item in many.values() if isinstance(many, Mapping) else many:
                if isinstance(item, proto.Message):
                    inner = f"{where or kind.__name__}.{name}"
                    missing += missing_fields(item, inner)
    return missing


def required(kind: type[proto.Message]) -> list[str]:
    text = kind.__doc__ or ""
    found = re.findall(r"^ {4,8}(\w+) \([^\n]*\):\n\s+Required\.", text, flags=re.MULTILINE)
    return [name for name in found if name in kind.meta.fields]
