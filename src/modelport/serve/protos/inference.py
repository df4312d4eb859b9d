"""Inference requests and answers of V2 over gRPC: raw and typed tensors.

Source: ``kserve/open-inference-protocol`` (``open_inference_grpc.proto``) and Triton's
``src/grpc/infer_handler.cc``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError, ModelportError, SignatureError
from modelport.core.tensors import STRING, Array, TensorSpec
from modelport.serve.base import Call, ModelIdentity
from modelport.serve.oip import codec as oip_codec
from modelport.serve.oip.classification import check_classes, class_count, classify
from modelport.serve.oip.codec import BFLOAT16, DATATYPES
from modelport.serve.oip.parameters import SHARED_MEMORY, check_parameters, no_shared_memory
from modelport.serve.protos import message

#: Datatype → the field of ``InferTensorContents`` that holds it; there is none for FP16 and BF16.
FIELDS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

#: Numbers and wire type of ``ModelInferResponse.raw_output_contents`` and ``.outputs``.
_RAW: Final = b"\x32"
_OUTPUT: Final = b"\x2a"


@dataclass(slots=True)  # not frozen: that would make it three times as slow to create
class Wanted:
    """How the client wants its answer.

    Parameters
    ----------
    id : str
        Comes back as it was.
    raw : bool
        Tensors as raw bytes, as they came.
    stream : bool
        It is one of many answers in a stream.
    classes : dict of str to int
        Outputs of which so many best classes are wanted instead.
    """

    id: str
    raw: bool
    stream: bool = False
    classes: dict[str, int] = field(default_factory=dict)


def parameters(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a map of ``InferParameter`` or ``ModelRepositoryParameter``.

    Raises
    ------
    InputError
        For a parameter without a value.
    """
    plain = {}
    for key in entries:
        choice = entries[key].WhichOneof("parameter_choice")
        if choice is None:
            raise InputError(f"parameter {key[:80]!r} has no value", where="parameters")
        plain[key] = getattr(entries[key], choice)
    return plain


def read(request: Any, model: ModelIdentity) -> Call:
    """Read a ``ModelInferRequest``.

    Raises
    ------
    InputError
        For contradictions; `SignatureError` where it does not fit the model.
    """
    if request.parameters:
        check_parameters(parameters(request.parameters))
    raw, inputs = request.raw_input_contents, request.inputs
    if raw and len(raw) != len(inputs):
        raise InputError(f"{len(inputs)} inputs are announced, and {len(raw)} raw contents given")
    specs = model.signature.inputs_by_name
    tensors: dict[str, Array] = {}
    try:
        for position, item in enumerate(inputs):
            name = item.name
            spec = specs.get(name)
            if spec is None:
                raise SignatureError(f"unknown input: {name}; the model takes: {', '.join(specs)}")
            if name in tensors:
                raise SignatureError(f"input {name} is given twice")
            if item.parameters and SHARED_MEMORY in item.parameters:
                raise no_shared_memory()
            tensors[name] = _read_input(item, spec, raw[position] if raw else None)
    except ModelportError as error:
        error.where = f"inputs[{len(tensors)}]"
        raise
    wanted = Wanted(request.id, bool(raw))
    return Call(tensors, _read_outputs(request, model, wanted), wanted)


def _read_input(item: Any, spec: TensorSpec, raw: bytes | None) -> Array:
    shape, count = tuple(item.shape), 1
    for size in shape:
        if size < 0:
            raise InputError(f"shape of input {spec.name} holds {size}; sizes are from 0")
        count *= size
    datatype = item.datatype
    if datatype != DATATYPES[spec.dtype] and (datatype != BFLOAT16 or spec.dtype != "float32"):
        raise SignatureError(
            f"input {spec.name} has datatype {datatype[:40]!r}, expected {DATATYPES[spec.dtype]}"
        )
    if raw is None:
        array = _read_typed(item, datatype, spec)
    elif item.HasField("contents"):
        raise InputError(
            "contents field must not be specified when using raw_input_contents "
            f"for input {spec.name}"
        )
    elif datatype == BFLOAT16:
        array = oip_codec.decode_bfloat16(memoryview(raw), spec, count)
    else:
        array = oip_codec.decode(memoryview(raw), spec, count)
    if array.size != count:
        raise SignatureError(
            f"input {spec.name} has {array.size} elements, its shape {list(shape)} needs {count}"
        )
    try:
        return array.reshape(shape)
    except ValueError as error:  # more dimensions than an array can have
        raise SignatureError(f"input {spec.name}: {error}") from error


