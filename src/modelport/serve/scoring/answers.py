"""From a model's answers to a response, by what the client accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modelport.adapters import find_adapter
from modelport.core.errors import NotAcceptableError
from modelport.core.tensors import Array
from modelport.serve.base import Call, ModelIdentity, Response, WireProtocol
from modelport.serve.json_codec import dumps_array
from modelport.serve.oip.codec import HEADER_LENGTH
from modelport.serve.scoring import csv_body, json_body, media, npy
from modelport.serve.tfserving import instances as instances_codec

#: What is written, the default first.
OFFERS: Final = (media.JSON, media.JSON_LINES, media.CSV, media.NPY)

_KEY: Final = "predictions"


@dataclass(frozen=True, slots=True)
class Context:
    """How an answer is written.

    Parameters
    ----------
    accepted : str
        Its media type.
    form : str
        Of JSON: ``rows``, ``columns``, ``bare`` (without a key around it) or ``v2``.
    call : Call or None
        What Open Inference V2 wants back.
    """

    accepted: str = media.JSON
    form: str = json_body.ROWS
    call: Call | None = None


def write(
    outputs: Mapping[str, Array],
    context: Context,
    model: ModelIdentity,
    *,
    bare: bool = False,
) -> Response:
    """Answer in the format that the client accepts.

    JSON is ``{"predictions": …}``: rows, or whole tensors for a body with ``inputs``; a bare
    list is answered with a bare list.

    Parameters
    ----------
    outputs : mapping of str to ndarray
    context : Context
        From `read`.
    model : ModelIdentity
    bare : bool
        Never put a key around JSON.

    Raises
    ------
    NotAcceptableError
        When the outputs cannot be written in that format: rows that differ in number, several
        arrays for one ``.npy``.
    """
    kind = media.canonical(context.accepted)
    if context.call is not None:
        if kind in (media.JSON, media.V2_BINARY, media.OCTETS):
            return _write_v2(outputs, context.call, model)
        if context.call.outputs:
            outputs = {name: outputs[name] for name in context.call.outputs}
    headers = (("content-type", context.accepted),)
    if kind == media.CSV:
        return Response(200, csv_body.write(outputs), headers)
    if kind == media.JSON_LINES:
        return Response(200, _lines(outputs), headers)
    if kind == media.NPY:
        return Response(200, npy.write(outputs), headers)
    if kind != media.JSON:
        raise NotAcceptableError(f"only a V2 body is answered as {kind}")
    by_row = context.form != json_body.COLUMNS
    body = instances_codec.write(outputs, by_row=by_row, key=_KEY)
    if bare or context.form == json_body.BARE:
        body = body[len(_KEY) + 4 : -1]
    return Response(200, body)


def _lines(outputs: Mapping[str, Array]) -> bytes:
    """One JSON value per row: that of the only output, or an object of all."""
    count = csv_body.common_rows(outputs)
    if len(outputs) == 1:
        (array,) = outputs.values()
        return b"\n".join([dumps_array(array[row : row + 1])[1:-1] for row in range(count)])
    rows = [
        instances_codec.write(
            {name: array[row : row + 1] for name, array in outputs.items()}, by_row=True, key=_KEY
        )
        for row in range(count)
    ]
    return b"\n".join([row[len(_KEY) + 5 : -2] for row in rows])


def _write_v2(outputs: Mapping[str, Array], call: Call, model: ModelIdentity) -> Response:
    """Have the protocol itself write it; where a proxy drops its header, the type says the same.

    Source: Triton's ``src/sagemaker_server.cc``.
    """
    protocol: WireProtocol = find_adapter("protocol", "oip").load()
    response = protocol.encode(call, outputs, model)
    length = dict(response.headers).get(HEADER_LENGTH)
    if length is not None:
        kind = f"{media.V2_BINARY};{media.V2_JSON_SIZE}={length}"
        response.headers = (("content-type", kind), (HEADER_LENGTH, length))
    return response
