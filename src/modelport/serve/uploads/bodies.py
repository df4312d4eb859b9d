"""Bodies that are not one protocol's document: files, forms, plain text and bare rows.

A body becomes the model's inputs by its media type (RFC 9110 §8.3) and by what the model takes:

- ``multipart/form-data`` (RFC 7578): each part is one row of the input that its name tells;
- ``application/x-www-form-urlencoded``: the same. curl also says this of anything else that it
  sends with ``-d`` and ``--data-binary``, so it is believed only where it begins with a field;
- tables and rows in lines (CSV, JSON Lines, Parquet …): see `modelport.serve.scoring`;
- JSON: rows or columns as TensorFlow Serving writes them, a bare list of rows, or one row;
- everything else is the one input itself: a file, a text, or the bytes of a tensor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import numpy as np

from modelport.core.errors import InputError, MediaTypeError, SignatureError
from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, STRING, Array, TensorSpec
from modelport.serve import scoring
from modelport.serve.base import ModelIdentity, Request
from modelport.serve.json_codec import (
    Reader,
    fields,
    from_plain,
    is_list,
    is_object,
    parse,
    plain,
)
from modelport.serve.oip import codec as oip_codec
from modelport.serve.openapi import Schema, instances, rows
from modelport.serve.scoring import media
from modelport.serve.tfserving import instances as instances_codec
from modelport.serve.uploads.forms import MULTIPART, Part, fields_of, media_type_of, parts_of

#: Names of fields that mean the one input, whatever it is called.
GENERIC: Final = ("file", "data", "body", "image")

FORM: Final = "application/x-www-form-urlencoded"
OCTETS: Final = "application/octet-stream"

_TABLES: Final = (media.CSV, media.JSON_LINES, media.NPY, media.PARQUET)

#: Media types under which clients send anything.
_UNSAID: Final = ("", "text/plain", "*/*")

_FIELD: Final = re.compile(rb"\s*([^=&\s]{1,200})=")


class Form(Enum):
    """How a body was written; its answer is written alike."""

    DOCUMENT = "an object with 'instances' or 'inputs'"
    ROWS = "a bare list of rows"
    FILES = "each file or value a row"


@dataclass(frozen=True, slots=True)
class Body:
    """The inputs that a body holds, not yet checked against the signature.

    Parameters
    ----------
    tensors : dict of str to ndarray
    form : Form
    by_row : bool
        False for TensorFlow Serving's columnar format.
    """

    tensors: dict[str, Array]
    form: Form
    by_row: bool = True


def body_schemas(signature: Signature) -> dict[str, Schema]:
    """What `read` takes, by media type, for OpenAPI."""
    inputs = signature.inputs
    fields = {spec.name: {"type": "string"} for spec in inputs}
    schemas: dict[str, Schema] = {
        **scoring.body_schemas(signature),
        "application/json": {"anyOf": [instances(signature), rows(inputs)]},
        MULTIPART: {"type": "object", "properties": fields},
    }
    if len(inputs) == 1:
        files = ("image/jpeg", "image/png") if inputs[0].dtype == BYTES else ()
        for kind in (OCTETS, *files):
            schemas[kind] = {"type": "string", "format": "binary"}
    return schemas


def is_table(request: Request) -> bool:
    """Whether a body is a table, or rows in lines: `modelport.serve.scoring` reads those."""
    media_type, _ = media_type_of(request.headers.get("content-type"))
    if media.canonical(media_type) in _TABLES:
        return True
    return media_type in ("", "application/json", FORM) and b'"dataframe_' in request.body


def is_json(media_type: str) -> bool:
    """Whether a media type says JSON: its own, or a type with the suffix ``+json``."""
    return media_type in ("application/json", "text/json") or media_type.endswith("+json")


def read(request: Request, model: ModelIdentity) -> Body:
    """The inputs in a request's body, whatever it is.

    Parameters
    ----------
    request : Request
    model : ModelIdentity

    Raises
    ------
    InputError
        When the body is broken, or empty.
    MediaTypeError
        When its media type is nothing that this model takes.
    LimitError
        When a form has more than `modelport.serve.uploads.forms.MOST_PARTS` parts.
    SignatureError
        When a part belongs to no input, or holds another type.
    """
    said = request.headers.get("content-type")
    media_type, options = media_type_of(said)
    body, signature = request.body, model.signature
    if not body:
        raise InputError("body is empty")
    if is_table(request):
        headers = {"content-type": said or ""}  # what is accepted is the caller's matter
        tensors, _ = scoring.read(Request("POST", request.path, headers, body), model)
        return Body(tensors, Form.DOCUMENT)
    if media_type == MULTIPART:
        return _from_parts(parts_of(body, options.get("boundary", "")), signature)
    if media_type == FORM:
        if _is_form(body, signature):
            return _from_parts(fields_of(body), signature)
        media_type = ""
    if is_json(media_type) or _is_json_unsaid(body, media_type, signature):
        return _from_json(body, signature)
    return Body(_from_raw(body, media_type, signature), Form.FILES)


def _is_form(body: bytes, signature: Signature) -> bool:
    """Whether it begins with a field that somebody could mean: ``data=``."""
    match = _FIELD.match(body[:256])
    if match is None:
        return False
    name = unquote_to_bytes(match[1].replace(b"+", b" ")).decode("utf-8", "replace")
    return name in GENERIC or name in signature.inputs_by_name


def _from_parts(parts: Sequence[Part], signature: Signature) -> Body:
    if len(parts) == 1 and is_json(parts[0].media_type):
        return _from_json(parts[0].data, signature)  # curl -F data=@rows.json
    values: dict[str, list[Any]] = {}
    for position, part in enumerate(parts):
        try:
            spec = _input_of(part.name, signature)
            values.setdefault(spec.name, []).append(_value_of(part, spec))
        except InputError as error:
            error.where = f"part {position}" if not error.where else error.where
            raise
    specs = signature.inputs_by_name
    return Body({name: _stack(rows, specs[name]) for name, rows in values.items()}, Form.FILES)


def _input_of(name: str, signature: Signature) -> TensorSpec:
    """The input that a part's name means."""
    spec = signature.inputs_by_name.get(name)
    if spec is not None:
        return spec
    files = [spec for spec in signature.inputs if spec.dtype == BYTES]
    candidates = files if len(files) == 1 else signature.inputs
    if name in GENERIC and len(candidates) == 1:
        return candidates[0]
    known = ", ".join(signature.inputs_by_name)
    raise SignatureError(f"no input is named {name[:80]!r}; the model takes: {known}")


