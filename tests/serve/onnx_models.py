"""Real ONNX models, small and each with one trait that a server must get right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelport.core.tensors import Array

Shape = Sequence[int | str]

ONNX_TYPES = {
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
}

NUMERIC_TYPES = tuple(name for name in ONNX_TYPES if name != "string")


def tensor(name: str, dtype: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPES[dtype], list(shape))


def constant(name: str, value: Array) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
) -> bytes:
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(constants))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def dense(seed: int = 0) -> bytes:
    """``x`` float32 [N, 8] → 10 hidden units → ``y`` float32 [N, 1]."""
    random = np.random.default_rng(seed)
    return model(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h1"]),
            helper.make_node("Add", ["h1", "b1"], ["h2"]),
            helper.make_node("Relu", ["h2"], ["h3"]),
            helper.make_node("MatMul", ["h3", "w2"], ["y"]),
        ],
        [tensor("x", "float32", ["N", 8])],
        [tensor("y", "float32", ["N", 1])],
        [
            constant("w1", random.normal(size=(8, 10)).astype(np.float32)),
            constant("b1", random.normal(size=10).astype(np.float32)),
            constant("w2", random.normal(size=(10, 1)).astype(np.float32)),
        ],
    )


def sum_of_two() -> bytes:
    """``a`` float32 [N, 3] and ``b`` int64 [N, 2] → ``total`` float32 [N]."""
    return model(
        [
            helper.make_node("Cast", ["b"], ["b_float"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["a", "b_float"], ["all"], axis=1),
            helper.make_node("ReduceSum", ["all", "axis"], ["total"], keepdims=0),
        ],
        [tensor("a", "float32", ["N", 3]), tensor("b", "int64", ["N", 2])],
        [tensor("total", "float32", ["N"])],
        [constant("axis", np.array([1], np.int64))],
    )


def identity(dtype: str, shape: Shape = ("N", 2), output: str = "y") -> bytes:
    """``x`` → the same as ``y``."""
    return model(
        [helper.make_node("Identity", ["x"], [output])],
        [tensor("x", dtype, shape)],
        [tensor(output, dtype, shape)],
    )


def identities(dtypes: Sequence[str], shape: Shape = ("N", 2)) -> bytes:
    """One input ``in_DTYPE`` and one output ``out_DTYPE`` for every element type."""
    return model(
        [helper.make_node("Identity", [f"in_{d}"], [f"out_{d}"]) for d in dtypes],
        [tensor(f"in_{d}", d, shape) for d in dtypes],
        [tensor(f"out_{d}", d, shape) for d in dtypes],
    )


def classifier() -> bytes:
    """``x`` float32 [N, 3] → ``label`` int64 [N] (the largest) and ``scores`` [N, 3]."""
    return model(
        [
            helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
            helper.make_node("Softmax", ["x"], ["scores"], axis=1),
        ],
        [tensor("x", "float32", ["N", 3])],
        [tensor("label", "int64", ["N"]), tensor("scores", "float32", ["N", 3])],
    )


def summary() -> bytes:
    """``x`` float32 [N, 2] → ``rows`` [N, 2] and ``mean`` (a scalar): no common batch."""
    return model(
        [
            helper.make_node("Identity", ["x"], ["rows"]),
            helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        ],
        [tensor("x", "float32", ["N", 2])],
        [tensor("rows", "float32", ["N", 2]), tensor("mean", "float32", [])],
    )


def centred() -> bytes:
    """``x`` float32 [N, 2] minus the mean over the batch: a row depends on its neighbours."""
    return model(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        [tensor("x", "float32", ["N", 2])],
        [tensor("y", "float32", ["N", 2])],
    )


def lookup(size: int = 10) -> bytes:
    """``i`` int64 [N] → ``y`` float32 [N], the square; fails from `size` on."""
    return model(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        [tensor("i", "int64", ["N"])],
        [tensor("y", "float32", ["N"])],
        [constant("table", np.arange(size, dtype=np.float32) ** 2)],
    )


def laborious(base: int = 2000) -> bytes:
    """``n`` int64 [1] → ``y`` float32 [1], that number plus `base`, in as many slow steps.

    The request chooses how long it takes; `base` makes even the shortest slower than a
    thread hop, so that it runs on threads.
    """
    work = np.full((48, 48), 1 / 48, np.float32)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "work"], ["next_state"]),
            helper.make_node("Add", ["count", "one"], ["next_count"]),
            helper.make_node("Identity", ["going"], ["still_going"]),
        ],
        "body",
        [
            tensor("step", "int64", []),
            tensor("going", "bool", []),
            tensor("state", "float32", [48, 48]),
            tensor("count", "float32", [1]),
        ],
        [
            tensor("still_going", "bool", []),
            tensor("next_state", "float32", [48, 48]),
            tensor("next_count", "float32", [1]),
        ],
    )
    return model(
        [
            helper.make_node("Add", ["n", "base"], ["steps_1d"]),
            helper.make_node("Squeeze", ["steps_1d"], ["steps"]),
            helper.make_node(
                "Loop", ["steps", "yes", "work", "zero"], ["end_state", "y"], body=body
            ),
        ],
        [tensor("n", "int64", [1])],
        [tensor("y", "float32", [1])],
        [
            constant("base", np.array([base], np.int64)),
            constant("yes", np.array(True)),
            constant("work", work),
            constant("one", np.array([1], np.float32)),
            constant("zero", np.array([0], np.float32)),
        ],
    )
