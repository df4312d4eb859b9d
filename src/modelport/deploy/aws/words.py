"""From a plan's words to boto3's parameters, and from boto3's answers to plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from modelport.deploy.aws.place import ACCOUNT, PAIRS


def to_request(value: Any, account: str) -> Any:
    """Parameters as boto3 takes them: with the account, and with keys from earlier answers."""
    if isinstance(value, str):
        return value.replace(ACCOUNT, account)
    if isinstance(value, Mapping):
        if set(value) == {PAIRS}:
            return {str(key): to_request(item, account) for key, item in value[PAIRS]}
        return {key: to_request(item, account) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_request(item, account) for item in value]
    return value


def without_itself(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``UpdateAlias`` without a weight for the version that gets the rest: Lambda refuses that.

    So it is when the same package is deployed again.
    """
    routing = parameters.get("RoutingConfig", {})
    weights = dict(routing.get("AdditionalVersionWeights", {}))
    weights.pop(parameters.get("FunctionVersion"), None)
    return {**parameters, "RoutingConfig": {**routing, "AdditionalVersionWeights": weights}}


def plain(value: Any) -> Any:
    """An answer as plain data: no response metadata, times as text, stack outputs by name."""
    if isinstance(value, Mapping):
        kept = {key: plain(item) for key, item in value.items() if key != "ResponseMetadata"}
        outputs = kept.get("Outputs")
        if isinstance(outputs, list) and all("OutputKey" in item for item in outputs):
            kept["Outputs"] = {item["OutputKey"]: item["OutputValue"] for item in outputs}
        if isinstance(kept.get("PolicyDocument"), Mapping):  # botocore has read the JSON
            kept["PolicyDocument"] = json.dumps(kept["PolicyDocument"], separators=(",", ":"))
        return kept
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
