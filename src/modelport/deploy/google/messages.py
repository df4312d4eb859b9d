"""Plain data and the messages of Google's clients, in both directions.

Only the applier imports this: it needs the SDK.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.cloud import aiplatform_v1, run_v2
from google.protobuf import json_format

from modelport.core.errors import InputError
from modelport.deploy.base import Call
from modelport.deploy.google.traffic import REVISIONS, SHARES, revisions, shares

MODULES: Final = {"run": run_v2, "aiplatform": aiplatform_v1}
_OPERATORS: Final[dict[str, Callable[..., Any]]] = {SHARES: shares, REVISIONS: revisions}


def build_request(call: Call, parameters: Mapping[str, Any]) -> Any:
    """The request of a call, as the SDK's own type.

    Raises
    ------
    InputError
        When the API has no such request, or the request no such field.
    """
    api = call.service.partition(".")[0]
    name = "".join(word.capitalize() for word in call.operation.split("_")) + "Request"
    kind = getattr(MODULES.get(api), name, None)
    if kind is None:
        raise InputError(f"Google's clients have no {call.service}.{call.operation}")
    try:
        return kind.wrap(json_format.ParseDict(_worked_out(parameters), kind.pb(kind())))
    except json_format.ParseError as error:
        words = str(error).partition("\n")[0]
        raise InputError(f"not a {name}: {words}", where=call.id) from error


def told(message: Any, region: str) -> dict[str, Any]:
    """A message as plain data, with what a plan asks for and the API does not say by itself.

    Of Cloud Run's services ``tag_uris``, by tag; of Vertex AI's endpoints ``predict_url``, unless
    it is a dedicated one that has no address yet; of an uploaded model ``versioned_name``.
    """
    plain: dict[str, Any] = json_format.MessageToDict(
        message if not hasattr(type(message), "pb") else type(message).pb(message),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    if isinstance(message, run_v2.Service):
        tagged = (state for state in plain["traffic_statuses"] if state["tag"])
        plain["tag_uris"] = {state["tag"]: state["uri"] for state in tagged}
    elif isinstance(message, aiplatform_v1.Endpoint):
        host = plain["dedicated_endpoint_dns"].removeprefix("https://")
        if not plain["dedicated_endpoint_enabled"]:
            host = f"{region}-aiplatform.googleapis.com"
        if host:
            plain["predict_url"] = f"https://{host}/v1/{plain['name']}:predict"
    elif isinstance(message, aiplatform_v1.UploadModelResponse):
        plain["versioned_name"] = f"{plain['model']}@{plain['model_version_id']}"
    return plain


def _worked_out(value: Any) -> Any:
    if isinstance(value, Mapping):
        for sign, work_out in _OPERATORS.items():
            if sign in value:
                return work_out(**value[sign])
        return {key: _worked_out(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_worked_out(item) for item in value]
    return value
