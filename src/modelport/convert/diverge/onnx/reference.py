"""What a graph computes when nothing is rounded to float32."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import onnx

from modelport.convert.diverge.onnx.graph import Graph, is_control, values_for
from modelport.convert.graphs.edits import attribute, set_attribute
from modelport.core.tensors import Array, Tensors

#: The reference implementation does about as many multiplications in a second.
_MOST: Final = 50_000_000
_NARROW: Final = (
    onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16
)  # fmt: skip


class Reference:
    """A graph, node by node in float64.

    Parameters
    ----------
    graph : Graph
    observed : mapping of str to ndarray
        Every tensor as the engine computed it: what stands in for nodes that the reference
        implementation does not have.

    Attributes
    ----------
    values : dict of str to ndarray
        Every tensor.
    unknown : set of str
        Tensors whose value is the engine's own.
    """

    def __init__(self, graph: Graph, observed: Tensors, inputs: Tensors) -> None:
        self._graph = graph
        self._observed = observed
        self.values: dict[str, Array] = {n: widened(a) for n, a in graph.constants.items()}
        self.values.update({name: widened(array) for name, array in inputs.items()})
        self.unknown: set[str] = set()
        for node in graph.nodes:
            if node.output[0] not in self.values:
                self._follow(node)

    def _follow(self, node: onnx.NodeProto) -> None:
        names = [name for name in node.output if name]
        try:
            taken = values_for(node, self.values, {})
            made = None if is_control(node) else run_wide(self._graph, node, taken)
        except Exception:
            made = None
        for position, name in enumerate(names):
            seen = self._observed.get(name)
            value = None if made is None else np.asarray(made[position])
            if value is None or (seen is not None and value.shape != seen.shape):
                if seen is None:
                    continue
                value = widened(seen)
                self.unknown.add(name)
            self.values[name] = value


def run_wide(graph: Graph, node: onnx.NodeProto, values: Sequence[Array | None]) -> list[Array]:
    """One node in float64: a cast to a narrower type does not round."""
    node = without_rounding(node)
    wide = [None if value is None else widened(value) for value in values]
    with np.errstate(all="ignore"):
        return [widened(np.asarray(made)) for made in graph.run_node(node, wide)]


def without_rounding(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node with float64 in place of narrower types that it names."""
    name = {"Cast": "to", "EyeLike": "dtype", "ConstantOfShape": "value"}.get(node.op_type)
    item = attribute(node, name) if name else None
    if item is None:
        return node
    if item.type == onnx.AttributeProto.TENSOR:
        if item.t.data_type not in _NARROW:
            return node
        value = onnx.numpy_helper.to_array(item.t).astype(np.float64)
        changed: object = onnx.numpy_helper.from_array(value)
    elif item.i in _NARROW:
        changed = int(onnx.TensorProto.DOUBLE)
    else:
        return node
    node = copy.deepcopy(node)
    set_attribute(node, item.name, changed)
    return node


def widened(array: Array) -> Array:
    """`array` in float64, where it holds floating-point numbers."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def rows_that_fit(graph: Graph, observed: Mapping[str, Array], rows: int) -> int:
    """How many of `rows` rows the reference implementation computes in good time; may be 0."""
    work = work_of(graph, observed, graph.nodes)
    return rows if work <= _MOST else int(rows * _MOST // work)


def work_of(graph: Graph, observed: Mapping[str, Array], nodes: Iterable[onnx.NodeProto]) -> int:
    """Multiplications, roughly: of a product, its weights times the positions they are used at."""
    work = 0
    for node in nodes:
        made = observed.get(node.output[0])
        if made is None:
            continue
        weights = [graph.constants[n] for n in node.input if n in graph.constants]
        size = max((w.size for w in weights), default=1)
        if node.op_type in ("Conv", "ConvTranspose") and made.ndim > 1:
            work += size * (made.size // max(1, made.shape[1]))
        elif node.op_type in ("MatMul", "Gemm") and made.ndim:
            work += size * (made.size // max(1, made.shape[-1]))
        else:
            work += made.size
    return work
