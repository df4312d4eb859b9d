"""Columns that no weight and no split uses are not made any more; scalers move into what follows.

What clients send stays the same: an input that nothing uses is taken and left aside.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelport.core.errors import UnsupportedError
from modelport.optimize.base import REDUCE, Progress, Subject, Variant
from modelport.optimize.classic.columns import LINEAR, Graph
from modelport.optimize.classic.dead import without_dead_columns
from modelport.optimize.classic.ensemble import OPERATORS
from modelport.optimize.classic.linear import share_rows
from modelport.optimize.classic.scalers import fold_scalers
from modelport.optimize.classic.widths import widths_of
from modelport.optimize.onnx_graph import operators, parse, serialize

_PRODUCTS = frozenset({"MatMul", "Gemm"})
_WHAT_ENDS_COLUMNS = frozenset({*LINEAR, *OPERATORS, *_PRODUCTS})
_MAKES_COLUMNS = frozenset({"Scaler", "OneHotEncoder", "TfIdfVectorizer", "Imputer"})


class DeadFeaturesPass:
    """See the module."""

    name = "dead-features"
    order = REDUCE
    tolerance = 1e-4

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        found = operators(parse(subject.variant.model))
        if not found & _WHAT_ENDS_COLUMNS:
            return "no linear model and no trees"
        if found & {*LINEAR, *_MAKES_COLUMNS} or (found & set(OPERATORS) and found & _PRODUCTS):
            return ""
        return "no pipeline with columns"

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        model = parse(subject.variant.model)
        graph = Graph(model, widths_of(model, subject.rows))
        folded = fold_scalers(graph)
        gone = without_dead_columns(graph)
        shared = share_rows(graph)
        if not folded and not gone and not shared:
            raise UnsupportedError("no column can be left out, and no scaler stands before a model")
        dead = sum(gone.values())
        report(
            f"  {dead} columns are not used; {folded} scalers are folded; {shared} models of two "
            "labels need one row of weights"
        )
        yield subject.variant.then(
            "dead-features", serialize(graph.tidied()), columns=gone, scalers=folded, shared=shared
        )
