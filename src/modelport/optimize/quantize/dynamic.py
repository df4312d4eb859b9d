"""Dynamic int8: matrices multiplied as bytes, with a range for the activations in every request.

Weights W are int8, symmetric, per output column: scale = max|w| / 127, rounded so that errors
cancel (`modelport.optimize.quantize.rounding`). Activations X are uint8 with the range of the
whole tensor, zero in it, found at run time (ONNX's DynamicQuantizeLinear). Embeddings are int8
with one scale per row, which is looked up beside it.

Smoothing (Xiao et al., "SmoothQuant", 2022, equation 4) divides the columns of X by

    s_j = max|X_j| ** alpha / max|W_j| ** (1 - alpha)

and multiplies the rows of W by it, so that a few columns with outliers do not use up the range of
all others. It costs one multiplication by a vector before the product; alpha is chosen for each
tensor by the error of the product on the calibration rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelport.core.tensors import Array, Tensors
from modelport.optimize.onnx_graph import attribute, graphs, reads, scopes
from modelport.optimize.quantize.rounding import Order, rounded
from modelport.optimize.session import Probe, batches

_LARGEST: Final = 127
#: Smaller matrices cost more to quantize around than to multiply.
_LEAST: Final = 2**10
_LEAST_TABLE: Final = 2**14
_ALPHAS: Final = (0.5, 0.65, 0.75, 0.85, 0.95)
#: By which smoothing has to lower the error of a product to be worth its multiplication.
_WORTH: Final = 0.4
_SAMPLES: Final = 2048
_COMPARED: Final = 512
_WIDEST: Final = 4096
_BATCH: Final = 4
_SEED: Final = 3


@dataclass(frozen=True)
class Plan:
    """What to do with each tensor that is multiplied.

    Parameters
    ----------
    smooth : mapping of str to ndarray of float32
        By what the columns of a tensor are divided.
    samples : mapping of str to ndarray of float32, shape (samples, columns)
        Rows of these tensors, for rounding; not divided yet.
    """

    smooth: Mapping[str, Array] = field(default_factory=dict)
    samples: Mapping[str, Array] = field(default_factory=dict, repr=False)


def products(
    graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]
) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph that multiply by a constant matrix of float32."""
    for node in graph.node:
        item = constants.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if item is None or item.data_type != TensorProto.FLOAT or len(item.dims) != 2:
            continue
        plain = node.op_type == "MatMul" or (
            not attribute(node, "transA", 0)
            and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
        )
        if plain and node.input[0] not in constants and int(np.prod(item.dims)) >= _LEAST:
            yield node


def tables(
    graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]
) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph that look up rows of a constant matrix of float32."""
    for node in graph.node:
        item = constants.get(node.input[0]) if node.op_type == "Gather" else None
        if item is None or item.data_type != TensorProto.FLOAT or len(item.dims) != 2:
            continue
        if attribute(node, "axis", 0) == 0 and int(np.prod(item.dims)) >= _LEAST_TABLE:
            yield node


def observe_products(model: onnx.ModelProto, rows: Tensors) -> dict[str, Array]:
    """Rows of all tensors that are multiplied by constant matrices, outside branches.

    Returns
    -------
    dict of str to ndarray of float32, shape (samples, columns)
    """
    constants = {item.name: item for item in model.graph.initializer}
    names = list(dict.fromkeys(node.input[0] for node in products(model.graph, constants)))
    if not names:
        return {}
    probe = Probe(model, names, optimize=True)
    random = np.random.default_rng(_SEED)
    parts: dict[str, list[Array]] = {name: [] for name in names}
    count = -(-len(next(iter(rows.values()))) // _BATCH)
    each = max(_SAMPLES // max(count, 1), 8)
    for batch in batches(model, rows, _BATCH):
        for name, array in probe.run(batch, names).items():
            flat = array.reshape(-1, array.shape[-1])
            if len(flat) > each:
                flat = flat[random.choice(len(flat), each, replace=False)]
            parts[name].append(flat)
    joined = {name: np.concatenate(found) for name, found in parts.items() if found}
    return {name: array for name, array in joined.items() if len(array)}


def smoothing(model: onnx.ModelProto, samples: Mapping[str, Array]) -> dict[str, Array]:
    """By what the columns of each tensor are to be divided; only where it is worth it."""
    constants = {item.name: item for item in model.graph.initializer}
    readers: dict[str, list[Array]] = {}
    for node in products(model.graph, constants):
        readers.setdefault(node.input[0], []).append(matrix_of(node, constants))
    found: dict[str, Array] = {}
    for name, sample in samples.items():
        weights = np.concatenate(readers[name], axis=1)
        few = sample[:_COMPARED]
        wanted = few @ weights
        least = _error(few, weights, wanted) * (1 - _WORTH)
        reach, sizes = np.abs(sample).max(axis=0), np.abs(weights).max(axis=1)
        for alpha in _ALPHAS:
            scales = np.maximum(reach, 1e-5) ** alpha / np.maximum(sizes, 1e-5) ** (1 - alpha)
            scales = (scales / np.exp(np.mean(np.log(scales)))).astype(np.float32)
            error = _error(few / scales, weights * scales[:, None], wanted)
            if error < least:
                found[name], least = scales, error
    return found


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
                read = f"{name}__smooth"
                self.node("Mul", [name, self.constant(inverse, f"{name}__inverse")], [read])
            made = f"{name}__bytes", f"{name}__step", f"{name}__zero"
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
        scales = _scales(weights, axis=0)
        order = self.order(node.input[0])
        if order is None:
            return np.round(weights / scales).astype(np.int8), scales
        found = rounded(weights.T[None], scales[None], order, -_LARGEST, _LARGEST)[0]
        return np.ascontiguousarray(found.T), scales

    def _table(self, node: onnx.NodeProto) -> None:
        name, places, out = node.input[0], node.input[1], node.output[0]
        weights = numpy_helper.to_array(self.constants[name])
        scales = _scales(weights, axis=1)[:, None]
        integers = np.round(weights / scales).astype(np.int8)
        found = f"{out}__int8", f"{out}__step", f"{out}__float"
        unique = f"{name}_{len(self._nodes)}"
        self.node("Gather", [self.constant(integers, f"{unique}__int8"), places], [found[0]])
        self.node("Gather", [self.constant(scales, f"{unique}__steps"), places], [found[1]])
        self.node("Cast", [found[0]], [found[2]], to=TensorProto.FLOAT)
        self.node("Mul", [found[2], found[1]], [out])


def matrix_of(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Array:
    """Its weights with inputs along the rows."""
    array = numpy_helper.to_array(constants[node.input[1]])
    return array.T if node.op_type == "Gemm" and attribute(node, "transB", 0) else array


def _scales(weights: Array, axis: int) -> Array:
    found: Array = np.abs(weights).max(axis=axis) / _LARGEST
    return np.where(found > 0, found, 1.0).astype(np.float32)


def _error(inputs: Array, weights: Array, wanted: Array) -> float:
    """Of a product with bytes, as a sum of squares."""
    low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
    step = max(high - low, 1e-12) / 255
    scales = _scales(weights, axis=0)
    found = (np.round(inputs / step) * step) @ (np.round(weights / scales) * scales)
    return float(np.sum((found - wanted) ** 2))


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
