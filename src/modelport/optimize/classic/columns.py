"""Columns of matrices inside ONNX graphs: which ones matter, and what follows when some go.

A matrix ``[rows, columns]`` is followed from the node that makes it through operators that keep
columns apart (scalers, casts, products with constants, concatenations) to those that end them
(linear models, trees, sums over columns). Everything else is taken to need all columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.classic.ensemble import OPERATORS
from modelport.optimize.onnx_graph import attribute

#: Operators that answer each column by itself.
ELEMENTWISE: Final = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Exp", "Floor", "Greater",
    "GreaterOrEqual", "Identity", "IsNaN", "Less", "LessOrEqual", "Log", "Max", "Min", "Mul",
    "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sqrt", "Sub",
    "Tanh", "Where",
})  # fmt: skip
#: Attributes with one number for each column, of operators that are elementwise otherwise.
PER_COLUMN: Final = {
    "Scaler": ("offset", "scale"),
    "Imputer": ("imputed_value_floats", "imputed_value_int64s"),
}
REDUCTIONS: Final = frozenset({
    "ReduceSum", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin", "ReduceMean",
    "ReduceSumSquare", "ReduceLogSumExp",
})  # fmt: skip
TREES: Final = frozenset(OPERATORS)
LINEAR: Final = frozenset({"LinearClassifier", "LinearRegressor"})


@dataclass
class Graph:
    """A graph that is being changed, with what is asked about it.

    Parameters
    ----------
    model : ModelProto
        It is changed.
    widths : mapping of str to int
        Columns of tensors with two dimensions, as a run has shown them.
    """

    model: onnx.ModelProto
    widths: dict[str, int]

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.constants: dict[str, onnx.TensorProto] = {i.name: i for i in graph.initializer}
        self.constants |= {
            n.output[0]: a.t for n in graph.node if n.op_type == "Constant"
            for a in n.attribute if a.name == "value"
        }  # fmt: skip
        self.outputs = {value.name for value in graph.output}

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """Nodes that read a tensor."""
        return [node for node in self.model.graph.node if tensor in node.input]

    def constant(self, name: str) -> Array | None:
        """Its value, if it is a constant."""
        held = self.constants.get(name)
        return None if held is None else numpy_helper.to_array(held)

    def set_input(self, node: onnx.NodeProto, place: int, value: Array) -> None:
        """Give a node a constant of its own: others may use the same one."""
        base, number = node.input[place], 1
        while (name := f"{base}__columns_{number}") in self.constants:
            number += 1
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        self.model.graph.initializer.append(tensor)
        self.constants[name] = tensor
        node.input[place] = name

    def tidied(self) -> onnx.ModelProto:
        """The model without nodes and constants that nothing uses any more."""
        graph = self.model.graph
        while True:
            used = {name for node in graph.node for name in node.input} | self.outputs
            idle = [node for node in graph.node if not used & set(node.output)]
            for node in idle:
                graph.node.remove(node)
            if not idle:
                break
        for item in [i for i in graph.initializer if i.name not in used]:
            graph.initializer.remove(item)
        kept = [v for v in graph.value_info if v.name not in self.widths]
        del graph.value_info[:]
        graph.value_info.extend(kept)
        return self.model


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Write an attribute, in the place of the one of this name."""
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def coefficients(node: onnx.NodeProto, width: int) -> Array:
    """Of a ``LinearClassifier`` or ``LinearRegressor``, of shape ``[scores, width]``."""
    return np.asarray(attribute(node, "coefficients"), dtype=np.float64).reshape(-1, width)


def used(graph: Graph, tensor: str) -> Array:
    """Which columns of a matrix may change an answer.

    Returns
    -------
    ndarray of bool, shape (columns,)
    """
    return np.asarray(weights_of(graph, tensor) != 0)


