"""Dynamic int8: matrices multiplied as bytes, with a range for the activations in every request.

Weights W are int8, symmetric, per output column: scale = max|w| / 127, rounded so that errors
cancel (`modelport.optimize.quantize.rounding`). Activations X are uint8 with the range of the
whole tensor, zero in it, found at run time (ONNX's DynamicQuantizeLinear). Embeddings are int8
with one scale per row, which is looked up beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelport.core.tensors import Array
from modelport.optimize.onnx_graph import attribute, graphs, reads, scopes
from modelport.optimize.quantize.products import matrix_of, products, steps, tables
from modelport.optimize.quantize.rounding import Order, rounded

_LARGEST: Final = 127
#: Inputs of the widest matrix that is not just rounded to the nearest step.
_WIDEST: Final = 4096


@dataclass(frozen=True)
class Plan:
    """What to do with each tensor that is multiplied.

    Parameters
    ----------
    smooth : mapping of str to ndarray of float32
        By what the columns of a tensor are divided: `modelport.optimize.quantize.smoothing`.
    samples : mapping of str to ndarray of float32, shape (samples, columns)
        Rows of these tensors, for rounding; not divided yet.
    """

    smooth: Mapping[str, Array] = field(default_factory=dict)
    samples: Mapping[str, Array] = field(default_factory=dict, repr=False)


def quantize_dynamically(
    model: onnx.ModelProto, plan: Plan, *, with_tables: bool = True
) -> onnx.ModelProto:
    """The graph with integers, also in its branches.

    Parameters
    ----------
    model : ModelProto
        Constants are initializers.
    plan : Plan
    with_tables : bool
        Whether embeddings are quantized, too.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # Branches before what they are in, whose nodes are replaced by copies.
    for index, (graph, constants) in reversed(list(enumerate(scopes(copy.graph)))):
        Rewrite(graph, constants, plan, f"int8_{index}").apply(with_tables)
    drop_unused(copy)
    return copy


