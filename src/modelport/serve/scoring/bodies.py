"""From a request to tensors, by its content type."""

from __future__ import annotations

import numpy as np

from modelport.adapters import find_adapter
from modelport.core.errors import InputError, MediaTypeError, MissingPackageError
from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, STRING, Array, TensorSpec
from modelport.serve.base import Call, ModelIdentity, Request, WireProtocol
from modelport.serve.oip import codec as oip_codec
from modelport.serve.scoring import csv_body, json_body, media, npy
from modelport.serve.scoring.answers import OFFERS, Context

_KNOWN = (media.JSON, media.JSON_LINES, media.CSV, media.NPY, media.PARQUET, media.OCTETS)


def read(request: Request, model: ModelIdentity) -> tuple[dict[str, Array], Context]:
    """The tensors of a body, by its ``Content-Type``, and how its answer is written.

    Parameters
    ----------
    request : Request
        Its body decompressed. Without a ``Content-Type`` it is JSON.
    model : ModelIdentity

    Returns
    -------
    tuple
        The tensors, not yet checked against the signature, and what `write` needs.

    Raises
    ------
    MediaTypeError
        A format, or a character set, that is not read here, or not for this model.
    NotAcceptableError
        ``Accept`` names nothing that can be written.
    InputError
        Every kind of malformed body, with the place.
    SignatureError
        What is in it does not fit the model: columns are missing, a conversion is not safe.
    """
    kind, parameters = media.content_type(request.headers.get("content-type"))
    header_length = request.headers.get(oip_codec.HEADER_LENGTH)
    if kind == media.V2_BINARY or (kind == media.OCTETS and header_length is not None):
        header_length = parameters.get(media.V2_JSON_SIZE, header_length)
        return _read_v2(request, model, header_length)
    form = json_body.ROWS
    if kind == media.JSON:
        found = json_body.read(request.body, model.signature)
        if found.form == json_body.V2:
            return _read_v2(request, model, None)
        tensors, form = found.tensors, found.form
    else:
        tensors = _read_other(kind, parameters, request.body, model.signature)
    accepted = media.negotiate(request.headers.get("accept"), OFFERS, media.JSON)
    return tensors, Context(accepted, form)


def _read_other(
    kind: str, parameters: dict[str, str], body: bytes, signature: Signature
) -> dict[str, Array]:
    if kind == media.JSON_LINES:
        return json_body.read_lines(body, signature)
    if kind == media.CSV:
        return csv_body.read(body, signature, _header(parameters))
    if kind == media.NPY:
        return npy.read(body, signature)
    if kind == media.PARQUET:
        return _read_parquet(body, signature)
    if kind.startswith("image/") or kind == media.IMAGE:
        return _one_file(kind, body, signature)
    if kind == media.TEXT:
        return _one_text(body, signature)
    if kind == media.OCTETS:
        spec = _single(signature, kind)
        if not body:
            raise InputError("body is empty")
        return {spec.name: oip_codec.decode_whole(memoryview(body), spec)}
    raise MediaTypeError(
        f"Content-Type {kind[:80]!r} is not read here; there is: {', '.join(_KNOWN)}, image/* "
        "and text/plain for models that take them"
    )


def _header(parameters: dict[str, str]) -> bool | None:
    """``header=present`` or ``absent``, as RFC 4180 registers it for ``text/csv``."""
    told = parameters.get("header")
    if told not in (None, "present", "absent"):
        raise MediaTypeError(f"parameter header of text/csv is {told[:40]!r}: present or absent")
    if parameters.get("label_size", "0") != "0":
        raise MediaTypeError("parameter label_size of text/csv: a request has no labels")
    return None if told is None else told == "present"


def _read_parquet(body: bytes, signature: Signature) -> dict[str, Array]:
    try:
        reader = find_adapter("body", "parquet").load()
    except MissingPackageError as error:
        raise MediaTypeError(
            f"{error.message}: the server was installed without modelport[parquet]",
            hint=error.hint,
        ) from error
    tensors: dict[str, Array] = reader.read(body, signature)
    return tensors


def _single(signature: Signature, kind: str) -> TensorSpec:
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise MediaTypeError(f"{kind} is one input, and the model takes several: {names}")
    return signature.inputs[0]


def _one_file(kind: str, body: bytes, signature: Signature) -> dict[str, Array]:
    spec = _single(signature, kind)
    if spec.dtype != BYTES:
        raise MediaTypeError(
            f"{kind[:80]} is no input of this model, which takes {spec.dtype} {spec.shape_text}",
            hint="pack the model with the steps that read images",
        )
    if not body:
        raise InputError("body is empty")
    return {spec.name: _one(body, spec)}


def _one_text(body: bytes, signature: Signature) -> dict[str, Array]:
    spec = _single(signature, media.TEXT)
    if spec.dtype != STRING:
        raise MediaTypeError(
            f"text is no input of this model, which takes {spec.dtype} {spec.shape_text}"
        )
    try:
        return {spec.name: _one(body.decode(), spec)}
    except UnicodeDecodeError as error:
        raise InputError("body is not UTF-8") from error


def _one(item: bytes | str, spec: TensorSpec) -> Array:
    array = np.empty(1, dtype=object)
    array[0] = item
    return array.reshape([1] * len(spec.shape))


def _read_v2(
    request: Request, model: ModelIdentity, header_length: str | None
) -> tuple[dict[str, Array], Context]:
    """Have the protocol itself read it, so that it means the same as at its own path."""
    headers = {} if header_length is None else {oip_codec.HEADER_LENGTH: header_length}
    protocol: WireProtocol = find_adapter("protocol", "oip").load()
    call: Call = protocol.decode(Request("POST", request.path, headers, request.body), model)
    offers = (*OFFERS, media.V2_BINARY, media.OCTETS)
    accepted = media.negotiate(request.headers.get("accept"), offers, media.JSON)
    return call.inputs, Context(accepted, json_body.V2, call)