def _value_of(part: Part, spec: TensorSpec) -> Any:
    """One row: the file, the text, or what JSON writes."""
    if spec.dtype == BYTES:
        return part.data
    if spec.dtype == STRING and not _row_shape(spec):
        return _decoded(part.data, spec)
    if part.media_type not in ("", "text/plain") and not is_json(part.media_type):
        raise MediaTypeError(
            f"input {spec.name} takes {spec.dtype} {spec.shape_text} as JSON, "
            f"not {part.media_type[:80]}"
        )
    return from_plain(plain(parse(part.data)), spec)


def _row_shape(spec: TensorSpec) -> tuple[int | str, ...]:
    """The shape of one row; ``[N, 1]`` has scalars for rows, as `TensorSpec.check` lets it."""
    shape = spec.shape[1:]
    return () if shape == (1,) else shape


def _stack(rows: list[Any], spec: TensorSpec) -> Array:
    """Rows of one input, one after the other; a single value may be the whole tensor."""
    if not isinstance(rows[0], np.ndarray):
        array = np.empty(len(rows), dtype=object)
        array[:] = rows
        return array if spec.shape else array[0:1].reshape(())
    if len(rows) == 1 and rows[0].ndim >= len(spec.shape):
        whole: Array = rows[0]
        return whole
    try:
        return np.stack(rows)
    except ValueError as error:
        raise SignatureError(
            f"rows of input {spec.name} have different shapes: "
            f"{', '.join(str(list(row.shape)) for row in rows[:8])}"
        ) from error


def _is_json_unsaid(body: bytes, media_type: str, signature: Signature) -> bool:
    """Whether a body of no particular type is JSON: by the model, else by how it begins."""
    if media_type not in _UNSAID:
        return False
    inputs = signature.inputs
    if len(inputs) > 1 or inputs[0].numpy_dtype.kind != "O":
        return True
    text = inputs[0].dtype == STRING and media_type == "text/plain"
    return not text and body[:64].lstrip()[:1] in (b"{", b"[")


def _from_json(body: bytes, signature: Signature) -> Body:
    document, reader = parse(body), Reader(body)
    found = _from_document(document, signature, reader)
    reader.finish()
    return found


def _from_document(document: Any, signature: Signature, reader: Reader) -> Body:
    if is_list(document):
        return Body(instances_codec.read_rows(document, signature, reader), Form.ROWS)
    if is_object(document):
        values = fields(document)
        if "instances" in values or "inputs" in values:
            tensors, by_row = instances_codec.read(values, signature, reader)
            return Body(tensors, Form.DOCUMENT, by_row)
        name = next(iter(values)) if len(values) == 1 else ""
        if name in GENERIC and name not in signature.inputs_by_name:
            # {"data": […]}: what scripts for TorchServe and Azure ML read.
            if is_list(values[name]):
                return _from_document(values[name], signature, reader)
            document = values[name]
    tensors = instances_codec.read_rows([plain(document)], signature, reader)
    return Body(tensors, Form.FILES)


def _from_raw(body: bytes, media_type: str, signature: Signature) -> dict[str, Array]:
    """The body as the only input: a file, a text, or a tensor's bytes."""
    if len(signature.inputs) != 1:
        names = ", ".join(signature.inputs_by_name)
        raise MediaTypeError(
            f"the model takes {names}: send multipart/form-data or JSON, not {media_type[:80]}"
        )
    (spec,) = signature.inputs
    if spec.dtype == BYTES:
        return {spec.name: _stack([body], spec)}
    if spec.dtype == STRING and (
        media_type.startswith("text/") or media_type in (*_UNSAID, OCTETS)
    ):
        return {spec.name: _stack([_decoded(body, spec)], spec)}
    if spec.dtype == STRING or media_type != OCTETS:
        raise MediaTypeError(
            f"input {spec.name} takes {spec.dtype} {spec.shape_text}, not {media_type[:80]}"
        )
    return {spec.name: oip_codec.decode_whole(memoryview(body), spec)}


def _decoded(data: bytes, spec: TensorSpec) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SignatureError(f"input {spec.name} takes text in UTF-8") from error
