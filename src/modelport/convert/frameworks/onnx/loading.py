"""Reading an ONNX file: decoded, and made whole where its weights lie in other files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

import onnx
from google.protobuf.message import DecodeError

from modelport.core.errors import InputError, LimitError, NotFoundError, UnsupportedError
from modelport.core.source import Source

#: A protocol buffer cannot be larger.
MOST_BYTES: Final = (1 << 31) - 1

_EXTERNAL: Final = onnx.TensorProto.EXTERNAL


def read_model(source: Source) -> onnx.ModelProto:
    """Decode a file, with all its weights inside.

    Raises
    ------
    InputError
        When it is not ONNX, or refers to bytes that its other files do not have.
    NotFoundError
        When another file that it refers to is not there.
    LimitError
        When it is too large for one file.
    UnsupportedError
        When it is newer than the installed onnx.
    """
    name = source.name
    try:
        proto = onnx.load_model_from_string(source.content)
    except DecodeError as error:
        raise InputError(f"the file is not ONNX: {error}", where=name) from error
    if not proto.graph.output:
        raise InputError("the file is not ONNX: it has no outputs", where=name)
    newest = onnx.defs.onnx_opset_version()
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version > newest:
        raise UnsupportedError(
            f"the model needs ONNX opset {version}; the installed onnx knows up to {newest}",
            where=name,
            hint="upgrade onnx and onnxruntime, or export the model with an older opset",
        )
    external = [t for t in tensors_of(proto) if t.data_location == _EXTERNAL]
    if external:
        _check_size(external, len(source.content), name)
        for tensor in external:
            _take_in(tensor, source.files, name)
    return proto


def tensors_of(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers and constants, in subgraphs and functions too."""
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        yield from _of_nodes(function.node)
        yield from _of_attributes(function.attribute_proto)
    for training in proto.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        yield from _of_attributes(node.attribute)


def _of_attributes(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for both in chain(sparse, attribute.sparse_tensors):
            yield from (both.values, both.indices)
        for graph in chain([attribute.g] if attribute.HasField("g") else [], attribute.graphs):
            yield from _of_graph(graph)


def _check_size(external: Iterable[onnx.TensorProto], size: int, name: str) -> None:
    size += sum(_bytes_of(tensor) for tensor in external)
    if size > MOST_BYTES:
        raise LimitError(
            f"the model and its weights are {size / 2**30:.1f} GiB; one ONNX file holds at most 2",
            where=name,
            hint="store the weights as float16, or quantize them, before packing",
        )


def _bytes_of(tensor: onnx.TensorProto) -> int:
    """How many bytes the elements of a tensor take: two of four bits share one."""
    count = 1
    for size in tensor.dims:
        count *= size
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        raise InputError(f"tensor {tensor.name} has element type {tensor.data_type}") from None
    bits = _FEW_BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type), 8 * dtype.itemsize)
    return int((count * bits + 7) // 8)


_FEW_BITS: Final = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def _take_in(tensor: onnx.TensorProto, files: Mapping[str, bytes], name: str) -> None:
    """Put the bytes of another file into the tensor."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    location = where.get("location", "")
    if location not in files:
        raise NotFoundError(
            "file with the model's weights", location, sorted(files), where=name,
            hint="keep the files of the model together, or save it as one: "
            "onnx.save(onnx.load(path), path, save_as_external_data=False)",
        )  # fmt: skip
    content = files[location]
    start = int(where.get("offset") or 0)
    needed = _bytes_of(tensor)
    length = int(where.get("length") or needed)
    if length != needed or start + length > len(content):
        raise InputError(
            f"tensor {tensor.name} is {needed} bytes, and the model says that they are "
            f"{length} bytes from byte {start} of {location}, which has {len(content)}",
            where=name,
            hint="the weights are of another model, or truncated: copy both files again",
        )
    tensor.raw_data = content[start : start + length]
    del tensor.external_data[:]
    tensor.ClearField("data_location")
