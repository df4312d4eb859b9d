"""CloudEvents over HTTP, as KServe V1 takes and gives them.

Binary mode: the attributes are headers ``ce-…`` and the body is the data. Structured mode: the body
is one JSON object of attributes and ``data``. Source: the CloudEvents 1.0 HTTP binding, and
``kserve`` 0.21 (``protocol/dataplane.py``, ``utils/utils.py``) for the answer's attributes.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from modelport.core.errors import InputError
from modelport.core.rows import decode_base64
from modelport.serve.base import HeaderLookup, Response
from modelport.serve.json_codec import dumps, fields, is_object, parse_object

STRUCTURED: Final = "application/cloudevents+json"

#: The header that every binary event has: one look tells all other requests.
SPECVERSION: Final = "ce-specversion"

_REQUIRED: Final = ("specversion", "id", "source", "type")
_VERSIONS: Final = ("0.3", "1.0")


def is_binary(headers: HeaderLookup) -> bool:
    """Whether the headers are those of an event in binary mode.

    As in KServe, a request without all required attributes is none, and is answered as any other.

    Raises
    ------
    InputError
        For a version of CloudEvents that is not known here.
    """
    version = headers.get(SPECVERSION)
    if version is None or any(headers.get(f"ce-{name}") is None for name in _REQUIRED):
        return False
    _check_version(version)
    return True


def open_structured(document: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an event in structured mode, which is the body that any other request has.

    Raises
    ------
    InputError
        When an attribute is missing, or the data is no JSON object.
    """
    missing = [name for name in _REQUIRED if not isinstance(document.get(name), str)]
    if missing:
        raise InputError(f"the CloudEvent has no {', '.join(missing)}")
    _check_version(document["specversion"])
    data = document.get("data")
    if data is None and isinstance(encoded := document.get("data_base64"), str):
        try:
            return parse_object(decode_base64(encoded))
        except ValueError as error:
            raise InputError(f"the CloudEvent's data_base64 is not Base64: {error}") from error
    if not is_object(data):
        raise InputError("the CloudEvent's data is not a JSON object")
    return fields(data)


def wrap(response: Response, model: str, *, binary: bool) -> Response:
    """An answer as an event, in the mode of the request.

    Parameters
    ----------
    response : Response
        With a JSON body.
    model : str
        Its name is the end of the event's source.
    binary : bool
    """
    attributes = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": f"io.kserve.inference.{quote(model)}",  # a URI
        "type": "io.kserve.inference.response",
        "time": datetime.now(UTC).isoformat(),
    }
    if binary:
        headers = [(f"ce-{name}", value) for name, value in attributes.items()]
        return Response(response.status, response.body, (*response.headers, *headers))
    head = dumps({**attributes, "datacontenttype": "application/json"})
    body = b'%b,"data":%b}' % (head[:-1], response.body)
    return Response(response.status, body, (("content-type", STRUCTURED),))


def _check_version(version: str) -> None:
    if version not in _VERSIONS:
        raise InputError(f"CloudEvents {version[:20]!r} is not known here: {', '.join(_VERSIONS)}")
