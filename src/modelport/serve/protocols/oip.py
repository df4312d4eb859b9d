"""Open Inference Protocol V2 over REST, with Triton's extensions.

Source: ``kserve/open-inference-protocol`` and Triton's ``docs/protocol``; where the two
differ, Triton's behaviour is followed, since its clients are the ones in use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from modelport.core.errors import InputError, ModelportError, UnsupportedError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve.base import (
    JSON_HEADERS,
    Call,
    ModelIdentity,
    Place,
    Request,
    Response,
    Route,
)
from modelport.serve.json_codec import dumps, is_object, parse_object, plain
from modelport.serve.oip import answers as oip_answers
from modelport.serve.oip import codec as oip_codec
from modelport.serve.oip import requests as oip_json
from modelport.serve.oip.codec import HEADER_LENGTH
from modelport.serve.oip.config import model_config, model_metadata, server_metadata
from modelport.serve.oip.repository import load_model, repository_index, unload_model
from modelport.serve.oip.schemas import describe
from modelport.serve.oip.statistics import model_statistics
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable

_MODEL: Final = r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?"
_CONTROLLED: Final = r"/v2/repository/models/(?P<model>[^/]+)"
_OTHER_REPOSITORY: Final = r"/v2/repository/[^/]+/(?:index|models/[^/]+/(?:load|unload))"

_PREFIX: Final = "/v2"


class OpenInference:
    """See the module."""

    name = "oip"
    carrier = "http"
    prefix = _PREFIX

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        server, config = partial(_server_metadata, options), partial(_config, options)
        return (
            Route("POST", re.compile(f"{_MODEL}/infer"), "/v2/models/{model}/infer"),
            Route("GET", re.compile("/v2/health/live"), "/v2/health/live", _live, health=True),
            Route("GET", re.compile("/v2/health/ready"), "/v2/health/ready", _ready, health=True),
            Route(
                "GET", re.compile(f"{_MODEL}/ready"), "/v2/models/{model}/ready",
                _model_ready, health=True,
            ),
            Route("GET", re.compile("/v2/?"), "/v2", server),
            Route("GET", re.compile("/v2/models"), "/v2/models", _list),
            # Before the models themselves: nobody asks for one that is called "stats".
            Route("GET", re.compile("/v2/models/stats"), "/v2/models/stats", _statistics),
            Route("GET", re.compile(f"{_MODEL}/stats"), "/v2/models/{model}/stats", _statistics),
            Route("GET", re.compile(f"{_MODEL}/config"), "/v2/models/{model}/config", config),
            Route("GET", re.compile(_MODEL), "/v2/models/{model}", _model_metadata),
            Route("POST", re.compile("/v2/repository/index"), "/v2/repository/index", _index),
            Route(
                "POST", re.compile(f"{_CONTROLLED}/load"), "/v2/repository/models/{model}/load",
                _load, control=True,
            ),
            Route(
                "POST", re.compile(f"{_CONTROLLED}/unload"), "/v2/repository/models/{model}/unload",
                _unload, control=True,
            ),
            Route("POST", re.compile(_OTHER_REPOSITORY), "/v2/repository/other/index", _elsewhere),
        )  # fmt: skip

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        return Place(groups.get("model") or "", groups.get("version"))

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        body, raw = oip_codec.split(request.body, request.headers.get(HEADER_LENGTH))
        return oip_json.read(body, raw, model) if body else oip_json.read_raw(raw, model)

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        return oip_answers.write(call, outputs, model)

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        return Response(status_of(error), dumps({"error": error.line}))

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        if methods:
            allow = ("allow", ", ".join(methods))
            return Response(405, dumps({"error": "Method Not Allowed"}), (*JSON_HEADERS, allow))
        return Response(404, dumps({"error": "Not Found"}))

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        return describe(route.example.removeprefix(_PREFIX), model)


def _live(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(200, b'{"live":true}')


def _ready(table: ModelTable, place: Place, request: Request) -> Response:
    ready = table.ready()
    return Response(200 if ready else 503, b'{"ready":true}' if ready else b'{"ready":false}')


def _model_ready(table: ModelTable, place: Place, request: Request) -> Response:
    model = table.get(place.model, place.version)
    ready = table.model_ready(model)
    return Response(200 if ready else 503, dumps({"name": model.spec.name, "ready": ready}))


def _server_metadata(
    options: ServeOptions, table: ModelTable, place: Place, request: Request
) -> Response:
    return Response(200, dumps(server_metadata(options)))


def _list(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(200, dumps({"models": table.names}))


def _model_metadata(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(200, dumps(model_metadata(table, place)))


def _config(options: ServeOptions, table: ModelTable, place: Place, request: Request) -> Response:
    identity, _ = table.get(place.model, place.version).ready()
    return Response(200, dumps(model_config(identity, options.max_batch)))


def _statistics(table: ModelTable, place: Place, request: Request) -> Response:
    models = model_statistics(table, place.model, place.version)
    return Response(200, dumps({"model_stats": models}))


def _index(table: ModelTable, place: Place, request: Request) -> Response:
    ready = _document(request).get("ready")
    if not isinstance(ready, bool | None):
        raise InputError("key 'ready' is not a boolean")
    return Response(200, dumps(repository_index(table, ready=bool(ready))))


def _load(table: ModelTable, place: Place, request: Request) -> Response:
    load_model(table, place.model, _control_parameters(request))
    return Response(200, b"", ())


def _unload(table: ModelTable, place: Place, request: Request) -> Response:
    unload_model(table, place.model, _control_parameters(request))
    return Response(200, b"", ())


def _elsewhere(table: ModelTable, place: Place, request: Request) -> Response:
    raise UnsupportedError("'repository_name' specification is not supported")


def _document(request: Request) -> dict[str, Any]:
    """The body of a repository's request, which may be empty."""
    return parse_object(request.body) if request.body else {}


def _control_parameters(request: Request) -> dict[str, Any]:
    parameters = _document(request).get("parameters")
    if parameters is None:
        return {}
    if not is_object(parameters):
        raise InputError("key 'parameters' is not an object")
    return dict(plain(parameters))
