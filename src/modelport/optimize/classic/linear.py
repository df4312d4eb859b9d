"""Linear models inside ONNX graphs, whichever operators they are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from modelport.core.tensors import Array
from modelport.optimize.classic.columns import LINEAR, Graph, set_attribute
from modelport.optimize.onnx_graph import attribute


@dataclass(frozen=True, eq=False)
class Linear:
    """A matrix product with constant weights, and what is added to it.

    Parameters
    ----------
    node : NodeProto
        ``LinearClassifier``, ``LinearRegressor``, ``MatMul`` or ``Gemm``.
    matrix : str
        The tensor that it takes.
    weights : ndarray of float64, shape (scores, columns)
    intercepts : ndarray of float64, shape (scores,)
    adder : NodeProto or None
        The ``Add`` behind a ``MatMul``.
    """

    node: onnx.NodeProto
    matrix: str
    weights: Array
    intercepts: Array
    adder: onnx.NodeProto | None = None

    @property
    def decides(self) -> bool:
        """Whether its scores decide on a label."""
        return self.node.op_type == "LinearClassifier" or len(self.weights) > 1

    def write(self, graph: Graph, weights: Array, intercepts: Array) -> None:
        """Give the model other numbers; intercepts stay where there is no place for them."""
        node = self.node
        if node.op_type in LINEAR:
            set_attribute(node, "coefficients", weights.astype(np.float32).ravel().tolist())
            set_attribute(node, "intercepts", intercepts.astype(np.float32).tolist())
            return
        before = graph.constant(node.input[1])
        assert before is not None  # noqa: S101 - it was found by its constant
        turned = weights if attribute(node, "transB") else weights.T
        graph.set_input(node, 1, turned.astype(before.dtype))
        place = _place_of_intercepts(graph, node, self.adder)
        if place is not None:
            holder, position = place
            held = graph.constant(holder.input[position])
            assert held is not None  # noqa: S101 - likewise
            shape = np.broadcast_shapes(held.shape, (len(intercepts),))
            graph.set_input(holder, position, intercepts.astype(held.dtype).reshape(shape))


def linear_models(graph: Graph) -> list[Linear]:
    """All of a graph, in its order."""
    found = []
    for node in graph.model.graph.node:
        width = graph.widths.get(node.input[0]) if node.input else None
        if width is None:
            continue
        if node.op_type in LINEAR:
            weights = np.asarray(attribute(node, "coefficients"), dtype=np.float64)
            weights = weights.reshape(-1, width)
            held = attribute(node, "intercepts")
            intercepts = np.asarray(held if held else np.zeros(len(weights)), dtype=np.float64)
            found.append(Linear(node, node.input[0], weights, intercepts))
        elif node.op_type in ("MatMul", "Gemm") and not attribute(node, "transA"):
            product = _product(graph, node)
            if product is not None:
                found.append(product)
    return found


def _product(graph: Graph, node: onnx.NodeProto) -> Linear | None:
    weight = graph.constant(node.input[1])
    plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
    if weight is None or weight.ndim != 2 or not plain:
        return None
    weights = (weight if attribute(node, "transB") else weight.T).astype(np.float64)
    adder = None
    if node.op_type == "MatMul":
        readers = graph.consumers(node.output[0])
        if len(readers) == 1 and readers[0].op_type == "Add":
            adder = readers[0]
    intercepts = np.zeros(len(weights))
    place = _place_of_intercepts(graph, node, adder)
    if place is not None:
        held = graph.constant(place[0].input[place[1]])
        intercepts = np.broadcast_to(np.asarray(held, dtype=np.float64).reshape(-1), len(weights))
    return Linear(node, node.input[0], weights, intercepts.copy(), adder)


def _place_of_intercepts(
    graph: Graph, node: onnx.NodeProto, adder: onnx.NodeProto | None
) -> tuple[onnx.NodeProto, int] | None:
    """The node and the input that hold them; None: there are none."""
    places = [(node, 2)] if node.op_type == "Gemm" and len(node.input) > 2 else []
    if adder is not None:
        places = [(adder, 1 - list(adder.input).index(node.output[0]))]
    for holder, position in places:
        held = graph.constant(holder.input[position])
        if held is None:
            continue
        in_a_row = held.ndim in (1, 2) and held.size == held.shape[-1] == _scores(graph, node)
        if held.size == 1 or in_a_row:
            return holder, position
    return None


def _scores(graph: Graph, node: onnx.NodeProto) -> int:
    weight = graph.constant(node.input[1])
    assert weight is not None  # noqa: S101 - the caller has seen it
    return int(weight.shape[0] if attribute(node, "transB") else weight.shape[1])


def share_rows(graph: Graph) -> int:
    """Of two labels one row of weights is enough: the other is its negative; how many models.

    ONNX Runtime gives the first label the complement where the scores are probabilities of a
    logistic function, and only there the same ones as before.
    """
    shared = 0
    for linear in linear_models(graph):
        node, weights, intercepts = linear.node, linear.weights, linear.intercepts
        if node.op_type != "LinearClassifier" or attribute(node, "post_transform") != b"LOGISTIC":
            continue
        if (
            len(weights) == 2
            and np.array_equal(weights[0], -weights[1])
            and (intercepts[0] == -intercepts[1])
        ):
            linear.write(graph, weights[1:], intercepts[1:])
            shared += 1
    return shared
