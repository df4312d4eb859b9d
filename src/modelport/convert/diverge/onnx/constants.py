"""Which constant of a graph is wrong, told from the difference that it makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from modelport.convert.diverge.onnx.compare import agree, constant_over_rows, short
from modelport.convert.diverge.onnx.graph import Graph
from modelport.core.compare import Tolerance
from modelport.core.tensors import Array


def in_few_channels(value: Array, actual: Array, tolerance: Tolerance) -> bool:
    """Whether most channels agree: what comes before the last product would spoil them all."""
    if value.ndim < 2 or value.shape[1] < 2:
        return False
    right = [agree(value[:, [c]], actual[:, [c]], tolerance) for c in range(value.shape[1])]
    return sum(right) * 2 > len(right)


def special_values(value: Array, actual: Array) -> str:
    """What happened to NaN on the way, in words; empty where nothing did."""
    if np.isnan(value).any() and not np.isnan(actual).any():
        return "NaN is answered with a number here, and goes through the source model"
    if np.isnan(actual).any() and not np.isnan(value).any():
        return "NaN appears here, and the source model replaces it, or never makes it"
    return ""


def wrong_constant(
    graph: Graph, nodes: Sequence[onnx.NodeProto], value: Array, actual: Array
) -> tuple[onnx.NodeProto | None, str]:
    """A difference that is the same in all rows is a term; a ratio is a factor."""
    offset = value - actual
    with np.errstate(all="ignore"):
        ratio = value / actual - 1.0
    typical = np.nanmedian(np.where(np.isfinite(ratio), ratio, np.nan), axis=0, keepdims=True)
    # Where both are zero any factor is right.
    ratio = np.where((actual == 0) & (value == 0), np.nan_to_num(typical), ratio)
    for kinds, apart, inverse in (
        (("Add", "Sub", "Gemm", "Conv"), offset, False),
        (("Mul", "Div"), ratio, True),
    ):
        if not constant_over_rows(apart):
            continue
        for node in reversed(nodes):
            if node.op_type not in kinds:
                continue
            for name, constant in weights_of(graph, node)[-1:]:
                text = _element(node, name, constant, apart[0], factor=inverse)
                if text:
                    return node, text
    return None, ""


def _element(
    node: onnx.NodeProto, name: str, constant: Array, apart: Array, *, factor: bool
) -> str:
    """Which element of a constant is wrong, and what it would have to be."""
    flat = constant.astype(np.float64).reshape(-1)
    if constant.size == 1:
        change = apart.reshape(-1)[:1]
    elif constant.size == apart.size:
        change = apart.reshape(-1)
    elif constant.size == len(apart):  # a channel of an image
        change = apart.reshape(len(apart), -1).mean(axis=1)
    else:
        return ""
    if factor:
        right = flat / (1 + change) if node.op_type == "Div" else flat * (1 + change)
    else:
        first = bool(node.input) and node.input[0] == name
        right = flat - change if node.op_type == "Sub" and not first else flat + change
    wrong = int(np.argmax(np.abs(right - flat)))
    many = int((np.abs(right - flat) > 1e-3 * np.abs(right - flat).max()).sum())
    start = (
        f"a constant is wrong: element {wrong} of {name}"
        if constant.size > 1
        else (f"a constant is wrong: {name}")
    )
    more = f", and {many - 1} more elements" if many > 1 else ""
    # The source model's value follows from the difference, and carries its rounding.
    wanted = float(f"{right[wrong]:.4g}")
    return f"{start} is {short(np.float32(flat[wrong]))} and would have to be {wanted:g}{more}"


def weights_of(graph: Graph, node: onnx.NodeProto) -> list[tuple[str, Array]]:
    """A node's floating-point constants, by name."""
    return [
        (name, graph.constants[name])
        for name in node.input
        if name in graph.constants and graph.constants[name].dtype.kind == "f"
    ]
