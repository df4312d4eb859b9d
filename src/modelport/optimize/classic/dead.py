"""Columns that nothing uses.

Rows with NaN in a column whose weight is 0 answered NaN; they answer a number afterwards.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from modelport.core.tensors import Array
from modelport.optimize.classic.columns import (
    LINEAR,
    TREES,
    Graph,
    coefficients,
    set_attribute,
    used,
)
from modelport.optimize.classic.slicing import keep
from modelport.optimize.classic.terms import OPERATOR, keep_terms
from modelport.optimize.onnx_graph import attribute


def without_dead_columns(graph: Graph) -> dict[str, int]:
    """Stop making columns that cannot change an answer; by node, how many.

    Clients send what they sent: columns of inputs are left aside inside the graph.
    """
    gone: dict[str, int] = {}
    for node in reversed(list(graph.model.graph.node)):
        tensor = node.output[0] if node.output else ""
        if graph.widths.get(tensor, 1) > 1:
            dead = int(_without(graph, node, tensor))
            if dead:
                gone[f"{node.op_type} {tensor}"] = dead
    for value in graph.model.graph.input:
        dead = _without_input(graph, value.name)
        if dead:
            gone[f"input {value.name}"] = dead
    graph.tidied()
    return gone


def _kept(graph: Graph, tensor: str) -> Array | None:
    """Columns that stay; None: all."""
    wanted = used(graph, tensor)
    if wanted.all():
        return None
    wanted[0] |= not wanted.any()  # a matrix needs a column
    return np.flatnonzero(wanted) if not wanted.all() else None


def _without(graph: Graph, node: onnx.NodeProto, tensor: str) -> int:
    width = graph.widths[tensor]
    kept = _kept(graph, tensor) if _is_source(graph, node) else None
    if kept is None:
        return 0
    if node.op_type == "Concat":
        return _without_parts(graph, node, tensor, kept)
    keep(graph, tensor, kept)
    if node.op_type == OPERATOR:
        keep_terms(graph, node, kept)
    elif node.op_type == "Reshape":
        _keep_categories(graph, node, kept)
    elif node.op_type in ("MatMul", "Gemm"):
        _keep_scores(graph, node, kept)
    else:
        places = graph.constant(node.input[1])
        assert places is not None  # noqa: S101 - likewise
        graph.set_input(node, 1, places.reshape(-1)[kept])
    return width - len(kept)


def _is_source(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node can make fewer columns."""
    kind = node.op_type
    if kind == "Reshape":
        return bool(_encoders(graph, node))
    if kind in ("MatMul", "Gemm"):
        weight = graph.constant(node.input[1])
        bias = graph.constant(node.input[2]) if len(node.input) > 2 else np.empty(0)
        return weight is not None and weight.ndim == 2 and bias is not None
    if kind == "Gather" and attribute(node, "axis") not in (1, -1):
        return False
    if kind in ("Gather", "ArrayFeatureExtractor"):
        return graph.constant(node.input[1]) is not None
    return kind in ("Concat", OPERATOR)


def _encoders(graph: Graph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The one-hot encoders, of a column each, that a Reshape makes a matrix of; none otherwise.

    Only such as answer zeros to what they do not know: a category without weight is then the same
    as one that is not known.
    """
    makers = {name: maker for maker in graph.model.graph.node for name in maker.output}
    made = node.input[0]
    joined = makers.get(made)
    names = [made]
    if joined is not None and joined.op_type == "Concat" and attribute(joined, "axis") in (2, -1):
        names = [*joined.input, made]
    found = [makers[name] for name in names if name in makers and makers[name] is not joined]
    if joined is not None and joined.op_type == "OneHotEncoder":
        found = [joined]
    fitting = all(n.op_type == "OneHotEncoder" and attribute(n, "zeros") != 0 for n in found)
    shape = graph.constant(node.input[1])
    width = sum(len(_categories(n)[1]) for n in found)
    alone = all(len(graph.consumers(name)) == 1 for name in names)
    if not found or not fitting or not alone or shape is None or shape.tolist() != [-1, width]:
        return []
    return found


def _keep_categories(graph: Graph, node: onnx.NodeProto, kept: Array) -> None:
    start, gone = 0, set()
    for encoder in _encoders(graph, node):
        name, categories = _categories(encoder)
        mine = kept[(kept >= start) & (kept < start + len(categories))] - start
        start += len(categories)
        if len(mine):
            set_attribute(encoder, name, [categories[i] for i in mine.tolist()])
        else:
            gone.add(encoder.output[0])
    for joined in [n for n in graph.model.graph.node if gone & set(n.input)]:
        left = [name for name in joined.input if name not in gone]
        del joined.input[:]
        joined.input.extend(left)
    graph.set_input(node, 1, np.asarray([-1, len(kept)], dtype=np.int64))


def _categories(node: onnx.NodeProto) -> tuple[str, list[object]]:
    for name in ("cats_strings", "cats_int64s"):
        found = attribute(node, name)
        if found:
            return name, list(found)
    return "cats_strings", []


def _without_parts(graph: Graph, node: onnx.NodeProto, tensor: str, kept: Array) -> int:
    """Only parts as a whole: columns inside them go where they are made."""
    if attribute(node, "axis") not in (1, -1):
        return 0
    starts, at = [], 0
    for name in node.input:
        if name not in graph.widths:
            return 0
        starts.append(at)
        at += graph.widths[name]
    ends = [*starts[1:], at]
    alive = [bool(np.isin(np.arange(a, b), kept).any()) for a, b in zip(starts, ends, strict=True)]
    if all(alive):
        return 0
    spans = [np.arange(a, b) for a, b, yes in zip(starts, ends, alive, strict=True) if yes]
    keep(graph, tensor, np.concatenate(spans))
    names = [name for name, yes in zip(node.input, alive, strict=True) if yes]
    del node.input[:]
    node.input.extend(names)
    return at - sum(map(len, spans))


def _keep_scores(graph: Graph, node: onnx.NodeProto, kept: Array) -> None:
    weight = graph.constant(node.input[1])
    assert weight is not None  # noqa: S101 - it is a source
    graph.set_input(node, 1, weight[kept] if attribute(node, "transB") else weight[:, kept])
    if len(node.input) > 2:
        bias = graph.constant(node.input[2])
        if bias is not None and bias.ndim and bias.shape[-1] > 1:
            graph.set_input(node, 2, bias[..., kept])


def _without_input(graph: Graph, name: str) -> int:
    """Pick the columns that are used, where that spares more than picking costs."""
    readers = graph.consumers(name)
    if graph.widths.get(name, 1) < 2 or not readers:
        return 0
    kept = _kept(graph, name)
    width = graph.widths[name]
    if kept is None or len(kept) > width // 2:
        return 0
    if all(node.op_type in {*LINEAR, *TREES, "Concat"} for node in readers):
        weights = sum(
            coefficients(node, width)[:, 1:].size for node in readers if node.op_type in LINEAR
        )
        # Four bytes for each weight of a column, eight for the place of each that is picked.
        if weights // width * (width - len(kept)) < 4 * len(kept):
            return 0
    keep(graph, name, kept)
    graph.widths[name] = width
    picked = f"{name}__used"
    for node in readers:
        for place, read_name in enumerate(node.input):
            if read_name == name:
                node.input[place] = picked
    pick = helper.make_node("Gather", [name, f"{name}__places"], [picked], axis=1)
    graph.set_input(pick, 1, kept.astype(np.int64))
    graph.model.graph.node.insert(0, pick)
    graph.widths[picked] = len(kept)
    return width - len(kept)
