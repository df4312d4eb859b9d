"""Azure ML online endpoints: scoring, probes, and the description of the service.

Routes, headers, statuses and error bodies are those of ``azureml-inference-server-http`` 1.5
(``server/routes.py``, ``api/aml_response.py``); that a body is read, and how, is
`modelport.serve.uploads.bodies`' matter, as there a script's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs
from uuid import uuid4

from modelport.core.errors import DeadlineError, EngineError, InputError, LimitError, ModelportError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve import scoring
from modelport.serve.base import (
    JSON_HEADERS,
    Call,
    HeaderLookup,
    Headers,
    ModelIdentity,
    Place,
    Request,
    Response,
    Route,
)
from modelport.serve.json_codec import dumps, parse_object, plain
from modelport.serve.openapi import INFERENCE_FAILURES, Schema, document, operation
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable
from modelport.serve.tfserving import instances as instances_codec
from modelport.serve.uploads import bodies as uploads
from modelport.serve.uploads.labelled import dumps_strict

#: Most characters of an identifier that a client chooses.
HEADER_LIMIT: Final = 100

_MESSAGE: Final[Schema] = {
    "type": "object",
    "required": ["message"],
    "properties": {"message": {"type": "string"}},
}

_TEXT: Final[Headers] = (("content-type", "text/plain; charset=utf-8"),)

_TOO_LONG: Final = 431

_NOT_FAILED: Final = ("x-ms-run-function-failed", "False")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the answer's headers need to know of the request."""

    headers: Headers
    by_row: bool
    table: scoring.Context | None
    started: float


class AzureML:
    """See the module."""

    name = "azureml"
    carrier = "http"
    prefix = "/score"

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        swagger = partial(_swagger, self, options)
        score = re.compile("/score")
        return (
            Route("POST", score, "/score"),
            Route("OPTIONS", score, "/score", _options),
            Route("GET", re.compile("/healthz"), "/healthz", _alive, health=True),
            Route("GET", re.compile("/ready"), "/ready", _ready, health=True),
            Route("GET", re.compile(r"/swagger\.json"), "/swagger.json", swagger),
        )

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        return Place()

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        headers = identifiers(request.headers)
        try:
            by_row, table = True, None
            request = _without_input_data(request)
            if uploads.is_table(request):
                tensors, table = scoring.read(request, model)
            else:
                body = uploads.read(request, model)
                tensors, by_row = body.tensors, body.by_row
            # Checked here as well, so that the answer to a misfit has its identifiers.
            tensors = model.signature.check(tensors)
        except ModelportError as error:
            error.report = {**(error.report or {}), "headers": headers}
            raise
        return Call(tensors, context=_Asked(headers, by_row, table, time.perf_counter()))

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        asked: _Asked = call.context
        took = (time.perf_counter() - asked.started) * 1e3
        headers = (*asked.headers, ("x-ms-run-fn-exec-ms", f"{took:.3f}"))
        if asked.table is not None:
            response = scoring.write(outputs, asked.table, model)
            response.headers = (*response.headers, _NOT_FAILED, *headers)
            return response
        key = "predictions" if asked.by_row else "outputs"
        body = instances_codec.write(outputs, by_row=asked.by_row, key=key)
        return Response(200, body, (*JSON_HEADERS, _NOT_FAILED, *headers))

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        report = error.report or {}
        status = report.get("status") or status_of(error)
        headers = report.get("headers")
        if headers is None:
            headers = identifiers({})
        failed = isinstance(error, (EngineError, DeadlineError))
        return _response(status, dumps({"message": error.line}), headers, failed=failed)

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        try:
            headers = identifiers(request.headers)
        except ModelportError as error:
            return self.error(error)
        if methods:
            headers = (*headers, ("allow", ", ".join(methods)))
            return _response(405, dumps({"message": "Method not allowed"}), headers)
        return _response(404, dumps({"message": "Not Found"}), headers)

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        anything = {"application/json": {"type": "object"}}
        text = {"text/plain": {"type": "string"}}
        too_long = {_TOO_LONG: {"application/json": _MESSAGE}}
        if route.example == "/healthz":
            return operation("Whether the server is alive", answer=text)
        if route.example == "/ready":
            return operation("Whether every model is ready", answer=text, others={503: text})
        if route.example == "/swagger.json":
            version = {"type": "string", "examples": ["3.1"]}
            return operation(
                "What /score takes and answers, in OpenAPI 3.1", answer=anything,
                query={"version": version}, failures=(404,), error=_MESSAGE, others=too_long,
            )  # fmt: skip
        if route.method == "OPTIONS":
            return operation("Which methods the path takes", others=too_long)
        return operation(
            "Score with the first model",
            body=uploads.body_schemas(model.signature),
            answer={**scoring.answer_schemas(model.signature), **anything},
            failures=(*INFERENCE_FAILURES, 406), error=_MESSAGE, others=too_long,
        )  # fmt: skip


