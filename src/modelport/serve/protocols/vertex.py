"""Vertex AI custom containers: the routes that ``AIP_PREDICT_ROUTE`` and ``AIP_HEALTH_ROUTE`` name.

``{"instances", "parameters"}`` → ``{"predictions"}`` of equal length and order, and with
``rawPredict`` any body that `modelport.serve.uploads.bodies` or `modelport.serve.scoring` reads,
or an Open Inference V2 request.
Sources: ``google-cloud-aiplatform`` (``aiplatform.prediction``, ``ModelContainerSpec``) and
Triton's ``src/vertex_ai_server.cc``.

Vertex AI reads answers into ``google.protobuf.Value``: numbers become doubles, and a bare ``NaN``
is an error there. So NaN and infinities are written as ``null``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import unquote

from modelport.adapters import find_adapter
from modelport.core.errors import InputError, ModelportError, NotFoundError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve import scoring
from modelport.serve.base import (
    JSON_HEADERS,
    Call,
    ModelIdentity,
    Place,
    Request,
    Response,
    Route,
    WireProtocol,
)
from modelport.serve.json_codec import dumps, fields, is_list, is_object, parse_object
from modelport.serve.oip.codec import HEADER_LENGTH
from modelport.serve.openapi import INFERENCE_FAILURES, operation
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable
from modelport.serve.tfserving import instances as instances_codec
from modelport.serve.uploads import bodies as uploads
from modelport.serve.uploads.forms import media_type_of
from modelport.serve.uploads.labelled import strict

#: V2 with raw tensors behind its JSON; Vertex AI does not pass on V2's own header.
BINARY: Final = "application/vnd.vertex-ai-triton.binary+json"

#: Which path of Triton a request is meant for.
REDIRECT: Final = "x-vertex-ai-triton-redirect"

_REDIRECT: Final = re.compile(
    r"/?v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer"
)


@dataclass(frozen=True, slots=True)
class _Rows:
    """How many rows came, and whether they are answered as rows."""

    count: int
    by_row: bool


@dataclass(frozen=True, slots=True)
class _V2:
    """A request of Open Inference V2, which is answered as one."""

    call: Call


class VertexAI:
    """See the module."""

    name = "vertex"
    carrier = "http"
    prefix = ""

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        found: list[Route] = []
        for method, path, answer in (
            ("POST", options.predict_route, None),
            ("GET", options.health_route, _health),
        ):
            if path:
                path = "/" + path.lstrip("/")
                found.append(
                    Route(
                        method,
                        re.compile(re.escape(path)),
                        path,
                        answer,
                        by_path=False,  # a header may name another model
                        health=answer is not None,
                    )
                )
        return found

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        redirect = request.headers.get(REDIRECT)
        if redirect is None:
            return Place()
        match = _REDIRECT.fullmatch(unquote(redirect))
        if match is None:
            raise InputError(
                f"header X-Vertex-Ai-Triton-Redirect is {redirect[:80]!r}; "
                "requests are redirected to v2/models/MODEL[/versions/VERSION]/infer alone"
            )
        return Place(match["model"], match["version"])

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        size = _json_size(request.headers.get("content-type") or "", len(request.body))
        if size is not None:
            return _read_v2(request, model, {HEADER_LENGTH: str(size)})
        if request.headers.get(REDIRECT) is not None or _is_v2(request.body):
            return _read_v2(request, model, {})
        if uploads.is_table(request):
            tensors, told = scoring.read(request, model)
            return Call(tensors, context=told)
        body_read = uploads.read(request, model)
        lengths = (len(array) for array in body_read.tensors.values() if array.ndim)
        return Call(body_read.tensors, context=_Rows(next(lengths, 1), body_read.by_row))

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        context: _Rows | _V2 | scoring.Context = call.context
        if isinstance(context, _V2):
            return _open_inference().encode(context.call, outputs, model)
        if isinstance(context, scoring.Context):
            response = scoring.write(outputs, context, model)
            if response.headers is JSON_HEADERS:
                response.body = strict(response.body)
            return response
        if context.by_row:
            _check_rows(outputs, context.count)
        key = "predictions" if context.by_row else "outputs"
        return Response(200, strict(instances_codec.write(outputs, by_row=context.by_row, key=key)))

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        return Response(status_of(error), dumps({"error": error.line}))

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        allow = ("allow", ", ".join(methods))
        return Response(405, dumps({"error": "Method Not Allowed"}), (*JSON_HEADERS, allow))

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        empty = {"application/json": {"type": "object"}}
        if route.health:
            return operation("Whether the first model is ready", answer=empty, others={503: empty})
        answer = {"type": "object", "properties": {"predictions": {"type": "array"}}}
        return operation(
            "Instances to predictions; 'parameters' are accepted, and used by no model",
            body={
                **uploads.body_schemas(model.signature),
                BINARY: {"type": "string", "format": "binary"},
            },
            answer={
                **scoring.answer_schemas(model.signature),
                "application/json": answer,
                uploads.OCTETS: {"type": "string", "format": "binary"},
            },
            failures=(*INFERENCE_FAILURES, 406),
        )


@cache
def _open_inference() -> WireProtocol:
    """The protocol itself, so that a body means the same here as at its own path."""
    protocol: WireProtocol = find_adapter("protocol", "oip").load()
    return protocol


def _read_v2(request: Request, model: ModelIdentity, headers: dict[str, str]) -> Call:
    inner = Request("POST", request.path, headers, request.body)
    call = _open_inference().decode(inner, model)
    return Call(call.inputs, call.outputs, _V2(call))


def _json_size(content_type: str, most: int) -> int | None:
    """How many bytes of a binary body are JSON; None: it is no binary body.

    Raises
    ------
    InputError
        When Triton's media type is not written as Triton reads it.
    """
    if BINARY not in content_type.lower():
        return None
    media_type, parameters = media_type_of(content_type)
    text = parameters.get("json-header-size", "")
    known = text.isascii() and text.isdigit() and len(text) <= 18
    size = int(text) if known else -1
    if media_type != BINARY or not 0 < size <= most:
        raise InputError(
            f"header Content-Type is {content_type[:120]!r}; "
            f"expected {BINARY};json-header-size=N, the bytes of JSON, of the body's {most}"
        )
    return size


def _is_v2(body: bytes) -> bool:
    """Whether a body is a JSON request of Open Inference V2."""
    if b'"datatype"' not in body:
        return False
    try:
        inputs = parse_object(body).get("inputs")
    except InputError:
        return False
    if inputs is None or not is_list(inputs) or not len(inputs):
        return False
    return is_object(inputs[0]) and "datatype" in fields(inputs[0])


def _check_rows(outputs: Mapping[str, Array], count: int) -> None:
    """Every instance has its prediction, as batch prediction relies on."""
    for name, array in outputs.items():
        if not array.ndim or len(array) != count:
            raise InputError(
                f"{count} instances have no prediction each: output {name} has the shape "
                f"{list(array.shape)}",
                hint="send the columnar format ('inputs') with rawPredict",
            )


def _health(table: ModelTable, place: Place, request: Request) -> Response:
    try:
        ready = table.model_ready(table.get(place.model))
    except NotFoundError:  # a server may start without any
        ready = False
    return Response(200 if ready else 503, b"{}")
