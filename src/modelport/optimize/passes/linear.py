"""Linear models and support vector machines: equal things once, then fewer columns and vectors.

Columns of little weight and vectors that say little are dropped in several sizes; what is left is
refitted to the original's own scores on the calibration rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import REDUCE, Progress, Subject, Variant
from modelport.optimize.classic import support
from modelport.optimize.classic.columns import LINEAR, Graph
from modelport.optimize.classic.dead import without_dead_columns
from modelport.optimize.classic.fewer_vectors import enough, representatives, shrunk
from modelport.optimize.classic.linear import Linear, linear_models, share_rows
from modelport.optimize.classic.ridge import closeness, refitted
from modelport.optimize.classic.seen import seen
from modelport.optimize.classic.widths import widths_of
from modelport.optimize.onnx_graph import operators, parse, serialize

#: Shares of columns, and of vectors.
_COLUMNS: Final = (0.5, 0.25, 0.1)
_VECTORS: Final = (0.5, 0.25, 0.1, 0.05)
_FEWEST_COLUMNS: Final = 64
_FEWEST_VECTORS: Final = 20
_MOST_ROWS: Final = 2000


class LinearPass:
    """See the module."""

    name = "linear"
    order = REDUCE
    tolerance = float("inf")

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        found = operators(parse(subject.variant.model))
        if found & set(support.OPERATORS):
            return ""
        if not found & LINEAR:
            return "no linear model and no support vector machine"
        return "the vocabulary pass drops its columns" if "TfIdfVectorizer" in found else ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        model = parse(subject.variant.model)
        rows = {name: array[:_MOST_ROWS] for name, array in subject.rows.items()}
        widths = widths_of(model, rows)
        made = {subject.variant.model}
        same = _same(model, widths)
        if len(same) < len(subject.variant.model):
            made.add(same)
            yield subject.variant.then("linear, same answers", same)
        for name, content in _smaller(model, widths, rows, subject.deadline, report):
            if len(content) < len(same) and content not in made:
                made.add(content)
                yield subject.variant.then(f"linear, {name}", content)
        if len(made) == 1:
            raise UnsupportedError(
                f"nothing to leave out: fewer than {_FEWEST_COLUMNS} columns or "
                f"{_FEWEST_VECTORS} vectors, or too few rows to fit the others to"
            )


def _machines(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in support.OPERATORS]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _same(model: onnx.ModelProto, widths: dict[str, int]) -> bytes:
    """With equal vectors once, and one row of weights for two labels."""
    graph = Graph(_copy(model), dict(widths))
    share_rows(graph)
    for node in _machines(graph.model):
        support.write(node, support.merged(support.read(node)))
    return serialize(graph.tidied())


def _smaller(
    model: onnx.ModelProto, widths: dict[str, int], rows: Tensors, deadline: float,
    report: Progress,
) -> Iterator[tuple[str, bytes]]:  # fmt: skip
    if _machines(model):
        yield from _with_fewer_vectors(model, rows, deadline, report)
    wide = [one for one in _linears(Graph(model, widths)) if _is_wide(one)]
    if not wide:
        return
    names = [one.matrix for one in wide]
    matrices = seen(model, rows, names)
    weights = [_weight(one, matrices[one.matrix]) for one in wide]
    scores = [matrices[one.matrix] @ one.weights.T + one.intercepts for one in wide]
    for share in _COLUMNS:
        if time.monotonic() > deadline:
            return
        graph = Graph(_copy(model), dict(widths))
        for one, weight in zip(filter(_is_wide, _linears(graph)), weights, strict=True):
            kept = weight >= np.quantile(weight, 1 - share)
            one.write(graph, one.weights * kept, one.intercepts)
        without_dead_columns(graph)
        yield f"{share:.0%} of the columns", _refitted(graph, wide, scores, rows)


def _linears(graph: Graph) -> list[Linear]:
    return [one for one in linear_models(graph) if one.node.op_type in LINEAR]


def _is_wide(linear: Linear) -> bool:
    return bool(linear.weights.shape[1] >= _FEWEST_COLUMNS)


def _weight(linear: Linear, matrix: Array) -> Array:
    """How much a column moves the scores apart from each other."""
    spread = np.abs(linear.weights - linear.weights.mean(axis=0)).max(axis=0)
    if len(linear.weights) == 1:
        spread = np.abs(linear.weights[0])
    return np.asarray(spread * matrix.std(axis=0))


def _refitted(graph: Graph, wide: list[Linear], scores: list[Array], rows: Tensors) -> bytes:
    """With new weights for the columns that are left."""
    outputs = {one.node.output[0]: mine for one, mine in zip(wide, scores, strict=True)}
    left = [one for one in _linears(graph) if one.node.output[0] in outputs]
    matrices = seen(graph.model, rows, [one.matrix for one in left])
    for one in left:
        wanted = outputs[one.node.output[0]]
        matrix = matrices[one.matrix][: len(wanted)]
        wanted = wanted[: len(matrix)]
        kept = (one.weights != 0).any(axis=0)
        weights, intercepts = refitted(
            matrix[:, kept], wanted, one.weights[:, kept], one.intercepts,
            closeness(wanted) if one.decides else None,
        )  # fmt: skip
        full = one.weights.copy()
        full[:, kept] = weights
        one.write(graph, full, intercepts)
    share_rows(graph)
    return serialize(graph.tidied())


def _with_fewer_vectors(
    model: onnx.ModelProto, rows: Tensors, deadline: float, report: Progress
) -> Iterator[tuple[str, bytes]]:
    nodes = _machines(model)
    before = [support.merged(support.read(node)) for node in nodes]
    count = len(next(iter(rows.values())))
    total = sum(len(one.vectors) for one in before)
    if not enough(count) or total < _FEWEST_VECTORS:
        return
    report(f"  {total:,} support vectors, equal ones counted once")
    matrices = seen(model, rows, [node.input[0] for node in nodes])
    matrix = [matrices[node.input[0]].astype(np.float64) for node in nodes]
    wanted = [one.decisions(part) for one, part in zip(before, matrix, strict=True)]
    orders = [representatives(one) for one in before]
    for share in _VECTORS:
        if time.monotonic() > deadline:
            return
        copy = _copy(model)
        left = 0
        for place, node in enumerate(_machines(copy)):
            machine = before[place]
            most = max(int(share * len(machine.vectors)), int(machine.classes[-1]) + 1)
            part = shrunk(machine, orders[place][:most], matrix[place], wanted[place])
            left += len(part.vectors)
            support.write(node, part)
        yield f"{left:,} of {total:,} vectors", serialize(copy)
