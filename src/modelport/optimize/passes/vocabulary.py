"""Fewer terms of a text model: those with the most weight, with weights that make up for the rest.

The weights are refitted to the original's own scores on the calibration rows, so no label is
needed. Several sizes are proposed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import REDUCE, Progress, Subject, Variant
from modelport.optimize.classic.columns import Graph, weights_of
from modelport.optimize.classic.linear import Linear, linear_models, share_rows
from modelport.optimize.classic.part import part
from modelport.optimize.classic.ridge import closeness, refitted
from modelport.optimize.classic.seen import seen
from modelport.optimize.classic.slicing import keep
from modelport.optimize.classic.terms import OPERATOR, grams_of, keep_terms
from modelport.optimize.classic.widths import widths_of
from modelport.optimize.onnx_graph import operators, parse, serialize
from modelport.optimize.session import Probe, batches

#: Shares of the terms that are kept.
_SHARES: Final = (0.25, 0.1, 0.04, 0.02, 0.012)
_FEWEST_TERMS: Final = 50
_MOST_ROWS: Final = 2000
_BATCH: Final = 16


@dataclass(frozen=True, eq=False)
class _Former:
    """A linear model of the original, and its scores for the calibration rows."""

    linear: Linear
    scores: Array


class VocabularyPass:
    """See the module."""

    name = "vocabulary"
    order = REDUCE
    tolerance = float("inf")

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        model = parse(subject.variant.model)
        if OPERATOR not in operators(model):
            return "no vocabulary of terms"
        try:
            for node in _vectorizers(model):
                grams_of(node)
        except UnsupportedError as error:
            return error.line
        return ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        model = parse(subject.variant.model)
        rows = {name: array[:_MOST_ROWS] for name, array in subject.rows.items()}
        widths = widths_of(model, rows)
        weights = _weights(Graph(model, dict(widths)))
        total = sum(len(array) for array in weights)
        former = _former(model, widths, rows)
        report(f"  {total:,} terms; {len(former)} linear models on them")
        if int(_SHARES[0] * total) < _FEWEST_TERMS:
            raise UnsupportedError(f"{total:,} terms are few already")
        for count in [int(share * total) for share in _SHARES]:
            if count < _FEWEST_TERMS or time.monotonic() > subject.deadline:
                return
            graph = _pruned(model, widths, weights, count)
            yield subject.variant.then(
                f"vocabulary, {count:,} terms", _refitted(graph, former, rows),
                terms=count, of=total,
            )  # fmt: skip


def _vectorizers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == OPERATOR]


def _weights(graph: Graph) -> list[Array]:
    """How much each term of each vectorizer weighs."""
    found = []
    for node in _vectorizers(graph.model):
        if node.output[0] not in graph.widths:
            raise UnsupportedError("its terms make no matrix of a row for each text")
        weights = weights_of(graph, node.output[0], count_sums=False)
        if np.isinf(weights).any():
            raise UnsupportedError("its terms go into something else than a linear model")
        found.append(weights)
    return found


def _former(model: onnx.ModelProto, widths: dict[str, int], rows: Tensors) -> list[_Former]:
    """The linear models, with what they make of the rows."""
    linears = linear_models(Graph(model, dict(widths)))
    names = [linear.matrix for linear in linears]
    probe = Probe(part(model, names), names, optimize=True)
    scores: list[list[Array]] = [[] for _ in linears]
    for some in batches(model, rows, _BATCH):
        found = probe.run(some, names)
        for linear, mine in zip(linears, scores, strict=True):
            mine.append(found[linear.matrix] @ linear.weights.T + linear.intercepts)
    return [_Former(one, np.concatenate(mine)) for one, mine in zip(linears, scores, strict=True)]


def _pruned(
    model: onnx.ModelProto, widths: dict[str, int], weights: Sequence[Array], count: int
) -> Graph:
    """With the terms of the most weight; equal weights: the ones that come first."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy, dict(widths))
    everything = np.concatenate(weights)
    chosen = np.zeros(len(everything), dtype=bool)
    chosen[np.argsort(-everything, kind="stable")[:count]] = True
    cuts = np.cumsum([len(array) for array in weights])[:-1]
    for node, mine in zip(_vectorizers(copy), np.split(chosen, cuts), strict=True):
        kept = np.flatnonzero(mine)
        if not len(kept):
            kept = np.zeros(1, dtype=np.int64)
        keep(graph, node.output[0], kept)
        keep_terms(graph, node, kept)
    graph.tidied()
    return graph


def _refitted(graph: Graph, former: Sequence[_Former], rows: Tensors) -> bytes:
    linears = linear_models(graph)
    for linear, before in zip(linears, former, strict=True):
        matrix = seen(graph.model, rows, [linear.matrix])[linear.matrix]
        weights, intercepts = refitted(
            matrix, before.scores[: len(matrix)], linear.weights, linear.intercepts,
            closeness(before.scores[: len(matrix)]) if linear.decides else None,
        )  # fmt: skip
        linear.write(graph, weights, intercepts)
    share_rows(graph)
    return serialize(graph.tidied())
