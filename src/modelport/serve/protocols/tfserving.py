"""TensorFlow Serving's REST API v1: predict, classify, regress, status and metadata.

On ``GET /v1/models/M`` the answer is KServe V1's, too: one object with the keys of both.

Source: ``tensorflow/serving`` (``http_rest_api_handler.cc``, ``json_tensor.cc``) at the time
of TF Serving 2.21; for CloudEvents and for bodies other than JSON ``kserve`` 0.21.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelport.core.errors import InputError, ModelportError, NotFoundError, UnsupportedError
from modelport.core.options import ServeOptions
from modelport.core.tensors import BYTES, Array, TensorSpec
from modelport.serve.base import Call, ModelIdentity, Place, Request, Response, Route
from modelport.serve.json_codec import Reader, dumps, dumps_array, parse_object
from modelport.serve.models import ServedModel
from modelport.serve.oip import codec as oip_codec
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable
from modelport.serve.tfserving import classes as class_results
from modelport.serve.tfserving import cloud_events
from modelport.serve.tfserving import examples as examples_codec
from modelport.serve.tfserving import instances as instances_codec
from modelport.serve.tfserving.docs import describe
from modelport.serve.tfserving.models import (
    PREDICT,
    SIGNATURE_NAME,
    asked_models,
    check_signature_name,
    error_code,
    is_unknown_label,
    say,
    version_of,
)
from modelport.serve.tfserving.rapid_json import parse_leniently
from modelport.serve.tfserving.tensor_proto import DATATYPES

_FLAGS: Final = re.IGNORECASE
_MODEL: Final = (
    r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
)

#: Element types that TF Serving's REST API does not read: 501.
_UNREAD: Final = ("float16", "uint16")

#: What KServe takes for JSON.
_JSON_TYPES: Final = ("application/json", cloud_events.STRUCTURED, "application/ld+json")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How the client wants its answer, where that is more than rows (True) or columns (False).

    Parameters
    ----------
    answer : str
        ``rows``, ``columns``, ``classes`` or ``values``.
    event : str
        The mode of the CloudEvent, ``binary`` or ``structured``; empty: it is none.
    """

    answer: str
    event: str = ""


