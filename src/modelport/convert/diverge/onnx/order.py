"""Classes that stand in another order than the source model's."""

from __future__ import annotations

from collections.abc import Mapping

from modelport.convert.diverge.base import Case, Divergence
from modelport.convert.diverge.onnx.compare import agree, worst
from modelport.convert.diverge.onnx.graph import Graph
from modelport.core.compare import Tolerance
from modelport.core.tensors import Array


def find_order(case: Case, graph: Graph, actual: Mapping[str, Array]) -> Divergence | None:
    """Classes that stand in another order."""
    for name, value in case.expected.items():
        seen = actual.get(name)
        if seen is None or seen.shape != value.shape or agree(value, seen, case.tolerance):
            continue
        node = graph.label(graph.maker[name]) if name in graph.maker else ""
        at = worst(value, seen, case.tolerance)
        found = ""
        if value.dtype.kind == "f" and value.ndim == 2:
            order = _column_order(value, seen, case.tolerance)
            if order is not None:
                found = f"column i of {name} is the export's column {order}[i]"
        elif value.dtype.kind in "iOUS" and value.ndim == 1:
            pairs = _label_order(value, seen)
            if pairs is not None:
                listed = ", ".join(f"{a} for {b}" for a, b in sorted(pairs.items())[:10])
                found = f"the export says {listed}"
        if found:
            return Divergence(
                "order",
                f"the classes stand in another order: {found}",
                "export with the classes in the order of the source model's classes_",
                node, name, "", "", at.position, at.expected, at.actual, proven=True,
            )  # fmt: skip
    return None


def _column_order(value: Array, seen: Array, tolerance: Tolerance) -> list[int] | None:
    order: list[int] = []
    for column in range(value.shape[1]):
        same = [
            other
            for other in range(value.shape[1])
            if other not in order and agree(value[:, column], seen[:, other], tolerance)
        ]
        if not same:
            return None
        order.append(same[0])
    return order if order != sorted(order) else None


def _label_order(value: Array, seen: Array) -> dict[str, str] | None:
    """What stands for what, where that is one to one and there are several."""
    pairs: dict[str, str] = {}
    for right, wrong in zip(value, seen, strict=True):
        if pairs.setdefault(str(wrong), str(right)) != str(right):
            return None
    several = len(pairs) > 1 and len(set(pairs.values())) == len(pairs)
    return pairs if several and set(pairs) & set(pairs.values()) else None
