"""From a TensorFlow function to an ONNX file: what Keras, SavedModel and TFLite share.

tf2onnx does the work. What it leaves to do is here: constants that a function captures become
constants of the graph, inputs and outputs get the signature's names and shapes in its order, an
operator without a counterpart is named, and the same function always gives the same bytes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper

from modelport.convert.base import Export
from modelport.convert.graphs.canonical import canonicalise
from modelport.convert.graphs.edits import ELEMENT_TYPES, opset_of, serialise
from modelport.core.errors import UnsupportedError
from modelport.core.quiet import quiet_stderr
from modelport.core.signature import Signature
from modelport.core.tensors import NUMPY_DTYPES, STRING, TensorSpec

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
#: What the user wants Keras to run on; TensorFlow imports Keras, so it is decided here.
REQUESTED_BACKEND: Final = os.environ.get("KERAS_BACKEND", "")
if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"
with quiet_stderr():
    import tensorflow as tf
    import tf2onnx.convert
    from tf2onnx import tf_loader

    from modelport.convert.graphs.tensorflow_operators import operators

#: Newest first; tf2onnx writes other operators for an older one.
OPSETS: Final = (18, 15)
#: Of equal nodes tf2onnx keeps one or another, from run to run; ONNX Runtime merges them, too.
_OPTIMIZERS: Final = {
    name: optimizer
    for name, optimizer in tf2onnx.optimizer._get_optimizers().items()
    if name != "merge_duplication"
}
_RUNNABLE_DOMAINS: Final = ("", "ai.onnx.ml", "com.microsoft")
_MOST_NAMED: Final = 8

#: TensorFlow tensors in, TensorFlow tensors out; both in the signature's order.
Call = Callable[[list[Any]], list[Any]]


def dtype_of(dtype: Any, name: str) -> str:
    """Modelport's name of a TensorFlow element type.

    Raises
    ------
    UnsupportedError
        For element types that NumPy does not have (bfloat16), and quantized ones.
    """
    given = tf.as_dtype(dtype).name
    if given not in NUMPY_DTYPES:
        raise UnsupportedError(f"{name} has element type {given}, which cannot be served")
    return str(given)


def tensor_specs(specs: Sequence[TensorSpec]) -> list[Any]:
    """The same for TensorFlow; names are numbered, since not every name is allowed there."""
    return [
        tf.TensorSpec(
            [d if isinstance(d, int) else None for d in spec.shape],
            tf.string if spec.dtype == STRING else spec.dtype,
            name=f"input_{position}",
        )
        for position, spec in enumerate(specs)
    ]


def export_function(call: Call, owner: Any, signature: Signature, opset: int) -> Export:
    """Trace a function and convert the trace.

    Parameters
    ----------
    call : callable
    owner : trackable
        Owns the function's variables and tables.
    signature : Signature
    opset : int

    Raises
    ------
    UnsupportedError
        Naming the operators that have no counterpart in ONNX.
    """

    def flat(*tensors: Any) -> list[Any]:
        outputs = call(list(tensors))
        # An output may be an input, or the same tensor as another one.
        return [tf.identity(tensor, name=f"output_{i}") for i, tensor in enumerate(outputs)]

    with calm() as errors:
        traced = tf.function(
            flat, input_signature=tensor_specs(signature.inputs), autograph=False
        ).get_concrete_function()
        placeholders = [tensor.name for tensor in traced.inputs[: len(signature.inputs)]]
        results = [tensor.name for tensor in traced.outputs]
        frozen, tables = _freeze(traced, owner, placeholders, results)
        names = dict(zip(placeholders, (s.name for s in signature.inputs), strict=True))
        names |= dict(zip(results, (s.name for s in signature.outputs), strict=True))
        model = _run_tf2onnx(
            frozen,
            errors,
            opset=opset,
            input_names=placeholders,
            output_names=results,
            tensors_to_rename=names,
            handlers=operators(tables),
            initialized_tables=tables,
        )
    return finish(model, signature)


def convert_tflite(path: str, handlers: Mapping[str, Any], opset: int) -> onnx.ModelProto:
    """Convert a TFLite file; inputs and outputs keep their names."""
    with calm() as errors:
        return _run_tf2onnx(
            None,
            errors,
            opset=opset,
            handlers={**operators({}), **handlers},
            input_names=None,
            output_names=None,
            tensors_to_rename={},
            tflite_path=path,
        )


def finish(model: onnx.ModelProto, signature: Signature, exporter: str = "") -> Export:
    """Check the operators, declare the signature, and write the file.

    Parameters
    ----------
    model : ModelProto
        Its inputs and outputs have the signature's names.
    """
    _refuse_unknown_operators(model)
    graph = model.graph
    for side, specs in ((graph.input, signature.inputs), (graph.output, signature.outputs)):
        del side[:]
        side.extend(
            helper.make_tensor_value_info(s.name, ELEMENT_TYPES[s.dtype], list(s.shape))
            for s in specs
        )
    canonicalise(graph)
    return Export(
        model=serialise(model, {"": opset_of(model)[""]}),
        signature=signature,
        exporter=exporter or f"tf2onnx {tf2onnx.__version__}",
        opset=opset_of(model),
    )


def _freeze(
    traced: Any, owner: Any, placeholders: list[str], results: list[str]
) -> tuple[Any, dict[Any, Any]]:
    """The graph with variables and captured tensors as constants."""
    captures = traced.graph.function_captures
    captured = {
        captures.by_val_internal[key].name.partition(":")[0]: tensor
        for key, tensor in captures.by_val_external.items()
        if tensor.dtype not in (tf.resource, tf.variant)
    }
    graph, tables = tf_loader.from_trackable(owner, traced, placeholders, results, False)
    constants = False
    for node in graph.node:
        # tf2onnx would make them inputs.
        if node.op == "Placeholder" and node.name in captured:
            value = captured[node.name].numpy()
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = tf.as_dtype(captured[node.name].dtype).as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
            constants = True
    if constants:
        graph = tf_loader.tf_optimize(placeholders, results, graph)
    return graph, tables


def _run_tf2onnx(
    graph: Any, errors: _Errors, handlers: Mapping[str, Any], **arguments: Any
) -> onnx.ModelProto:
    tf2onnx.utils.INTERNAL_NAME = 1  # it orders some nodes by names with numbers that count on
    try:
        with tf.device("/cpu:0"):
            model, _ = tf2onnx.convert._convert_common(
                graph,
                name="model",
                continue_on_error=False,
                custom_op_handlers=dict(handlers),
                optimizers=_OPTIMIZERS,
                **arguments,
            )
    except Exception as error:  # tf2onnx raises whatever its handlers stumble over
        if not errors.nodes:
            raise
        raise UnsupportedError(
            f"tf2onnx cannot convert {', '.join(errors.nodes[:_MOST_NAMED])}: {error}"
        ) from error
    converted: onnx.ModelProto = model
    return converted


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors that nodes make or take other names."""
    for node in graph.node:
        for side in (node.input, node.output):
            for position, tensor in enumerate(side):
                side[position] = names.get(tensor, tensor)


