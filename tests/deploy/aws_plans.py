"""Plans for AWS, held against AWS's own descriptions of its APIs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from botocore.session import get_session
from botocore.validate import ParamValidator

from modelport.core.package import Package
from modelport.deploy import stage
from modelport.deploy.aws.place import BUILT
from modelport.deploy.aws.words import to_request
from modelport.deploy.base import Call, Plan, Result
from modelport.deploy.service import Footprint

ACCOUNT: Final = "123456789012"
REPOSITORY: Final = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/churn"
IMAGE: Final = f"image={REPOSITORY}@sha256:{'ab' * 32}"
OTHER_IMAGE: Final = f"image={REPOSITORY}@sha256:{'cd' * 32}"


def aws_plan(package: Package, footprint: Footprint, target: str, *settings: str) -> Plan:
    return stage.plan(package, target, settings, footprint=footprint)


def every_call(plan: Plan) -> Iterator[Call]:
    """All calls, and what is done otherwise, or to take them back."""
    waiting = [*plan.calls, *([plan.status] if plan.status else [])]
    while waiting:
        call = waiting.pop()
        yield call
        waiting += [more for more in (call.otherwise, call.undo) if more is not None]


def answered(value: Any) -> Any:
    """`value` with something for every `Result`, and bytes for every file."""
    if isinstance(value, Result):
        return {} if value.path == "RoutingConfig" else "7"
    if isinstance(value, Mapping) and set(value) == {BUILT}:
        return b"a file"
    if isinstance(value, Mapping):
        return {key: answered(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [answered(item) for item in value]
    return value


def complaints(call: Call) -> str:
    """What AWS's own model of the API has against a call: unknown, missing or ill-typed values.

    Beside what `ParamValidator` holds, also the patterns and the words that the model lists.
    """
    operation = get_session().get_service_model(call.service).operation_model(call.operation)
    request = to_request(answered(call.parameters), ACCOUNT)
    found = [ParamValidator().validate(request, operation.input_shape).generate_report()]
    found += _deeper(request, operation.input_shape, call.operation)
    return "; ".join(text for text in found if text)


def _deeper(value: Any, shape: Any, where: str) -> Iterator[str]:
    if shape.type_name == "structure" and isinstance(value, Mapping):
        for key, item in value.items():
            if key in shape.members:
                yield from _deeper(item, shape.members[key], f"{where}.{key}")
    elif shape.type_name == "list":
        for item in value:
            yield from _deeper(item, shape.member, where)
    elif shape.type_name == "string":
        words = shape.metadata.get("enum")
        if words and value not in words:
            yield f"{where}: {value!r} is none of {words}"
        most = shape.metadata.get("max")
        if most and len(value) > most:
            yield f"{where}: longer than {most}"


def http_event(path: str, body: bytes) -> dict[str, Any]:
    """What an HTTP API hands to a function: payload 2.0."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "example.org", "content-type": "application/json"},
        "requestContext": {
            "http": {"method": "POST", "path": path, "sourceIp": "192.0.2.1"},
            "requestId": "1",
            "stage": "$default",
        },
        "body": body.decode(),
        "isBase64Encoded": False,
    }
