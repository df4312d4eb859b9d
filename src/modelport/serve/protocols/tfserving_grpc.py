"""TensorFlow Serving over gRPC: predictions, classes, values, metadata, status and reload.

Answers have typed values, one per element, as TensorFlow Serving's do unless it is told otherwise.
Source: ``tensorflow/serving`` (``apis/*.proto``, ``servables/tensorflow/*.cc``) at the time of TF
Serving 2.21.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from modelport.core.errors import InputError, ModelportError, NotFoundError, UnsupportedError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array, TensorSpec
from modelport.serve.base import Answer, Call, ModelIdentity, Place, Request, Response, Route
from modelport.serve.protos import message
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable
from modelport.serve.tfserving import classes as class_results
from modelport.serve.tfserving import examples as examples_codec
from modelport.serve.tfserving import tensor_proto
from modelport.serve.tfserving.models import (
    CLASSIFY,
    CODES,
    PREDICT,
    REGRESS,
    SIGNATURE_NAME,
    asked_models,
    check_signature_name,
    error_code,
    is_unknown_label,
    say,
    version_of,
)
from modelport.serve.tfserving.reload import reload_config
from modelport.serve.tfserving.results import model_spec, result_message
from modelport.serve.tfserving.tensor_proto import entries, field

_PACKAGE: Final = "tensorflow.serving"
_PREDICTION: Final = f"/{_PACKAGE}.PredictionService/"
_MODEL: Final = f"/{_PACKAGE}.ModelService/"

#: By method: the message that it takes.
_REQUESTS: Final = {
    f"{_PREDICTION}Predict": "PredictRequest",
    f"{_PREDICTION}Classify": "ClassificationRequest",
    f"{_PREDICTION}Regress": "RegressionRequest",
    f"{_PREDICTION}MultiInference": "MultiInferenceRequest",
    f"{_PREDICTION}GetModelMetadata": "GetModelMetadataRequest",
    f"{_MODEL}GetModelStatus": "GetModelStatusRequest",
    f"{_MODEL}HandleReloadConfigRequest": "ReloadConfigRequest",
}

#: TF Serving has a code for this that no HTTP status means.
_PRECONDITION: Final = {"grpc-status": "FAILED_PRECONDITION"}

_STATES: Final = {"LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What an answer holds: tensors, or the results of one method or several.

    Parameters
    ----------
    methods : tuple of str
        Their names in a signature.
    single : bool
        One result by itself, not a list of them.
    """

    methods: tuple[str, ...]
    single: bool = True


class TensorFlowServingGrpc:
    """See the module."""

    name = "tfserving-grpc"
    carrier = "grpc"
    prefix = f"/{_PACKAGE}."

    def __init__(self) -> None:
        self._requests = {path: message(f"{_PACKAGE}.{name}") for path, name in _REQUESTS.items()}

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        answers: dict[str, Answer] = {
            f"{_PREDICTION}GetModelMetadata": _metadata,
            f"{_MODEL}GetModelStatus": _status,
            f"{_MODEL}HandleReloadConfigRequest": _reload,
        }
        return [
            Route(
                "POST",
                re.compile(re.escape(path)),
                path,
                answers.get(path),
                by_path=False,
                health=path.endswith("GetModelStatus"),
                control=path.endswith("HandleReloadConfigRequest"),
            )
            for path in _REQUESTS
        ]

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        try:
            parsed = request.message = self._requests[request.path].FromString(request.body)
        except DecodeError as error:
            raise InputError("the message cannot be read: it is damaged, or another") from error
        if request.path.endswith("HandleReloadConfigRequest"):
            return Place()
        if request.path.endswith("MultiInference"):
            return _place(_one_model(parsed.tasks))
        if not parsed.HasField("model_spec"):
            raise InputError("Missing ModelSpec")
        return _place(parsed.model_spec)

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        asked = request.message
        if request.path.endswith("/Predict"):
            try:
                check_signature_name(asked.model_spec.signature_name)
            except InputError as error:
                error.report = _PRECONDITION
                raise
            return _decode_predict(asked, model)
        if request.path.endswith("MultiInference"):
            wanted = _Wanted(_methods(asked.tasks), single=False)
        else:
            check_signature_name(asked.model_spec.signature_name)
            wanted = _Wanted((CLASSIFY if request.path.endswith("Classify") else REGRESS,))
        for method in wanted.methods:  # or the model cannot do that
            if method == CLASSIFY:
                class_results.class_outputs(model.signature)
            else:
                class_results.value_output(model.signature)
        examples = _examples(asked.input)
        return Call(examples_codec.to_tensors(examples, model.signature), context=wanted)

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        spec = model_spec(model)
        wanted: _Wanted | None = call.context
        if wanted is None:
            specs = model.signature.outputs_by_name
            tensors = (
                (name, tensor_proto.encode(outputs[name], specs[name].dtype))
                for name in call.outputs or outputs
            )
            return Response(200, entries(1, tensors) + field(2, spec), ())
        results = [result_message(method, outputs, model) for method in wanted.methods]
        if wanted.single:
            return Response(200, field(1, results[0]) + field(2, spec), ())
        parts = [
            field(1, field(1, spec) + field(2 if method == CLASSIFY else 3, result))
            for method, result in zip(wanted.methods, results, strict=True)
        ]
        return Response(200, b"".join(parts), ())

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        status = 400 if is_unknown_label(error) else status_of(error)
        headers = tuple(_PRECONDITION.items()) if error.report is _PRECONDITION else ()
        return Response(status, say(error, status=False).encode(), headers)

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        return Response(501, f"no such method: {request.path[:200]}".encode(), ())

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        return {}


