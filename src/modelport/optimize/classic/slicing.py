"""What follows in a graph when a matrix loses columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.classic.columns import (
    ELEMENTWISE,
    LINEAR,
    PER_COLUMN,
    REDUCTIONS,
    TREES,
    Graph,
    coefficients,
    keeps_shape,
    picked_by,
    set_attribute,
)
from modelport.optimize.onnx_graph import attribute


def keep(graph: Graph, tensor: str, kept: Array) -> None:
    """Make everything that reads a matrix ready for some of its columns.

    Parameters
    ----------
    tensor : str
        The node that makes it is the caller's.
    kept : ndarray of int
        Columns that stay, ascending.

    Raises
    ------
    UnsupportedError
        At an operator through which columns cannot be followed.
    """
    narrow: dict[str, tuple[Array, int]] = {tensor: (kept, graph.widths[tensor])}
    for node in list(graph.model.graph.node):
        mine = {name: narrow[name] for name in node.input if name in narrow}
        if mine:
            _keep_in(graph, node, narrow, mine)
    for name, (columns, _) in narrow.items():
        if name in graph.outputs:
            raise UnsupportedError(f"output {name!r} has these columns")
        graph.widths[name] = len(columns)


def _keep_in(
    graph: Graph,
    node: onnx.NodeProto,
    narrow: dict[str, tuple[Array, int]],
    mine: dict[str, tuple[Array, int]],
) -> None:
    kind, (name, (kept, width)) = node.op_type, next(iter(mine.items()))
    output = node.output[0] if node.output else ""
    if kind == "Concat" and attribute(node, "axis") in (1, -1):
        narrow[output] = _concatenated(graph, node, mine)
        return
    if len(mine) > 1 and (kind not in ELEMENTWISE or not _equal_columns(list(mine.values()))):
        raise UnsupportedError(f"columns cannot be followed through {kind}")
    if kind in LINEAR:
        held = coefficients(node, width)[:, kept]
        set_attribute(node, "coefficients", held.astype(np.float32).ravel().tolist())
    elif kind in TREES:
        place = np.full(width, -1)
        place[kept] = np.arange(len(kept))
        features = place[np.asarray(attribute(node, "nodes_featureids"))]
        set_attribute(node, "nodes_featureids", np.maximum(features, 0).tolist())
    elif kind in ("MatMul", "Gemm"):
        _keep_rows(graph, node, name, kept)
    elif kind in REDUCTIONS or kind == "Normalizer":
        if kind == "Normalizer":
            narrow[output] = (kept, width)
        else:
            _must_be_over_columns(graph, node)
    elif (chosen := picked_by(graph, node, name)) is not None:
        stays = np.flatnonzero(np.isin(chosen, kept))
        places = np.searchsorted(kept, chosen[stays])
        graph.set_input(node, 1, places.astype(np.int64))
        narrow[output] = (stays, len(chosen))
    elif kind in PER_COLUMN:
        for attribute_name in PER_COLUMN[kind]:
            values = attribute(node, attribute_name)
            if values is not None and len(values) == width:
                set_attribute(node, attribute_name, [values[i] for i in kept.tolist()])
        narrow[output] = (kept, width)
    elif keeps_shape(graph, node, width):
        graph.set_input(node, 1, np.asarray([-1, len(kept)], dtype=np.int64))
        narrow[output] = (kept, width)
    elif kind in ELEMENTWISE:
        _keep_constants(graph, node, narrow, kept, width)
        narrow[output] = (kept, width)
    else:
        raise UnsupportedError(f"columns cannot be followed through {kind}")


def _equal_columns(found: Sequence[tuple[Array, int]]) -> bool:
    return all(np.array_equal(kept, found[0][0]) for kept, _ in found)


def _concatenated(
    graph: Graph, node: onnx.NodeProto, mine: dict[str, tuple[Array, int]]
) -> tuple[Array, int]:
    found, start = [], 0
    for name in node.input:
        width = mine[name][1] if name in mine else graph.widths.get(name)
        if width is None:
            raise UnsupportedError(f"columns of {name!r} are not known")
        found.append(start + (mine[name][0] if name in mine else np.arange(width)))
        start += width
    return np.concatenate(found), start


def _keep_rows(graph: Graph, node: onnx.NodeProto, name: str, kept: Array) -> None:
    weight = graph.constant(node.input[1]) if node.input[0] == name else None
    if weight is None or weight.ndim != 2 or attribute(node, "transA"):
        raise UnsupportedError(f"columns cannot be followed through {node.op_type}")
    graph.set_input(node, 1, weight[:, kept] if attribute(node, "transB") else weight[kept])


def _must_be_over_columns(graph: Graph, node: onnx.NodeProto) -> None:
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1:
        found = graph.constant(node.input[1])
        axes = None if found is None else found.tolist()
    if axes not in ([1], [-1]):
        raise UnsupportedError(f"columns cannot be followed through {node.op_type} of {axes}")


def _keep_constants(
    graph: Graph,
    node: onnx.NodeProto,
    narrow: dict[str, tuple[Array, int]],
    kept: Array,
    width: int,
) -> None:
    for place, name in enumerate(node.input):
        if not name or name in narrow:
            continue
        value = graph.constant(name)
        if value is None:
            if graph.widths.get(name) != 1 or width == 1:
                raise UnsupportedError(f"columns cannot be followed through {node.op_type}")
        elif value.ndim and value.shape[-1] == width > 1:
            graph.set_input(node, place, value[..., kept])
