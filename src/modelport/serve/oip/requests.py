"""Inference requests of V2 over REST: JSON, and raw tensors behind it.

Source: ``kserve/open-inference-protocol`` and Triton's ``docs/protocol`` and
``src/http_server.cc``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from modelport.core.errors import InputError, ModelportError, SignatureError
from modelport.core.tensors import Array, TensorSpec
from modelport.serve.base import Call, ModelIdentity
from modelport.serve.json_codec import (
    Reader,
    fields,
    is_list,
    is_object,
    parse_object,
    plain,
)
from modelport.serve.oip import codec as oip_codec
from modelport.serve.oip.answers import HALF, Wanted
from modelport.serve.oip.classification import check_classes, class_count
from modelport.serve.oip.codec import BFLOAT16, DATATYPES, shown
from modelport.serve.oip.parameters import (
    SHARED_MEMORY,
    check_parameters,
    flag,
    no_shared_memory,
)

_Decode = Callable[[memoryview, TensorSpec, int], Array]

#: NumPy has no tensors of a higher rank, and no sizes from here on.
_MOST_DIMENSIONS: Final = 64
_TOO_LARGE: Final = 2**63

_ALL_AS_JSON: Final = Wanted()
_ALL_AS_BINARY: Final = Wanted(binary=None)


def read(body: bytes, raw: memoryview, model: ModelIdentity) -> Call:
    """Read a request.

    Parameters
    ----------
    body : bytes
        Its JSON part.
    raw : memoryview
        The raw tensors behind it.
    model : ModelIdentity

    Raises
    ------
    InputError
        For every kind of malformed body; `SignatureError` where it does not fit the model.
    """
    document = parse_object(body)
    inputs = document.get("inputs")
    if inputs is None or not is_list(inputs):
        raise InputError("key 'inputs' is missing or not an array")
    reader, buffers = Reader(body), oip_codec.Buffers(raw)
    reader.count_lists(1 + len(inputs))  # with every input's shape
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
    # 'inputs' alone: everything, as JSON.
    outputs, wanted = (
        (None, _ALL_AS_JSON) if len(document) == 1 else _read_wanted(document, model, reader)
    )
    reader.finish()
    return Call(tensors, outputs, wanted)


def read_raw(raw: memoryview, model: ModelIdentity) -> Call:
    """Read a body that is the model's one input and nothing else; all answers are binary.

    Raises
    ------
    InputError
        When the model has several inputs, or the bytes do not fit.
    """
    specs = model.signature.inputs
    if len(specs) != 1:
        raise InputError(f"a raw request needs a model with one input, not {len(specs)}")
    tensors = {specs[0].name: oip_codec.decode_whole(raw, specs[0])}
    return Call(tensors, None, _ALL_AS_BINARY)


def _read_input(
    item: Any, model: ModelIdentity, reader: Reader, buffers: oip_codec.Buffers
) -> tuple[str, Array]:
    if type(item) is not dict:
        if not is_object(item):
            raise InputError("not an object")
        item = fields(item)
    name = item.get("name")
    if not isinstance(name, str):
        raise InputError("key 'name' is missing or not a string")
    spec = model.signature.inputs_by_name.get(name)
    if spec is None:
        known = ", ".join(model.signature.inputs_by_name)
        raise SignatureError(f"unknown input: {shown(name, bare=True)}; the model takes: {known}")
    datatype = item.get("datatype")
    decode: _Decode = oip_codec.decode
    if datatype != DATATYPES[spec.dtype]:
        decode = _decode_widened(datatype, spec)
    shape, count = _read_shape(item.get("shape"), name)
    size = None
    if "parameters" in item:
        size = _buffer_size(_parameters(item))
    data = item.get("data")
    if size is not None:
        if data is not None:
            raise InputError("both 'data' and 'binary_data_size' are given")
        array = decode(buffers.take(size, name), spec, count)
    elif data is None:
        raise InputError("neither 'data' nor 'binary_data_size' is given")
    elif spec.dtype == HALF or decode is not oip_codec.decode:
        raise InputError(
            f"input {name} has datatype {datatype}, which JSON cannot hold: send it as binary data"
        )
    else:
        array = reader.tensor(data, spec)
    return name, _shaped(array, shape, count, spec)


def _buffer_size(parameters: Mapping[str, Any]) -> Any:
    """How many raw bytes belong to an input; None: it is written as JSON."""
    if SHARED_MEMORY in parameters:
        raise no_shared_memory()
    size = parameters.get("binary_data_size")
    return size if type(size) is int else plain(size)


def _decode_widened(datatype: Any, spec: TensorSpec) -> _Decode:
    """How an input is decoded that comes in another datatype than the model takes.

    Every BF16 is an FP32, exactly; no signature here has BF16, and nothing else is converted.

    Raises
    ------
    SignatureError
    """
    if datatype == BFLOAT16 and spec.dtype == "float32":
        return oip_codec.decode_bfloat16
    raise SignatureError(
        f"input {spec.name} has datatype {shown(datatype, bare=True)}, "
        f"expected {DATATYPES[spec.dtype]}"
    )


def _read_shape(node: Any, name: str) -> tuple[list[int], int]:
    shape = node if type(node) is list else plain(node)
    if not isinstance(shape, list):
        raise InputError(f"input {name}: shape is missing or not an array", where=".shape")
    if len(shape) > _MOST_DIMENSIONS:
        raise InputError(
            f"input {name}: shape has {len(shape)} dimensions; at most {_MOST_DIMENSIONS} "
            "are possible",
            where=".shape",
        )
    count = 1
    for size in shape:
        if type(size) is not int or not 0 <= size < _TOO_LARGE:
            raise InputError(
                f"input {name}: shape holds {shown(size)}; sizes are integers from 0",
                where=".shape",
            )
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
    document: Mapping[str, Any], model: ModelIdentity, reader: Reader
) -> tuple[list[str] | None, Wanted]:
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InputError("key 'id' is not a string")
    parameters = _parameters(document)
    if parameters:
        check_parameters(parameters)
    everything = parameters.get("binary_data_output", False)
    outputs = document.get("outputs")
    if outputs is not None and not is_list(outputs):
        raise InputError("key 'outputs' is not an array")
    if outputs is not None:
        reader.count_lists(1)
    if outputs is None or not len(outputs):
        if not request_id:
            return None, _ALL_AS_BINARY if everything else _ALL_AS_JSON
        return None, Wanted(request_id, None if everything else frozenset())
    binary: set[str] = set()
    classes: dict[str, int] = {}
    names: list[str] = []
    for position, item in enumerate(outputs):
        try:
            name, flags = _read_output(item, model, names)
            # The protocol's text lets the request-wide flag stand where an output has none.
            if flag(flags, "binary_data", everything):
                binary.add(name)
            if count := class_count(flags.get("classification", 0)):
                check_classes(model.signature.outputs_by_name[name])
                classes[name] = count
        except InputError as error:
            error.where = f"outputs[{position}]"
            raise
        names.append(name)
    return names, Wanted(request_id or "", frozenset(binary), classes)


def _read_output(
    item: Any, model: ModelIdentity, taken: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """The name and the parameters of an output that is asked for."""
    item = fields(item) if is_object(item) else {}
    name = item.get("name")
    specs = model.signature.outputs_by_name
    if not isinstance(name, str) or name not in specs or name in taken:
        what = "given twice" if name in taken else "unknown"
        raise SignatureError(
            f"output {shown(name, bare=True)} is {what}; the model gives: {', '.join(specs)}"
        )
    parameters = _parameters(item)
    if SHARED_MEMORY in parameters:
        raise no_shared_memory()
    return name, parameters


def _parameters(item: Mapping[str, Any]) -> dict[str, Any]:
    node = item.get("parameters")
    if node is None:
        return {}
    if not is_object(node):
        raise InputError("key 'parameters' is not an object")
    return fields(node)
