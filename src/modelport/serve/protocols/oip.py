"""Open Inference Protocol V2 over REST, with the binary tensor data extension.

Source: ``kserve/open-inference-protocol`` and Triton's ``docs/protocol``; where the two
differ, Triton's behaviour is followed, since its clients are the ones in use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from modelport import __version__
from modelport.core.errors import InputError, ModelportError, SignatureError
from modelport.core.options import ServeOptions
from modelport.core.tensors import BYTES, Array, TensorSpec
from modelport.serve import oip_codec
from modelport.serve.base import (
    JSON_HEADERS,
    Call,
    ModelIdentity,
    Place,
    Request,
    Response,
    Route,
)
from modelport.serve.json_codec import (
    Reader,
    dumps,
    dumps_array,
    fields,
    is_list,
    is_object,
    parse_object,
    plain,
)
from modelport.serve.models import ServedModel, State
from modelport.serve.oip_codec import CONTENT, DATATYPES, HEADER_LENGTH
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable

_MODEL: Final = r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?"


#: By rank, how a shape is written.
_SIZES: Final = tuple(b",".join([b"%d"] * rank) for rank in range(65))


@dataclass(slots=True)
class _Wanted:
    """How the client wants its answer."""

    id: str = ""
    #: Outputs to be sent as raw bytes; None: all, as the request-wide flag asks.
    binary: frozenset[str] | None = frozenset()


class OpenInference:
    """See the module."""

    name = "oip"
    carrier = "http"
    prefix = "/v2"

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        return (
            Route("POST", re.compile(f"{_MODEL}/infer"), "/v2/models/{model}/infer"),
            Route("GET", re.compile("/v2/health/live"), "/v2/health/live", _live),
            Route("GET", re.compile("/v2/health/ready"), "/v2/health/ready", _ready),
            Route("GET", re.compile(f"{_MODEL}/ready"), "/v2/models/{model}/ready", _model_ready),
            Route("GET", re.compile("/v2/?"), "/v2", _server_metadata),
            Route("GET", re.compile("/v2/models"), "/v2/models", _list),
            Route("GET", re.compile(_MODEL), "/v2/models/{model}", _model_metadata),
        )

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        return Place(groups.get("model") or "", groups.get("version"))

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        body, raw = oip_codec.split(request.body, request.headers.get(HEADER_LENGTH))
        if not body:
            return self._decode_raw(raw, model)
        document = parse_object(body)
        inputs = document.get("inputs")
        if inputs is None or not is_list(inputs):
            raise InputError("key 'inputs' is missing or not an array")
        reader, buffers = Reader(body), oip_codec.Buffers(raw)
        reader.count_lists(1)
        tensors: dict[str, Array] = {}
        try:
            for item in inputs:
                name, array = _read_input(item, model, reader, buffers)
                if name in tensors:
                    raise SignatureError(f"input {name} is given twice")
                tensors[name] = array
        except ModelportError as error:
            error.where = f"inputs[{len(tensors)}]{error.where}"
            raise
        buffers.finish()
        outputs, wanted = _read_wanted(document, model, reader)
        reader.finish()
        return Call(tensors, outputs, wanted)

    def _decode_raw(self, raw: memoryview, model: ModelIdentity) -> Call:
        """Header length 0: the whole body is the one input, and all answers are binary."""
        specs = model.signature.inputs
        if len(specs) != 1:
            raise InputError(f"a raw request needs a model with one input, not {len(specs)}")
        tensors = {specs[0].name: oip_codec.decode_whole(raw, specs[0])}
        return Call(tensors, None, _Wanted(binary=None))

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        wanted: _Wanted = call.context
        parts: list[bytes] = []
        buffers: list[bytes] = []
        specs = model.signature.outputs_by_name
        for name in call.outputs or outputs:
            array = outputs[name]
            shape = _SIZES[array.ndim] % array.shape
            head = _output_head(name, specs[name].dtype)
            if wanted.binary is None or name in wanted.binary:
                buffer = oip_codec.encode(array)
                buffers.append(buffer)
                size = len(buffer)
                parts.append(b'%b%b],"parameters":{"binary_data_size":%d}}' % (head, shape, size))
            else:
                data = dumps_array(array.reshape(-1))
                parts.append(b'%b%b],"data":%b}' % (head, shape, data))
        head = _answer_head(model.name, model.version)
        if wanted.id:
            head += b'"id":%b,' % dumps(wanted.id)
        body = b'%b"outputs":[%b]}' % (head, b",".join(parts))
        if not buffers:
            return Response(200, body)
        headers = (("content-type", "application/octet-stream"), (HEADER_LENGTH, str(len(body))))
        return Response(200, b"".join((body, *buffers)), headers)

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
        return {}


@lru_cache(maxsize=1024)
def _output_head(name: str, dtype: str) -> bytes:
    return b'{"name":%b,"datatype":%b,"shape":[' % (dumps(name), dumps(DATATYPES[dtype]))


@lru_cache(maxsize=1024)
def _answer_head(name: str, version: int) -> bytes:
    return b'{"model_name":%b,"model_version":"%d",' % (dumps(name), version)


def _read_input(
    item: Any, model: ModelIdentity, reader: Reader, buffers: oip_codec.Buffers
) -> tuple[str, Array]:
    if not is_object(item):
        raise InputError("not an object")
    item = fields(item)
    name = item.get("name")
    if not isinstance(name, str):
        raise InputError("key 'name' is missing or not a string")
    spec = model.signature.inputs_by_name.get(name)
    if spec is None:
        known = ", ".join(model.signature.inputs_by_name)
        raise SignatureError(f"unknown input: {name}; the model takes: {known}")
    if item.get("datatype") != DATATYPES[spec.dtype]:
        raise SignatureError(
            f"input {name} has datatype {plain(item.get('datatype'))}, "
            f"expected {DATATYPES[spec.dtype]}"
        )
    shape, count = _read_shape(item.get("shape"))
    reader.count_lists(1)
    size = _parameters(item).get("binary_data_size")
    data = item.get("data")
    if size is None:
        if data is None:
            raise InputError("neither 'data' nor 'binary_data_size' is given")
        array = reader.tensor(data, spec)
    elif data is None:
        array = oip_codec.decode(buffers.take(plain(size), name), spec, count)
    else:
        raise InputError("both 'data' and 'binary_data_size' are given")
    return name, _shaped(array, shape, count, spec)


def _read_shape(node: Any) -> tuple[list[int], int]:
    shape = plain(node)
    if not isinstance(shape, list):
        raise InputError("shape is missing or not an array", where=".shape")
    count = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise InputError(f"shape holds {size!r}; sizes are integers from 0", where=".shape")
        count *= size
    return shape, count


def _shaped(array: Array, shape: list[int], count: int, spec: TensorSpec) -> Array:
    """Give `array` the shape it was announced with; it may come flat or nested."""
    if array.size != count:
        raise SignatureError(
            f"input {spec.name} has {array.size} elements, its shape {shape} needs {count}"
        )
    if array.ndim > 1 and list(array.shape) != shape:
        raise SignatureError(
            f"input {spec.name} is nested as {list(array.shape)}, its shape says {shape}"
        )
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise SignatureError(f"input {spec.name}: {error}") from error


def _read_wanted(
    document: Any, model: ModelIdentity, reader: Reader
) -> tuple[list[str] | None, _Wanted]:
    if len(document) == 1:  # 'inputs' alone: everything, as JSON
        return None, _Wanted()
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InputError("key 'id' is not a string")
    wanted = _Wanted(id=request_id or "")
    everything = _parameters(document).get("binary_data_output") is True
    outputs = document.get("outputs")
    if outputs is None:
        wanted.binary = None if everything else wanted.binary
        return None, wanted
    if not is_list(outputs):
        raise InputError("key 'outputs' is not an array")
    reader.count_lists(1)
    specs = model.signature.outputs_by_name
    names: list[str] = []
    binary = set()
    for position, item in enumerate(outputs):
        item = fields(item) if is_object(item) else {}
        name = item.get("name")
        if not isinstance(name, str) or name not in specs or name in names:
            known = ", ".join(specs)
            what = "given twice" if name in names else "unknown"
            raise SignatureError(
                f"output {plain(name)} is {what}; the model gives: {known}",
                where=f"outputs[{position}]",
            )
        names.append(name)
        # The protocol's text lets the request-wide flag stand where an output has none.
        if _parameters(item).get("binary_data", everything) is True:
            binary.add(name)
    wanted.binary = frozenset(binary) if names else (None if everything else wanted.binary)
    return names or None, wanted


def _parameters(item: Mapping[str, Any]) -> dict[str, Any]:
    node = item.get("parameters")
    return fields(node) if is_object(node) else {}


def _live(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(200, b'{"live":true}')


def _ready(table: ModelTable, place: Place, request: Request) -> Response:
    ready = table.ready()
    return Response(200 if ready else 503, b'{"ready":true}' if ready else b'{"ready":false}')


def _model_ready(table: ModelTable, place: Place, request: Request) -> Response:
    model = table.get(place.model, place.version)
    ready = table.model_ready(model)
    return Response(200 if ready else 503, dumps({"name": model.spec.name, "ready": ready}))


def _server_metadata(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(
        200,
        dumps({"name": "modelport", "version": __version__, "extensions": ["binary_tensor_data"]}),
    )


def _list(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(200, dumps({"models": table.names}))


def _model_metadata(table: ModelTable, place: Place, request: Request) -> Response:
    model = table.get(place.model, place.version)
    identity, _ = model.ready()
    signature = identity.signature
    return Response(
        200,
        dumps(
            {
                "name": identity.name,
                "versions": _available(table, identity.name),
                "platform": identity.platform,
                "inputs": [_tensor_metadata(spec) for spec in signature.inputs],
                "outputs": [_tensor_metadata(spec) for spec in signature.outputs],
                "properties": {"digest": model.spec.digest} if model.spec.digest else {},
            }
        ),
    )


def _available(table: ModelTable, name: str) -> list[str]:
    versions: list[ServedModel] = table.versions(name)
    return [str(model.spec.version) for model in versions if model.state is State.AVAILABLE]


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else -1 for size in spec.shape]
    metadata: dict[str, Any] = {
        "name": spec.name,
        "datatype": DATATYPES[spec.dtype],
        "shape": shape,
    }
    if spec.columns:
        metadata["parameters"] = {"columns": ",".join(spec.columns)}
    if spec.dtype == BYTES:
        metadata["parameters"] = {CONTENT: BYTES}
    return metadata