class Rewrite:
    """Replaces the products and tables of one graph.

    Parameters
    ----------
    graph : GraphProto
        Changed in place.
    constants : mapping of str to TensorProto
        Those that its nodes may read.
    plan : Plan
    prefix : str
        Of the names of everything new.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        constants: Mapping[str, onnx.TensorProto],
        plan: Plan,
        prefix: str,
    ) -> None:
        self._graph, self.constants, self.plan = graph, constants, plan
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._bytes: dict[str, tuple[str, str, str]] = {}
        self._weights: dict[tuple[str, str, bool], tuple[str, str, str]] = {}
        self._orders: dict[str, Order] = {}

    def apply(self, with_tables: bool) -> None:
        """Replace them."""
        chosen = {node.output[0] for node in products(self._graph, self.constants)}
        looked_up = {node.output[0] for node in tables(self._graph, self.constants)}
        for node in self._graph.node:
            first = node.output[0] if node.output else ""
            if first in chosen:
                self.product(node)
            elif with_tables and first in looked_up:
                self._table(node)
            else:
                self._nodes.append(node)
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        del self._graph.node[:]
        self._graph.node.extend(nodes)

    def node(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """Add a node."""
        name = f"{self._prefix}_{len(self._nodes)}_{kind}"
        self._nodes.append(helper.make_node(kind, inputs, outputs, name, **attributes))

    def constant(self, array: Array, name: str) -> str:
        """Add an initializer; its whole name."""
        full = f"{self._prefix}_{name}"
        self._graph.initializer.append(numpy_helper.from_array(array, full))
        return full

    def product(self, node: onnx.NodeProto) -> None:
        """Replace a node of `products`."""
        values, step, zero = self._activation(node.input[0])
        weights, scales, zeros = self._weight(node)
        out = node.output[0]
        whole, wide, both = f"{out}__int32", f"{out}__float", f"{out}__scale"
        self.node("MatMulInteger", [values, weights, zero, zeros], [whole])
        self.node("Cast", [whole], [wide], to=TensorProto.FLOAT)
        self.node("Mul", [step, scales], [both])
        biased = node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]
        product = f"{out}__product" if biased else out
        self.node("Mul", [wide, both], [product])
        if biased:
            self.node("Add", [product, node.input[2]], [out])

    def _activation(self, name: str) -> tuple[str, str, str]:
        """The bytes of a tensor, their step and their zero; made once."""
        if name not in self._bytes:
            read = name
            if name in self.plan.smooth:
                inverse = (1 / self.plan.smooth[name]).astype(np.float32)
                read = f"{self._prefix}_{name}__smooth"
                self.node("Mul", [name, self.constant(inverse, f"{name}__inverse")], [read])
            # What is inside a branch may not have the name of what is outside.
            unique = f"{self._prefix}_{name}"
            made = f"{unique}__bytes", f"{unique}__step", f"{unique}__zero"
            self.node("DynamicQuantizeLinear", [read], list(made))
            self._bytes[name] = made
        return self._bytes[name]

    def _weight(self, node: onnx.NodeProto) -> tuple[str, str, str]:
        turned = bool(attribute(node, "transB", 0)) and node.op_type == "Gemm"
        key = node.input[1], node.input[0], turned
        if key not in self._weights:
            integers, scales = self._rounded(node)
            name = f"{node.input[1]}_{len(self._weights)}"
            zeros = np.zeros(len(scales), dtype=np.int8)
            self._weights[key] = (
                self.constant(integers, f"{name}__int8"),
                self.constant(scales, f"{name}__scales"),
                self.constant(zeros, f"{name}__zeros"),
            )
        return self._weights[key]

    def order(self, name: str) -> Order | None:
        """In which weights that meet a tensor are rounded; None: to the nearest step."""
        sample = self.plan.samples.get(name)
        if sample is None or sample.shape[1] > _WIDEST:
            return None
        if name not in self._orders:
            inputs = sample / self.plan.smooth.get(name, np.float32(1))
            moments = (inputs.T @ inputs).astype(np.float64) / len(inputs)
            self._orders[name] = Order.of(moments[None])
        return self._orders[name]

    def _rounded(self, node: onnx.NodeProto) -> tuple[Array, Array]:
        weights = matrix_of(node, self.constants)
        if node.input[0] in self.plan.smooth:
            weights = weights * self.plan.smooth[node.input[0]][:, None]
        scales = steps(weights, axis=0)
        order = self.order(node.input[0])
        if order is None:
            return np.round(weights / scales).astype(np.int8), scales
        found = rounded(weights.T[None], scales[None], order, -_LARGEST, _LARGEST)[0]
        return np.ascontiguousarray(found.T), scales

    def _table(self, node: onnx.NodeProto) -> None:
        name, places, out = node.input[0], node.input[1], node.output[0]
        weights = numpy_helper.to_array(self.constants[name])
        scales = steps(weights, axis=1)[:, None]
        integers = np.round(weights / scales).astype(np.int8)
        found = f"{out}__int8", f"{out}__step", f"{out}__float"
        unique = f"{name}_{len(self._nodes)}"
        self.node("Gather", [self.constant(integers, f"{unique}__int8"), places], [found[0]])
        self.node("Gather", [self.constant(scales, f"{unique}__steps"), places], [found[1]])
        self.node("Cast", [found[0]], [found[2]], to=TensorProto.FLOAT)
        self.node("Mul", [found[2], found[1]], [out])


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove the weights that nothing reads any more."""
    used = {value.name for value in model.graph.output}
    for node in model.graph.node:
        used |= reads(node)
    for graph in graphs(model.graph):
        kept = [item for item in graph.initializer if item.name in used]
        copies = [TensorProto.FromString(item.SerializeToString()) for item in kept]
        del graph.initializer[:]
        graph.initializer.extend(copies)
