"""Scalers that the linear model or the trees behind them can do themselves."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.classic.columns import (
    LINEAR,
    TREES,
    Graph,
    coefficients,
    set_attribute,
)
from modelport.optimize.classic.ensemble import LEAF, LEQ
from modelport.optimize.classic.tree_nodes import read
from modelport.optimize.classic.tree_writer import write
from modelport.optimize.onnx_graph import attribute

_FLOAT: Final = onnx.TensorProto.FLOAT
#: Bits of the float32 infinity.
_INFINITY: Final = 0x7F800000


def fold_scalers(graph: Graph) -> int:
    """Give the work of scalers to the linear models and trees behind them; how many."""
    folded = 0
    for scaler in [n for n in graph.model.graph.node if n.op_type == "Scaler"]:
        width = graph.widths.get(scaler.input[0])
        found = _end(graph, scaler.output[0]) if width else None
        if found is None or not (attribute(scaler, "offset") and attribute(scaler, "scale")):
            continue
        node, start, total = found
        offset, scale = (
            np.broadcast_to(np.asarray(attribute(scaler, name), dtype=np.float64), int(width or 0))
            for name in ("offset", "scale")
        )
        span = slice(start, start + int(width or 0))
        if node.op_type in LINEAR:
            _into_linear(node, offset, scale, span, total)
        elif not _into_trees(graph, scaler, node, span):
            continue
        for reader in graph.consumers(scaler.output[0]):
            for place, name in enumerate(reader.input):
                if name == scaler.output[0]:
                    reader.input[place] = scaler.input[0]
        folded += 1
    graph.tidied()
    return folded


def _end(graph: Graph, tensor: str) -> tuple[onnx.NodeProto, int, int] | None:
    """The only reader of a matrix, through concatenations; where its columns begin; of how many."""
    start, total = 0, graph.widths[tensor]
    while True:
        readers = graph.consumers(tensor)
        if len(readers) != 1 or tensor in graph.outputs:
            return None
        node = readers[0]
        if node.op_type in {*LINEAR, *TREES}:
            return node, start, total
        if node.op_type != "Concat" or list(node.input).count(tensor) != 1:
            return None
        before = list(node.input)[: list(node.input).index(tensor)]
        if any(name not in graph.widths for name in node.input):
            return None
        start += sum(graph.widths[name] for name in before)
        tensor = node.output[0]
        total = graph.widths[tensor]


def _into_linear(
    node: onnx.NodeProto, offset: Array, scale: Array, span: slice, total: int
) -> None:
    """``w · s (x - o) + b`` is ``(w s) · x + (b - w s · o)``."""
    weights = coefficients(node, total).copy()
    weights[:, span] *= scale
    held = attribute(node, "intercepts")
    before = np.asarray(held, dtype=np.float64) if held else np.zeros(len(weights))
    intercepts = before - weights[:, span] @ offset
    set_attribute(node, "coefficients", weights.astype(np.float32).ravel().tolist())
    set_attribute(node, "intercepts", intercepts.astype(np.float32).tolist())


def _into_trees(graph: Graph, scaler: onnx.NodeProto, node: onnx.NodeProto, span: slice) -> bool:
    """Thresholds at which the same float32 numbers go left: rounding included."""
    offset, scale = (
        np.asarray(attribute(scaler, name), dtype=np.float32) for name in ("offset", "scale")
    )
    try:
        ensemble = read(node)
    except UnsupportedError:
        return False
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.model.graph.input}
    narrow = kinds.get(scaler.input[0]) == _FLOAT or _joined_floats(graph, scaler.input[0], kinds)
    mine = (ensemble.feature >= span.start) & (ensemble.feature < span.stop) & ~ensemble.leaf
    if not narrow or (scale <= 0).any() or not np.isin(ensemble.mode, (LEQ, LEAF)).all():
        return False
    columns = ensemble.feature[mine] - span.start
    offset, scale = (np.broadcast_to(v, span.stop - span.start)[columns] for v in (offset, scale))
    ensemble.threshold[mine] = last_below(offset, scale, ensemble.threshold[mine])
    write(node, ensemble)
    return True


def _joined_floats(graph: Graph, tensor: str, kinds: dict[str, int]) -> bool:
    """Whether a matrix is nothing but float32 inputs side by side."""
    makers = [node for node in graph.model.graph.node if tensor in node.output]
    return bool(makers) and makers[0].op_type == "Concat" and all(
        kinds.get(name) == _FLOAT for name in makers[0].input
    )  # fmt: skip


def last_below(offset: Array, scale: Array, limit: Array) -> Array:
    """The largest float32 ``x`` with ``(x - offset) * scale <= limit``, in float32 arithmetic.

    It grows with ``x``, rounding included, so halving the range of float32 finds it.

    Parameters
    ----------
    offset, scale : ndarray of float32
        `scale` is positive.
    limit : ndarray of float64
    """
    low = np.full(len(limit), -_INFINITY, dtype=np.int64)
    high = np.full(len(limit), _INFINITY, dtype=np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        while (low < high).any():
            middle = (low + high + 1) // 2
            below = (_number(middle) - offset) * scale <= limit
            low, high = np.where(below, middle, low), np.where(below, high, middle - 1)
    return _number(low).astype(np.float64)


def _number(place: Array) -> Array:
    """The float32 number at a place in the order of all of them; 0 is zero."""
    bits = np.where(place >= 0, place, 0x80000000 - place).astype(np.uint32)
    return bits.view(np.float32)