def _read_typed(item: Any, datatype: str, spec: TensorSpec) -> Array:
    name = FIELDS.get(datatype)
    if name is None:
        raise InputError(f"{datatype} has no typed contents: send raw_input_contents")
    filled = [descriptor.name for descriptor, _ in item.contents.ListFields()]
    if not filled and 0 not in item.shape:
        raise InputError(f"unable to find data for input tensor {spec.name}")
    if filled and filled != [name]:
        raise InputError(
            f"contents of input {spec.name} are in {', '.join(filled)}; {datatype} needs {name}"
        )
    values = getattr(item.contents, name)
    if datatype == "BYTES":
        return _texts(values, spec)
    array = np.array(values, dtype=_WIDE.get(name, spec.numpy_dtype))
    narrow = array.astype(spec.numpy_dtype, copy=False)
    if name in _WIDE and not np.array_equal(array, narrow):
        raise SignatureError(f"input {spec.name} holds numbers that {datatype} does not")
    return narrow


#: Fields that hold narrower integers, too.
_WIDE: Final = {"int_contents": np.dtype(np.int32), "uint_contents": np.dtype(np.uint32)}


def _texts(values: Iterable[bytes], spec: TensorSpec) -> Array:
    items: list[Any] = list(values)
    if spec.dtype == STRING:
        try:
            items = [item.decode() for item in items]
        except UnicodeDecodeError as error:
            raise SignatureError(f"input {spec.name} holds a string that is not UTF-8") from error
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _read_outputs(request: Any, model: ModelIdentity, wanted: Wanted) -> list[str] | None:
    """Names asked for, in order; None: all. Classes asked for go to `wanted`."""
    names: list[str] = []
    specs = model.signature.outputs_by_name
    for position, item in enumerate(request.outputs):
        name = item.name
        if name not in specs or name in names:
            what = "given twice" if name in names else "unknown"
            raise SignatureError(
                f"output {name} is {what}; the model gives: {', '.join(specs)}",
                where=f"outputs[{position}]",
            )
        names.append(name)
        if item.parameters:
            asked = parameters(item.parameters)
            if SHARED_MEMORY in asked:
                raise no_shared_memory()
            if count := class_count(asked.get("classification", 0)):
                check_classes(specs[name])
                wanted.classes[name] = count
    return names or None


def write(call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> bytes:
    """Write a ``ModelInferResponse``: raw to a raw request, typed to a typed one.

    FP16 has no typed contents: with it all outputs are raw.
    """
    wanted: Wanted = call.context
    specs = model.signature.outputs_by_name
    chosen = []
    raw = wanted.raw
    for name in call.outputs or outputs:
        array, spec = outputs[name], specs[name]
        datatype = DATATYPES[spec.dtype]
        if name in wanted.classes:
            batched = model.signature.batch_symbol is not None
            array = classify(array, spec, wanted.classes[name], batched=batched)
            datatype = "BYTES"
        raw = raw or datatype not in FIELDS
        chosen.append((name, datatype, array))
    head = _head(model.name, model.version)
    if wanted.id:
        head += message("inference.ModelInferResponse")(id=wanted.id).SerializeToString()
    if not raw:
        return head + _typed(chosen)
    # A serialized message is its fields one after the other: most of them are known already.
    parts = [head]
    buffers: list[bytes] = []
    for name, datatype, array in chosen:
        parts.append(_described(name, datatype, array.shape))
        buffer = oip_codec.encode(array)
        buffers += (_RAW, varint(len(buffer)), buffer)
    return b"".join((*parts, *buffers))


def _typed(chosen: list[tuple[str, str, Array]]) -> bytes:
    answer = message("inference.ModelInferResponse")()
    for name, datatype, array in chosen:
        output = answer.outputs.add(name=name, datatype=datatype, shape=array.shape)
        values: list[Any] = array.reshape(-1).tolist()
        if datatype == "BYTES":
            values = [item if isinstance(item, bytes) else str(item).encode() for item in values]
        getattr(output.contents, FIELDS[datatype]).extend(values)
    serialized: bytes = answer.SerializeToString()
    return serialized


@lru_cache(maxsize=1024)
def _head(name: str, version: int) -> bytes:
    answer = message("inference.ModelInferResponse")(model_name=name, model_version=str(version))
    serialized: bytes = answer.SerializeToString()
    return serialized


@lru_cache(maxsize=1024)
def _described(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    output = message("inference.ModelInferResponse.InferOutputTensor")(
        name=name, datatype=datatype, shape=shape
    ).SerializeToString()
    return b"".join((_OUTPUT, varint(len(output)), output))


@lru_cache(maxsize=1024)
def varint(number: int) -> bytes:
    """A number from 0 as protobuf writes it: seven bits a byte, the lowest first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
