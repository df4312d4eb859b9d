"""What the platforms for functions have in common: requests and answers inside JSON documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.serve.base import Request, Response

#: Content types whose bodies are text; everything else must travel as base64.
_TEXT_TYPES: Final = (
    "application/javascript",
    "application/json",
    "application/xml",
)

#: Keys of a bare inference document → what answers it.
_PREDICT: Final = "/v1/models/{model}:predict"
_INFER: Final = "/v2/models/{model}/infer"
_INVOCATIONS: Final = "/invocations"


def text_of(response: Response) -> str | None:
    """The body as text; None where it is none, and only base64 can carry it.

    A body is text by its content type and only if it is UTF-8 and not compressed: the platforms
    hand a string on as it is, and a wrong guess is a damaged body.
    """
    if not response.body:
        return ""
    headers = dict(response.headers)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_text = kind.startswith("text/") or kind in _TEXT_TYPES or kind.endswith(("+json", "+xml"))
    if not is_text or "content-encoding" in headers:
        return None
    try:
        return response.body.decode()
    except UnicodeDecodeError:
        return None


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name; those that occur more than once as one list (RFC 9110 §5.3)."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        known = headers.get(key)
        separator = "; " if key == "cookie" else ", "
        headers[key] = value if known is None else f"{known}{separator}{value}"
    return headers


def clean(value: object) -> str:
    """A value of a JSON document as text that can be encoded: JSON allows half a surrogate pair."""
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def bare_request(document: Any, models: Sequence[str]) -> Request:
    """The request that a bare inference document stands for, where no HTTP request came with it.

    Its keys tell its protocol: ``dataframe_split``, ``dataframe_records``, or ``params`` beside
    ``inputs`` or ``instances`` are MLflow's; ``inputs`` that is a list of objects with a
    ``datatype`` is Open Inference V2; other ``inputs``, and ``instances``, are TensorFlow
    Serving's and KServe V1's. The first model answers.

    Raises
    ------
    InputError
        When it is none of them.
    """
    if not isinstance(document, Mapping):
        raise InputError(f"the event is a {type(document).__name__}, expected a JSON object")
    if not models:
        raise InputError("no model is loaded, and a bare document names none")
    path = _path_of(document).format(model=models[0])
    # Not orjson: it writes NaN as null, and knows no integers beyond 64 bits.
    body = json.dumps(document, separators=(",", ":")).encode()
    return Request("POST", path, {"content-type": "application/json"}, body)


def _path_of(document: Mapping[Any, Any]) -> str:
    if "dataframe_split" in document or "dataframe_records" in document:
        return _INVOCATIONS
    inputs = document.get("inputs")
    if "params" in document and (inputs is not None or "instances" in document):
        return _INVOCATIONS
    if isinstance(inputs, list) and any(_is_tensor(item) for item in inputs):
        return _INFER
    if inputs is not None or "instances" in document:
        return _PREDICT
    keys = ", ".join(clean(key)[:40] for key in list(document)[:10]) or "none"
    raise InputError(
        f"the event is no HTTP request and no inference request; its keys are: {keys}",
        hint="send 'inputs' (Open Inference V2), 'instances' (TensorFlow Serving, KServe V1), "
        "'dataframe_split' or 'dataframe_records' (MLflow)",
    )


def _is_tensor(item: Any) -> bool:
    return isinstance(item, Mapping) and "datatype" in item
