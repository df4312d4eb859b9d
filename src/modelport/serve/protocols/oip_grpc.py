"""Open Inference Protocol V2 over gRPC with Triton's extensions.

Source: ``kserve/open-inference-protocol`` (``open_inference_grpc.proto``) and Triton's
``grpc_service.proto`` and ``src/grpc/``. Where KServe and Triton differ, both kinds of clients
are understood: KServe names a model to load in Triton's field for the repository.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from modelport.core.errors import InputError, ModelportError, UnsupportedError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve.base import Answer, Call, ModelIdentity, Place, Request, Response, Route
from modelport.serve.oip.config import model_config, model_metadata, server_metadata
from modelport.serve.oip.repository import load_model, repository_index, unload_model
from modelport.serve.oip.statistics import model_statistics
from modelport.serve.protos import inference, message, service
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable

_SERVICE: Final = "inference.GRPCInferenceService"
_STREAM: Final = f"/{_SERVICE}/ModelStreamInfer"

#: Number and wire type of ``ModelStreamInferResponse.infer_response``.
_INFER_RESPONSE: Final = b"\x12"

#: The metadata by which a client asks that an error ends a stream. Source: Triton's
#: ``docs/customization_guide/inference_protocols.md``.
_REAL_ERRORS: Final = "triton_grpc_error"


class OpenInferenceGrpc:
    """See the module."""

    name = "oip-grpc"
    carrier = "grpc"
    prefix = f"/{_SERVICE.lower()}/"

    def __init__(self) -> None:
        self._requests = {
            f"/{_SERVICE}/{method.name}": message(method.input_type.full_name)
            for method in service(_SERVICE).methods
        }

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        answers: dict[str, Answer | None] = {
            "ModelInfer": None,
            "ModelStreamInfer": None,
            "ServerLive": _live,
            "ServerReady": _ready,
            "ModelReady": _model_ready,
            "ServerMetadata": partial(_server_metadata, options),
            "ModelMetadata": _model_metadata,
            "ModelConfig": partial(_config, options),
            "ModelStatistics": _statistics,
            "RepositoryIndex": _index,
            "RepositoryModelLoad": _load,
            "RepositoryModelUnload": _unload,
        }
        names = [method.name for method in service(_SERVICE).methods]
        names.sort(key=lambda name: name not in answers or answers[name] is not None)
        return [_route(name, answers.get(name, _unsupported)) for name in names]

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        try:
            parsed = request.message = self._requests[request.path].FromString(request.body)
        except DecodeError as error:
            raise InputError("the message cannot be read: it is damaged, or another") from error
        if request.path.endswith("Infer"):
            return Place(parsed.model_name, parsed.model_version or None)
        version = getattr(parsed, "version", "")
        return Place(getattr(parsed, "name", ""), version or None)

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        call = inference.read(request.message, model)
        if request.path == _STREAM:
            call.context.stream = True
        return call

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        body = inference.write(call, outputs, model)
        if call.context.stream:
            body = b"".join((_INFER_RESPONSE, inference.varint(len(body)), body))
        return Response(200, body, ())

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        return Response(status_of(error), error.line.encode(), ())

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        return Response(501, f"no such method: {request.path[:200]}".encode(), ())

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        return {}


def _route(name: str, answer: Answer | None) -> Route:
    path = f"/{_SERVICE}/{name}"
    stream = name == "ModelStreamInfer"
    return Route(
        "POST",
        re.compile(re.escape(path)),
        path,
        answer,
        by_path=False,
        health=name in ("ServerLive", "ServerReady", "ModelReady"),
        control=name in ("RepositoryModelLoad", "RepositoryModelUnload"),
        stream=stream,
        stream_error=_stream_error if stream else None,
    )


def _stream_error(request: Request, response: Response) -> Response:
    """An error is a message in the stream, unless the client asks for a real one."""
    if str(request.headers.get(_REAL_ERRORS) or "").lower() == "true":
        return response
    answer = message("inference.ModelStreamInferResponse")(error_message=response.body.decode())
    if request.message is not None:
        answer.infer_response.id = request.message.id
    return Response(200, answer.SerializeToString(), ())


def _response(name: str, content: Mapping[str, Any]) -> Response:
    """A message of plain data, which may have more keys than the message has fields."""
    answer = message(f"inference.{name}")()
    json_format.ParseDict(content, answer, ignore_unknown_fields=True)
    return Response(200, answer.SerializeToString(), ())


def _live(table: ModelTable, place: Place, request: Request) -> Response:
    return _response("ServerLiveResponse", {"live": True})


def _ready(table: ModelTable, place: Place, request: Request) -> Response:
    return _response("ServerReadyResponse", {"ready": table.ready()})


def _model_ready(table: ModelTable, place: Place, request: Request) -> Response:
    model = table.get(place.model, place.version)
    return _response("ModelReadyResponse", {"ready": table.model_ready(model)})


def _server_metadata(
    options: ServeOptions, table: ModelTable, place: Place, request: Request
) -> Response:
    return _response("ServerMetadataResponse", server_metadata(options))


def _model_metadata(table: ModelTable, place: Place, request: Request) -> Response:
    return _response("ModelMetadataResponse", model_metadata(table, place))


def _config(options: ServeOptions, table: ModelTable, place: Place, request: Request) -> Response:
    identity, _ = table.get(place.model, place.version).ready()
    return _response("ModelConfigResponse", {"config": model_config(identity, options.max_batch)})


def _statistics(table: ModelTable, place: Place, request: Request) -> Response:
    return _response(
        "ModelStatisticsResponse",
        {"model_stats": model_statistics(table, place.model, place.version)},
    )


def _index(table: ModelTable, place: Place, request: Request) -> Response:
    _only_repository(request.message.repository_name)
    models = repository_index(table, ready=request.message.ready)
    return _response("RepositoryIndexResponse", {"models": models})


def _load(table: ModelTable, place: Place, request: Request) -> Response:
    name, parameters = _named(request)
    load_model(table, name, parameters)
    return _response("RepositoryModelLoadResponse", {"model_name": name, "isLoaded": True})


def _unload(table: ModelTable, place: Place, request: Request) -> Response:
    name, parameters = _named(request)
    unload_model(table, name, parameters)
    return _response("RepositoryModelUnloadResponse", {"model_name": name, "isUnloaded": True})


def _named(request: Request) -> tuple[str, dict[str, Any]]:
    """The model to load or unload, and the request's parameters."""
    asked = request.message
    # KServe's message has the model's name where Triton's has the repository's.
    name = asked.model_name or asked.repository_name
    if not name:
        raise InputError("model_name is empty")
    if asked.model_name:
        _only_repository(asked.repository_name)
    return name, inference.parameters(asked.parameters)


def _only_repository(name: str) -> None:
    if name:
        raise UnsupportedError(
            f"repository_name is {name[:80]!r}: there is one repository, without a name"
        )


def _unsupported(table: ModelTable, place: Place, request: Request) -> Response:
    method = request.path.rpartition("/")[2]
    raise UnsupportedError(
        f"{method} is not supported: this server shares no memory with its clients, "
        "and its traces and logs are not set by them"
    )