def _refuse_unknown_operators(model: onnx.ModelProto) -> None:
    opset = opset_of(model)[""]
    unknown: dict[str, str] = {}
    for node in _all_nodes(model.graph):
        known = node.domain in _RUNNABLE_DOMAINS and (
            node.domain or onnx.defs.has(node.op_type, max_inclusive_version=opset)
        )
        if not known:
            unknown.setdefault(node.op_type, node.name)
    if unknown:
        shown = [f"{kind} (at {name})" for kind, name in list(unknown.items())[:_MOST_NAMED]]
        raise UnsupportedError(f"operators without a counterpart in ONNX: {', '.join(shown)}")


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)


class _Errors(logging.Handler):
    """Collects the nodes that tf2onnx fails on, which its exceptions do not name."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.nodes: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        if str(record.msg).startswith("Failed to convert node") and isinstance(record.args, tuple):
            self.nodes.append(str(record.args[0]))


@contextlib.contextmanager
def calm() -> Iterator[_Errors]:
    """Keep the warnings and log lines of an export from people."""
    errors = _Errors()
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow", "absl")]
    before = [(logger, logger.propagate, logger.handlers[:], logger.level) for logger in loggers]
    for logger in loggers:
        logger.propagate = False
        logger.handlers = [errors]
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield errors
    finally:
        for logger, propagate, handlers, level in before:
            logger.propagate, logger.handlers = propagate, handlers
            logger.setLevel(level)
