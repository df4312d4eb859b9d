"""Finds where an ONNX export parts from its source model."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
from onnx.inliner import inline_local_functions

from modelport.convert.diverge.base import Case, Divergence
from modelport.convert.diverge.onnx.compare import agree, short, worst
from modelport.convert.diverge.onnx.graph import Graph
from modelport.convert.diverge.onnx.meaning import find_meaning
from modelport.convert.diverge.onnx.order import find_order
from modelport.convert.diverge.onnx.precision import find_departure, largest_term
from modelport.convert.diverge.onnx.reference import Reference, rows_that_fit
from modelport.convert.diverge.onnx.rounding import WeightRounding
from modelport.convert.diverge.onnx.running import (
    answers_agree,
    failing_node,
    find_frozen,
    find_mixing,
    find_optimization,
    find_random,
    find_source_batch,
    find_training,
    first_rows,
)
from modelport.convert.diverge.onnx.wide import in_float64
from modelport.core.compare import compare
from modelport.core.errors import EngineError
from modelport.core.rows import Rows
from modelport.core.tensors import Array, Tensors

#: Noise of less than this part of a difference does not explain it.
_NOISE: Final = 0.01
_SCALE: Final = "scale the features before training (StandardScaler): float32 keeps 7 digits"


class OnnxInspector:
    """Looks into ONNX graphs, from the cheapest question to the dearest."""

    def find(self, case: Case) -> Divergence | None:
        """See `modelport.convert.diverge.base.Inspector.find`."""
        # Tensors on the way may hold anything: NaN, overflows, nothing at all.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return self._find(case)

    def _find(self, case: Case) -> Divergence | None:
        model = inline_local_functions(onnx.load_model_from_string(case.export.model))
        graph = Graph(model)
        found = find_training(case, graph)
        if found is not None:
            return found
        try:
            observed = graph.observe(case.inputs)
        except EngineError as error:
            return find_frozen(case, graph, failed=True) or _failure(graph, error)
        actual = {name: observed[name] for name in graph.outputs}
        return (
            find_random(case, graph, observed)
            or find_optimization(case, graph, observed)
            or find_source_batch(case)
            or find_frozen(case, graph, failed=False)
            or find_order(case, graph, actual)
            or self._inside(case, graph, observed)
        )

    def _inside(self, case: Case, graph: Graph, observed: Tensors) -> Divergence | None:
        """In the numbers, or in what they mean."""
        batched = case.export.signature.batch_symbol is not None
        rows = len(case.seen)
        fit = rows_that_fit(graph, observed, rows)
        if not batched:
            fit = rows if fit >= rows else 0
        if 0 < fit < rows:
            case = _few(case, fit)
            observed = graph.observe(case.inputs)
        reference = Reference(graph, observed, case.inputs) if fit else None
        if reference is not None:
            found = _rounding(case, graph, observed, reference)
            if found is not None:
                return found
        if batched and len(case.seen) > 1:
            one = first_rows(case.inputs, 1)
            alone = graph.observe(one)
            runs: list[tuple[Tensors, Tensors]] = [(observed, alone)]
            if reference is not None:
                runs.append((reference.values, Reference(graph, alone, one).values))
            mixing = find_mixing(case, graph, runs)
            if mixing is not None:
                return mixing
        return find_meaning(case, graph, observed)


def _rounding(
    case: Case, graph: Graph, observed: Tensors, reference: Reference
) -> Divergence | None:
    """Whether the graph means the same, and float32 is the difference."""
    if answers_agree(case, _outputs(reference, case)):
        return _precision(case, graph, observed, reference, rounded=False)
    if case.wide:
        wide = Reference(graph, observed, case.wide)
        if answers_agree(case, _outputs(wide, case)):
            return _precision(case, graph, observed, wide, rounded=True)
    if not _noisy(case, observed, reference):
        return None
    rounding = WeightRounding(graph, observed, case.inputs, reference)
    if not all(rounding.explains(n, value, case.tolerance) for n, value in case.expected.items()):
        return None
    first = rounding.first(graph, case.tolerance)
    if first is None:
        return None
    node, tensor = first
    position = tuple(
        int(i)
        for i in np.unravel_index(
            int(rounding.spread(tensor).argmax()), reference.values[tensor].shape
        )
    )
    moved = short(rounding.spread(tensor)[position])
    largest = largest_term(node, position, reference)
    terms = f": the sum has terms as large as {short(np.float64(largest))}" if largest else ""
    output, at = next(
        (name, worst(value, observed[name], case.tolerance))
        for name, value in case.expected.items()
        if not agree(value, observed[name], case.tolerance)
    )
    return Divergence(
        "precision",
        f"the weights are rounded to float32, which moves {tensor} by up to {moved}{terms}",
        _SCALE, graph.label(node), output, "", "", at.position, at.expected, at.actual,
    )  # fmt: skip


def _noisy(case: Case, observed: Tensors, reference: Reference) -> bool:
    """Whether float32 arithmetic alone moves the answers by about as much as they differ.

    Where it does not, the rounding of the weights does not either. Labels do not tell.
    """
    floats = [n for n, a in case.expected.items() if a.dtype.kind == "f" and n in reference.values]
    for name in floats:
        exact = reference.values[name]
        if exact.shape != case.expected[name].shape:
            return False
        noise = np.abs(observed[name] - exact).max(initial=0.0)
        if noise < _NOISE * np.abs(case.expected[name] - exact).max(initial=0.0):
            return False
    return True


def _few(case: Case, count: int) -> Case:
    return replace(
        case,
        inputs=first_rows(case.inputs, count),
        seen=Rows(first_rows(case.seen.columns, count), case.seen.where),
        expected=first_rows(case.expected, count),
        wide=first_rows(case.wide, count),
    )


def _outputs(reference: Reference, case: Case) -> dict[str, Array]:
    return {n: reference.values[n] for n in case.expected if n in reference.values}


def _precision(
    case: Case, graph: Graph, observed: Tensors, reference: Reference, *, rounded: bool
) -> Divergence | None:
    actual = {name: observed[name] for name in graph.outputs}
    apart = [o.name for o in compare(case.expected, actual, case.tolerance) if not o.agrees]
    if not apart:
        return None
    departure = find_departure(graph, observed, reference, apart, case.tolerance)
    if departure is None:
        return None
    cause = departure.cause
    if rounded:
        cause = f"the inputs are rounded to float32, and that counts here: {cause}"
    return Divergence(
        "precision", cause, _SCALE, graph.label(departure.node), departure.tensor, "", "",
        departure.position, departure.expected, departure.actual, proven=True,
        repaired=None if rounded else in_float64(graph.model), repair="in float64",
    )  # fmt: skip


def _failure(graph: Graph, error: EngineError) -> Divergence | None:
    node = failing_node(graph, error)
    if node is None:
        return None
    return Divergence(
        "failure",
        f"{node.op_type} fails on rows that the source model answers",
        "look at the shapes and values that this node takes, or try another exporter",
        graph.label(node), node.output[0], proven=True,
    )  # fmt: skip