def identifiers(headers: HeaderLookup | Mapping[str, str]) -> Headers:
    """The identifiers of a request as its answer repeats them.

    ``x-request-id`` is made where there is none. ``x-ms-request-id`` is the old name of
    ``x-ms-client-request-id``; each stands in for the other.

    Raises
    ------
    LimitError
        For one longer than `HEADER_LIMIT`; it is answered with 431.
    InputError
        For one with characters that no header should have.
    """
    given = {name: _identifier(headers, name) for name in _NAMES}
    request_id = given["x-request-id"] or str(uuid4())
    client = given["x-ms-client-request-id"] or given["x-ms-request-id"]
    found = [
        ("x-request-id", request_id),
        ("x-ms-request-id", given["x-ms-request-id"] or client or request_id),
    ]
    if client:
        found.append(("x-ms-client-request-id", client))
    if given["traceid"]:
        found.append(("traceid", given["traceid"]))
    return tuple(found)


_NAMES: Final = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id", "traceid")


def _identifier(headers: HeaderLookup | Mapping[str, str], name: str) -> str:
    value = str(headers.get(name) or "")
    if len(value) > HEADER_LIMIT:
        raise LimitError(
            f"{name} must not exceed {HEADER_LIMIT} characters", report={"status": _TOO_LONG}
        )
    if not (value.isascii() and (value.isprintable() or not value)):
        raise InputError(f"{name} holds characters other than printable ASCII")
    return value


def _without_input_data(request: Request) -> Request:
    """The body of Azure's own MLflow server, ``{"input_data": …}``, as the others write it.

    A table (``columns``, ``index``, ``data``), rows, or whole tensors by name. Source: Microsoft's
    article "Deploy MLflow models to online endpoints".
    """
    if b'"input_data"' not in request.body[:256]:
        return request
    values = parse_object(request.body)
    if "input_data" not in values:
        return request
    value = plain(values["input_data"])
    if isinstance(value, list):
        key = "instances"
    else:
        key = "dataframe_split" if isinstance(value, dict) and "data" in value else "inputs"
    body = dumps_strict({key: value})
    return Request(request.method, request.path, request.headers, body, request.query)


def _response(status: int, body: bytes, headers: Headers, *, failed: bool = False) -> Response:
    told = ("x-ms-run-function-failed", str(failed))
    return Response(status, body, (*JSON_HEADERS, told, *headers))


def _options(table: ModelTable, place: Place, request: Request) -> Response:
    headers = (*identifiers(request.headers), ("allow", "OPTIONS, POST"))
    return Response(200, b"", (*_TEXT, *headers))


def _alive(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(200, b"Healthy", _TEXT)


def _ready(table: ModelTable, place: Place, request: Request) -> Response:
    ready = table.ready()
    return Response(200 if ready else 503, b"Ready" if ready else b"Not ready", _TEXT)


def _swagger(
    protocol: AzureML, options: ServeOptions, table: ModelTable, place: Place, request: Request
) -> Response:
    headers = identifiers(request.headers)
    version = parse_qs(request.query).get("version", ["3.1"])[-1]
    if version != "3.1":
        message = f"Swagger version {version[:20]!r} is not supported; there is: 3.1"
        return _response(404, dumps({"message": message}), headers)
    routes = [(protocol, route) for route in protocol.routes(options)]
    identity = table.get("").identity if table.models else None
    closed = bool(options.api_key.strip() or options.api_key_file)
    described = document(routes, [identity] if identity else [], closed=closed,
                         guard_health=options.guard_health)  # fmt: skip
    return _response(200, dumps(described), headers)
