"""The node at which float32 is not enough.

The graph is computed twice: as the engine does, and by ONNX's reference implementation in
float64. Where the graph's float64 answers are the source model's, the graph means the same, and
the first node whose outputs differ while its inputs agree is where the precision is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from modelport.convert.diverge.onnx.compare import agree, short, worst
from modelport.convert.diverge.onnx.graph import Graph, values_for
from modelport.convert.diverge.onnx.reference import Reference, widened
from modelport.core.compare import Tolerance
from modelport.core.tensors import Array, Tensors

_DECISIONS: Final = {
    "ArgMax", "ArgMin", "Binarizer", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual",
    "Less", "LessOrEqual", "Not", "Round", "Sign", "TopK", "TreeEnsemble",
    "TreeEnsembleClassifier", "TreeEnsembleRegressor",
}  # fmt: skip
_LINEAR: Final = {"MatMul": "B", "Gemm": "B"}
_FLOAT32_DIGITS: Final = 7


@dataclass(frozen=True)
class Departure:
    """The first node that departs, and how.

    Parameters
    ----------
    node : onnx.NodeProto
    tensor : str
    position : tuple of int
    expected, actual : str
        In float64, and as the engine computed it.
    cause : str
    """

    node: onnx.NodeProto
    tensor: str
    position: tuple[int, ...]
    expected: str
    actual: str
    cause: str


def find_departure(
    graph: Graph,
    observed: Tensors,
    reference: Reference,
    outputs: Sequence[str],
    tolerance: Tolerance,
) -> Departure | None:
    """The first node on the way to `outputs` that the engine computes otherwise than float64."""
    wanted = set(outputs).union(*(graph.depends.get(name, frozenset()) for name in outputs))
    departed: set[str] = set()
    for node in graph.nodes:
        for tensor in node.output:
            if tensor not in wanted or tensor not in observed or tensor not in reference.values:
                continue
            exact, seen = reference.values[tensor], observed[tensor]
            if tensor in reference.unknown or agree(exact, seen, tolerance):
                continue
            departed.add(tensor)
            if departed.intersection(node.input):
                continue
            if exact.shape != seen.shape:
                cause = f"the sizes differ: {list(exact.shape)} and {list(seen.shape)}"
                return Departure(node, tensor, (), "", "", cause)
            at = worst(exact, seen, tolerance)
            cause = _cause(graph, node, tensor, at.position, reference, observed)
            return Departure(node, tensor, at.position, at.expected, at.actual, cause)
    return None


def _cause(
    graph: Graph,
    node: onnx.NodeProto,
    tensor: str,
    position: tuple[int, ...],
    reference: Reference,
    observed: Tensors,
) -> str:
    exact = reference.values[tensor]
    if node.op_type in _DECISIONS:
        return _decision(node, reference, observed)
    if node.op_type in ("Add", "Sub", "Sum"):
        terms = [reference.values[name] for name in node.input if name in reference.values]
        largest = max(float(np.abs(term[np.isfinite(term)]).max(initial=0.0)) for term in terms)
        return _cancellation(largest, float(np.abs(exact[position])))
    terms_at = largest_term(node, position, reference)
    if terms_at is not None and terms_at > 10 * abs(float(exact[position])):
        return _cancellation(terms_at, float(np.abs(exact[position])))
    local = _in_float64_from_here(graph, node, tensor, observed)
    if (
        local is not None
        and local.shape == exact.shape
        and np.isclose(local[position], observed[tensor][position], rtol=1e-5, atol=0)
    ):
        return (
            f"{node.op_type} makes the rounding of its inputs larger: they agree to within the "
            "tolerance, and its output does not"
        )
    return f"{node.op_type} computed in float32 is too far from the same in float64"


def _cancellation(largest: float, result: float) -> str:
    return (
        f"cancellation: terms as large as {short(np.float64(largest))} leave "
        f"{short(np.float64(result))}, and float32 keeps {_FLOAT32_DIGITS} digits"
    )


def _decision(node: onnx.NodeProto, reference: Reference, observed: Tensors) -> str:
    for name in node.input:
        if name in observed and name in reference.values:
            exact, seen = reference.values[name], observed[name]
            if exact.dtype.kind != "f" or exact.shape != seen.shape:
                continue
            apart = widened(seen) != exact
            if apart.any():
                at = tuple(int(i) for i in np.argwhere(apart)[0])
                return (
                    f"{node.op_type} decides on a value that float32 rounds across the line: "
                    f"{float(exact[at])!r} becomes {float(seen[at])!r}"
                )
    return f"{node.op_type} decides on a value within float32's rounding of the line"


def largest_term(
    node: onnx.NodeProto, position: tuple[int, ...], reference: Reference
) -> float | None:
    """The largest term of the sum that makes one element of a product of matrices."""
    if node.op_type in _LINEAR and all(name in reference.values for name in node.input[:2]):
        left, right = (reference.values[name] for name in node.input[:2])
        if left.ndim == 2 and right.ndim == 2:
            flags = {a.name: a.i for a in node.attribute}
            left = left.T if flags.get("transA") else left
            right = right.T if flags.get("transB") else right
            if len(position) == 2:
                terms = np.abs(left[position[0]] * right[:, position[1]])
                return float(terms.max(initial=0.0))
    if node.op_type in ("LinearClassifier", "LinearRegressor") and node.input:
        rows = reference.values.get(node.input[0])
        weights = next((a.floats for a in node.attribute if a.name == "coefficients"), ())
        if rows is not None and rows.ndim == 2 and len(weights):
            matrix = np.asarray(weights, dtype=np.float64).reshape(-1, rows.shape[1])
            return float(np.abs(rows[position[0]] * matrix).max(initial=0.0))
    return None


def _in_float64_from_here(
    graph: Graph, node: onnx.NodeProto, tensor: str, observed: Tensors
) -> Array | None:
    """The node in float64, on what the engine gave it."""
    try:
        values = values_for(node, observed, graph.constants)
        made = graph.run_node(node, [None if v is None else widened(v) for v in values])
    except Exception:
        return None
    return np.asarray(made[[name for name in node.output if name].index(tensor)])