def weights_of(graph: Graph, tensor: str, *, count_sums: bool = True) -> Array:
    """With how much weight the columns of a matrix go into linear models.

    Parameters
    ----------
    count_sums : bool
        Whether sums over all columns count; the norm of a row is one.

    Returns
    -------
    ndarray of float64, shape (columns,)
        How far a column's weights for several scores are apart, or the size of its only one;
        infinite where a column matters in another way.
    """
    width = graph.widths[tensor]
    found = np.zeros(width)
    if tensor in graph.outputs:
        return found + np.inf
    for node in graph.consumers(tensor):
        found = np.maximum(found, _weights_in(graph, node, tensor, width, count_sums))
    return found


def _weights_in(
    graph: Graph, node: onnx.NodeProto, tensor: str, width: int, count_sums: bool
) -> Array:
    kind, everything = node.op_type, np.full(width, np.inf)
    if kind in LINEAR:
        return _spread(coefficients(node, width))
    if kind in TREES:
        return np.where(_used_by_trees(node, width), np.inf, 0.0)
    if kind in ("MatMul", "Gemm") and node.input[0] == tensor and not attribute(node, "transA"):
        weight = graph.constant(node.input[1])
        if weight is not None and weight.ndim == 2:
            return _spread(weight if attribute(node, "transB") else weight.T)
    if kind in REDUCTIONS and not count_sums:
        return np.zeros(width)
    further = node.output[0] if node.output else ""
    if further not in graph.widths:
        return everything
    if kind == "Concat" and attribute(node, "axis") in (1, -1):
        found = weights_of(graph, further, count_sums=count_sums)
        return np.asarray(np.max([found[s] for s in parts_of(graph, node, tensor)], axis=0))
    chosen = picked_by(graph, node, tensor)
    if chosen is not None:
        found = np.zeros(width)
        np.maximum.at(found, chosen, weights_of(graph, further, count_sums=count_sums))
        return found
    passes = kind in ELEMENTWISE or kind in PER_COLUMN or keeps_shape(graph, node, width)
    if (passes or (kind == "Normalizer" and not count_sums)) and graph.widths[further] == width:
        return weights_of(graph, further, count_sums=count_sums)
    return everything


def _spread(weights: Array) -> Array:
    """Of weights ``[scores, columns]``; 0 only where all are 0."""
    if len(weights) == 1:
        return np.asarray(np.abs(weights[0]), dtype=np.float64)
    apart = weights.max(axis=0) - weights.min(axis=0)
    # Equal weights for all scores matter to scores, be they never to labels.
    return np.asarray(np.where(apart == 0, np.abs(weights).max(axis=0), apart), dtype=np.float64)


def _used_by_trees(node: onnx.NodeProto, width: int) -> Array:
    wanted = np.zeros(width, dtype=bool)
    features = np.asarray(attribute(node, "nodes_featureids"))
    modes = attribute(node, "nodes_modes")
    if isinstance(modes, list):
        features = features[np.asarray([mode != b"LEAF" for mode in modes])]
    wanted[features] = True
    return wanted


def parts_of(graph: Graph, node: onnx.NodeProto, tensor: str) -> list[slice]:
    """Where a tensor stands in what a Concat makes."""
    found, start = [], 0
    for name in node.input:
        width = graph.widths.get(name)
        if width is None:
            raise UnsupportedError(f"columns of {name!r} are not known")
        if name == tensor:
            found.append(slice(start, start + width))
        start += width
    return found


def picked_by(graph: Graph, node: onnx.NodeProto, tensor: str) -> Array | None:
    """The columns that a node picks; None: it picks none."""
    is_pick = node.op_type == "ArrayFeatureExtractor" or (
        node.op_type == "Gather" and attribute(node, "axis") in (1, -1)
    )
    if not is_pick or node.input[0] != tensor:
        return None
    places = graph.constant(node.input[1])
    if places is None or graph.widths.get(node.output[0]) != places.size:
        return None
    return np.asarray(places).reshape(-1) % graph.widths[tensor]  # Gather counts from behind, too


def keeps_shape(graph: Graph, node: onnx.NodeProto, width: int) -> bool:
    """Whether a Reshape makes rows of as many columns as before."""
    if node.op_type != "Reshape":
        return False
    shape = graph.constant(node.input[1])
    return shape is not None and shape.tolist() in ([-1, width], [0, width])