class TensorFlowServing:
    """See the module."""

    name = "tfserving"
    carrier = "http"
    prefix = "/v1/"

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        root = "/v1/models/{model}"
        return (
            Route("POST", re.compile(f"{_MODEL}:predict", _FLAGS), f"{root}:predict"),
            Route("POST", re.compile(f"{_MODEL}:classify", _FLAGS), f"{root}:classify"),
            Route("POST", re.compile(f"{_MODEL}:regress", _FLAGS), f"{root}:regress"),
            Route("GET", re.compile(f"{_MODEL}/metadata", _FLAGS), f"{root}/metadata", _metadata),
            Route("GET", re.compile(_MODEL, _FLAGS), root, _status, health=True),
        )

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        version = groups["version"]
        number = None if version is None else version_of(version)
        return Place(groups["model"] or "", number, groups["label"])

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        headers = request.headers
        event = ""
        if headers.get(cloud_events.SPECVERSION) is not None and cloud_events.is_binary(headers):
            event = "binary"
        predict = request.path[-1] in "tT"  # of the three: predict, classify, regress
        document: Mapping[str, Any]
        try:
            document = parse_object(request.body)
        except InputError:
            file = _whole_body(request, model) if predict else None
            if file is not None:
                return Call(file, context=_Wanted("rows", event) if event else True)
            document = parse_leniently(request.body)
        if "specversion" in document and not event:
            document, event = _opened(document, headers.get("content-type"))
        if "signature_name" in document:
            check_signature_name(document["signature_name"])
        if not predict:
            return _decode_examples(request.path, document, model, event)
        for spec in model.signature.inputs:
            if spec.dtype in _UNREAD:
                raise _unread(spec)
        reader = Reader(request.body)
        tensors, by_row = instances_codec.read(document, model.signature, reader)
        reader.finish()
        if not event:
            return Call(tensors, context=by_row)
        return Call(tensors, context=_Wanted("rows" if by_row else "columns", event))

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        wanted: bool | _Wanted = call.context
        if isinstance(wanted, bool):
            key = "predictions" if wanted else "outputs"
            return Response(200, instances_codec.write(outputs, by_row=wanted, key=key))
        if wanted.answer == "classes":
            body = _classes(outputs, model)
        elif wanted.answer == "values":
            values = outputs[class_results.value_output(model.signature)]
            body = b'{"results":%b}' % dumps_array(values.reshape(-1))
        else:
            by_row = wanted.answer == "rows"
            key = "predictions" if by_row else "outputs"
            body = instances_codec.write(outputs, by_row=by_row, key=key)
        response = Response(200, body)
        if wanted.event:
            binary = wanted.event == "binary"
            return cloud_events.wrap(response, model.name, binary=binary)
        return response

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        status = 400 if is_unknown_label(error) else status_of(error)
        return Response(status, dumps({"error": say(error, status=False)}))

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`: all that is malformed is 400."""
        message = f"Malformed request: {request.method} {request.path}"
        return Response(400, dumps({"error": message}))

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        return describe(route, model)


def _opened(document: Mapping[str, Any], content_type: str | None) -> tuple[Mapping[str, Any], str]:
    """A body, or what is in it if it is a CloudEvent, and the mode of the answer.

    As in KServe, the content type decides whether the answer is an event; a body that looks like
    one is opened all the same.
    """
    if _media_type(content_type) == cloud_events.STRUCTURED:
        return cloud_events.open_structured(document), "structured"
    if "data" in document and "instances" not in document and "inputs" not in document:
        return cloud_events.open_structured(document), ""
    return document, ""


def _whole_body(request: Request, model: ModelIdentity) -> dict[str, Array] | None:
    """The one input that a body is as a whole; None: it should have been JSON.

    KServe hands bodies of other content types to the model as they are. A model of ours takes them
    where its one input takes files, or, as ``application/octet-stream``, numbers.
    """
    media_type = _media_type(request.headers.get("content-type"))
    inputs = model.signature.inputs
    if not request.body or not media_type or media_type in _JSON_TYPES or len(inputs) != 1:
        return None
    (spec,) = inputs
    if spec.dtype != BYTES and media_type != "application/octet-stream":
        return None
    return {spec.name: oip_codec.decode_whole(memoryview(request.body), spec)}


def _media_type(header: str | None) -> str:
    return (header or "").partition(";")[0].strip().lower()


def _decode_examples(
    path: str, document: Mapping[str, Any], model: ModelIdentity, event: str
) -> Call:
    if path[-1] in "yY":
        class_results.class_outputs(model.signature)  # or it is no classifier
        answer = "classes"
    else:
        class_results.value_output(model.signature)
        answer = "values"
    tensors = examples_codec.to_tensors(examples_codec.read_json(document), model.signature)
    return Call(tensors, context=_Wanted(answer, event))


def _unread(spec: TensorSpec) -> UnsupportedError:
    name = DATATYPES[spec.dtype].removeprefix("DT_").lower()
    return UnsupportedError(
        f"Conversion of JSON values to type: {name} (input {spec.name}); TensorFlow Serving's REST "
        "API has no such input, its gRPC API and the Open Inference Protocol have"
    )


def _classes(outputs: Mapping[str, Array], model: ModelIdentity) -> bytes:
    signature = model.signature
    chosen = class_results.class_outputs(signature)
    labels, scores = class_results.classes_of(outputs, chosen, signature)
    rows = []
    for texts, row in zip(labels, scores, strict=True):
        numbers = dumps_array(row)[1:-1].split(b",")
        pairs = (b"[%b,%b]" % pair for pair in zip(map(dumps, texts), numbers, strict=True))
        rows.append(b"[%b]" % b",".join(pairs))
    return b'{"results":[%b]}' % b",".join(rows)


def _status(table: ModelTable, place: Place, request: Request) -> Response:
    try:
        models = asked_models(table, place)
    except NotFoundError as error:
        unknown = NotFoundError("status", place.model, error.known)
        unknown.message = say(error, status=True)
        raise unknown from error
    states = [_state(model) for model in models]
    if place.version or "/" in request.path[len("/v1/models/") :]:
        return Response(200, dumps({"model_version_status": states}))
    # KServe's probe asks here, and looks at the status alone; TF Serving would answer 200.
    name = models[0].spec.name
    ready = any(table.model_ready(model) for model in models)
    merged = {"name": name, "ready": ready, "model_version_status": states}
    if not ready:
        merged["error"] = f"Model with name {name} is not ready."
    return Response(200 if ready else 503, dumps(merged))


def _state(model: ServedModel) -> dict[str, Any]:
    return {
        "version": str(model.spec.version),
        "state": model.state.value,
        "status": {"error_code": error_code(model), "error_message": model.error},
    }


def _metadata(table: ModelTable, place: Place, request: Request) -> Response:
    model = table.get(place.model, place.version, place.label)
    identity, _ = model.ready()
    definition = {
        "inputs": {spec.name: _tensor_info(spec) for spec in identity.signature.inputs},
        "outputs": {spec.name: _tensor_info(spec) for spec in identity.signature.outputs},
        "method_name": PREDICT,
        "defaults": {},
    }
    return Response(
        200,
        dumps(
            {
                "model_spec": {
                    "name": identity.name,
                    "signature_name": "",
                    "version": str(identity.version),
                },
                "metadata": {"signature_def": {"signature_def": {SIGNATURE_NAME: definition}}},
            }
        ),
    )


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    return {
        "dtype": DATATYPES[spec.dtype],
        "tensor_shape": {
            "dim": [
                {"size": str(size) if isinstance(size, int) else "-1", "name": ""}
                for size in spec.shape
            ],
            "unknown_rank": False,
        },
        "name": spec.name,
    }
