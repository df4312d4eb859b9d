"""SageMaker's containers: ping, invocations, batch transform and multi-model endpoints.

``/invocations`` is MLflow's path, too. It is answered here because SageMaker asks more of it:
its headers choose the model and come back, and ``/models/{name}/invoke`` takes the same bodies.

Sources: the SageMaker developer guide ("Use your own inference code", "Multi-model endpoints:
build your own container", "Batch transform"), Triton's ``src/sagemaker_server.cc`` and
``mlflow``'s ``pyfunc/scoring_server``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from modelport.core.errors import EngineError, InputError, ModelportError
from modelport.core.options import MIB, ServeOptions
from modelport.core.tensors import Array
from modelport.serve import scoring
from modelport.serve.base import (
    Call,
    ModelIdentity,
    Place,
    Request,
    Response,
    Route,
)
from modelport.serve.json_codec import dumps
from modelport.serve.limits import usable_cores
from modelport.serve.openapi import INFERENCE_FAILURES, Schema, operation
from modelport.serve.scoring.multi_model import model_routes
from modelport.serve.table import ModelTable

ATTRIBUTES: Final = "x-amzn-sagemaker-custom-attributes"
#: Longer ones SageMaker itself does not pass on.
_LONGEST_ATTRIBUTES: Final = 1024

#: A batch transform holds at most this much in flight, in MiB; so says the API's reference of
#: ``CreateTransformJob``.
_MOST_IN_FLIGHT: Final = 100

#: How engines say that there is no memory left; the platform then makes room and tries again.
#: Source: Triton's ``sagemaker_server.cc``, and ONNX Runtime's and PyTorch's allocators.
_NO_MEMORY: Final = re.compile(
    r"bad_alloc|out of memory|cannot allocate memory|failed to allocate memory|"
    r"unable to allocate|cuda_error_out_of_memory|no space left on device",
    re.IGNORECASE,
)

_STATUS: Final[Schema] = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string"}},
}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How the client wants its answer.

    Parameters
    ----------
    context : scoring.Context
    attributes : str
        The custom attributes, which come back; empty for none.
    """

    context: scoring.Context
    attributes: str


class SageMaker:
    """See the module."""

    name = "sagemaker"
    carrier = "http"
    prefix = ""

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        ping = partial(_ping, options.multi_model)
        parameters = partial(_execution_parameters, options)
        invocations = re.compile("/invocations")
        return (
            # The custom attributes may choose a model, so the path alone says nothing.
            Route("POST", invocations, "/invocations", by_path=False),
            Route("GET", re.compile("/ping"), "/ping", ping, health=True),
            Route("GET", re.compile("/execution-parameters"), "/execution-parameters", parameters),
            *(model_routes() if options.multi_model and options.model_control else ()),
        )

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        if (model := groups.get("model")) is not None:
            return Place(model)
        attributes = _attributes(request)
        return _chosen(attributes) if "tfs-" in attributes else Place()

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        tensors, context = scoring.read(request, model)
        return Call(tensors, context=_Wanted(context, _attributes(request)))

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        wanted: _Wanted = call.context
        response = scoring.write(outputs, wanted.context, model)
        if wanted.attributes:
            response.headers = (*response.headers, (ATTRIBUTES, wanted.attributes))
        return response

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        exhausted = isinstance(error, EngineError) and _NO_MEMORY.search(error.message)
        return scoring.error(error, 507 if exhausted else None)

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        return scoring.wrong_method(methods)

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        return _operation(route, model)


def _attributes(request: Request) -> str:
    """The custom attributes, if they can be sent back as they are."""
    text = str(request.headers.get(ATTRIBUTES) or "")
    fine = len(text) <= _LONGEST_ATTRIBUTES and text.isascii() and text.isprintable()
    return text if fine else ""


def _chosen(attributes: str) -> Place:
    """The model that ``tfs-model-name=…,tfs-model-version=…,tfs-method=predict`` name.

    Source: ``aws/deep-learning-containers``, ``tensorflow/inference/docker/build_artifacts``.
    """
    pairs = [part.partition("=") for part in attributes.split(",")]
    values = {key.strip(): value.strip() for key, _, value in pairs}
    method = values.get("tfs-method") or "predict"
    if method != "predict":
        raise InputError(f"custom attribute tfs-method is {method[:40]!r}; there is: predict")
    return Place(values.get("tfs-model-name") or "", values.get("tfs-model-version") or None)


def _ping(multi_model: bool, table: ModelTable, place: Place, request: Request) -> Response:
    # With several models the server is healthy as soon as it can be told to load them.
    if (not table.draining) if multi_model else table.ready():
        return Response(200, b'{"status":"Healthy"}')
    return Response(503, b'{"status":"Unhealthy"}')


def _execution_parameters(
    options: ServeOptions, table: ModelTable, place: Place, request: Request
) -> Response:
    threads = options.threads or max(1, usable_cores() // options.workers)
    concurrent = min(threads * options.workers, _MOST_IN_FLIGHT)
    identity = table.models[0].identity if table.models else None
    one_row = identity is not None and identity.signature.batch_symbol is None
    payload = min(options.max_body // MIB, _MOST_IN_FLIGHT // concurrent)
    return Response(
        200,
        dumps(
            {
                "MaxConcurrentTransforms": concurrent,
                "BatchStrategy": "SINGLE_RECORD" if one_row else "MULTI_RECORD",
                "MaxPayloadInMB": max(1, payload),
            }
        ),
    )


def _operation(route: Route, model: ModelIdentity) -> dict[str, Any]:
    name = {"modelName": {"type": "string"}, "modelUrl": {"type": "string"}}
    one: Schema = {"type": "object", "required": list(name), "properties": name}
    described = {"application/json": one}
    error = scoring.error_schema()
    if route.answer is None:
        return operation(
            "Run a model, in the format that Content-Type and Accept name",
            body=scoring.body_schemas(model.signature),
            answer=scoring.answer_schemas(model.signature),
            failures=(*INFERENCE_FAILURES, 406, 507),
            error=error,
        )
    if route.example == "/ping":
        status = {"application/json": _STATUS}
        return operation("Whether the server is healthy", answer=status, others={503: status})
    if route.example == "/execution-parameters":
        parameters = {"application/json": {"type": "object"}}
        return operation("How a batch transform may send its records", answer=parameters)
    if route.method == "POST":
        wanted = {"model_name": {"type": "string"}, "url": {"type": "string"}}
        body = {"type": "object", "required": list(wanted), "properties": wanted}
        return operation(
            "Load a model",
            body={"application/json": body},
            answer=described,
            failures=(400, 409, 413, 415, 500, 503, 504, 507),
            error=error,
        )
    if route.example == "/models":
        models = {"type": "object", "properties": {"models": {"type": "array", "items": one}}}
        return operation(
            "The models that are loaded",
            answer={"application/json": models},
            query={"next_page_token": {"type": "string"}},
            failures=(400,),
            error=error,
        )
    if route.method == "GET":
        return operation("One model", answer=described, failures=(404,), error=error)
    return operation(
        "Unload a model", answer=described, failures=(404, 413, 415, 503, 504), error=error
    )