def _place(spec: Any) -> Place:
    if not spec.name:
        raise InputError("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        return Place(spec.name, version_of(str(spec.version.value)))
    return Place(spec.name, label=spec.version_label if choice else None)


def _one_model(tasks: Any) -> Any:
    """The one model that all tasks name."""
    if not len(tasks):
        raise InputError("Inference request has no tasks")
    first = tasks[0].model_spec
    for task in tasks:
        spec = task.model_spec
        if spec.name != first.name or _place(spec) != _place(first):
            raise InputError("All ModelSpecs in a MultiInferenceRequest must access the same model")
    return first


def _methods(tasks: Any) -> tuple[str, ...]:
    """The methods of the tasks, whose signatures must be distinct."""
    methods = []
    for task in tasks:
        check_signature_name(task.model_spec.signature_name)
        if task.method_name not in (CLASSIFY, REGRESS):
            raise UnsupportedError(f"Unsupported signature method_name: {task.method_name[:80]}")
        methods.append(task.method_name)
    if len(methods) > 1:
        raise InputError(f"Duplicate evaluation of signature: {SIGNATURE_NAME}")
    return tuple(methods)


def _decode_predict(asked: Any, model: ModelIdentity) -> Call:
    specs = model.signature.inputs_by_name
    given = asked.inputs
    if given.keys() != specs.keys():
        extra = ", ".join(name for name in given if name not in specs)
        missing = ", ".join(name for name in specs if name not in given)
        raise InputError(
            f"input size does not match signature: {len(given)}!={len(specs)}. Sent extra: "
            f"{{{extra}}}. Missing but required: {{{missing}}}."
        )
    tensors = {name: tensor_proto.decode(given[name], spec) for name, spec in specs.items()}
    wanted = list(asked.output_filter)
    known = model.signature.outputs_by_name
    for position, name in enumerate(wanted):
        if name not in known:
            raise InputError(
                f"output tensor alias not found in signature: {name[:80]} Outputs expected to be "
                f"in the set {{{','.join(known)}}}."
            )
        if name in wanted[:position]:
            raise InputError(f"duplicate output tensor alias: {name}")
    return Call(tensors, wanted or None)


def _examples(given: Any) -> list[examples_codec.Example]:
    kind = given.WhichOneof("kind")
    if kind is None:
        raise InputError("Input is empty")
    if kind == "example_list":
        return examples_codec.read_proto(given.example_list.examples)
    both = given.example_list_with_context
    return examples_codec.read_proto(both.examples, both.context)


def _metadata(table: ModelTable, place: Place, request: Request) -> Response:
    wanted = list(request.message.metadata_field)
    if not wanted:
        raise InputError("GetModelMetadataRequest must specify at least one metadata_field")
    for name in wanted:
        if name != "signature_def":
            raise InputError(f"Metadata field {name[:80]} is not supported")
    identity, _ = table.get(place.model, place.version, place.label).ready()
    definitions = message(f"{_PACKAGE}.SignatureDefMap")()
    definition = definitions.signature_def[SIGNATURE_NAME]
    definition.method_name = PREDICT
    for side, specs in (
        (definition.inputs, identity.signature.inputs),
        (definition.outputs, identity.signature.outputs),
    ):
        for spec in specs:
            _describe(side[spec.name], spec)
    answer = message(f"{_PACKAGE}.GetModelMetadataResponse")()
    answer.model_spec.name = identity.name
    answer.model_spec.version.value = identity.version
    # By hand: `Pack` needs messages of protobuf's own pool.
    packed = answer.metadata["signature_def"]
    packed.type_url = f"type.googleapis.com/{_PACKAGE}.SignatureDefMap"
    packed.value = definitions.SerializeToString()
    return Response(200, answer.SerializeToString(), ())


def _describe(info: Any, spec: TensorSpec) -> None:
    info.name = spec.name
    info.dtype = tensor_proto.NUMBERS[spec.dtype]
    info.tensor_shape.SetInParent()
    for size in spec.shape:
        info.tensor_shape.dim.add(size=size if isinstance(size, int) else -1)


def _status(table: ModelTable, place: Place, request: Request) -> Response:
    try:
        models = asked_models(table, place)
    except NotFoundError as error:
        return Response(404, say(error, status=True).encode(), ())
    answer = message(f"{_PACKAGE}.GetModelStatusResponse")()
    for model in models:
        item = answer.model_version_status.add(
            version=model.spec.version, state=_STATES[model.state.value]
        )
        item.status.error_code = CODES[error_code(model)]
        item.status.error_message = model.error
    return Response(200, answer.SerializeToString(), ())


def _reload(table: ModelTable, place: Place, request: Request) -> Response:
    code, text = reload_config(table, request.message.config)
    answer = message(f"{_PACKAGE}.ReloadConfigResponse")()
    answer.status.error_code = code
    answer.status.error_message = text
    return Response(200, answer.SerializeToString(), ())
