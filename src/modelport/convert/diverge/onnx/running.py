"""Differences that lie in how a graph is run: training mode, random numbers, fusions, batches."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Final

import onnx

from modelport.convert.diverge.base import Case, Divergence
from modelport.convert.diverge.onnx.compare import Worst, agree, worst
from modelport.convert.diverge.onnx.graph import RANDOM, Graph
from modelport.convert.diverge.onnx.variants import variants
from modelport.core.compare import compare
from modelport.core.errors import EngineError, InputError, ModelportError
from modelport.core.rows import Rows
from modelport.core.tensors import Array, Tensors

_RESHAPING: Final = ("Reshape", "Expand")
_FAILED: Final = re.compile(r"running (\w+) node\. Name:'([^']*)'")
_EVALUATE: Final = (
    "put the model into evaluation mode before exporting: model.eval(), training=False"
)
_DYNAMIC: Final = (
    "export with a dynamic batch dimension: dynamic_shapes, dynamic_axes, input_signature"
)


def answers_agree(case: Case, actual: Tensors) -> bool:
    """Whether these are the source model's answers."""
    return all(output.agrees for output in compare(case.expected, actual, case.tolerance))


def find_training(case: Case, graph: Graph) -> Divergence | None:
    """Layers that were exported in training mode, when the answers agree without."""
    model = copy.deepcopy(graph.model)
    first: onnx.NodeProto | None = None
    cause = ""
    for node in model.graph.node:
        if node.op_type not in ("BatchNormalization", "Dropout"):
            continue
        variant = next(iter(variants(node, graph.constants)), None)
        if variant is not None and "training mode" in variant.cause:
            if first is None:
                first, cause = copy.deepcopy(node), variant.cause
            node.CopyFrom(variant.node)
    if first is None:
        return None
    repaired = Graph(model)
    try:
        proven = answers_agree(case, repaired.load(optimize=True).run(case.inputs))
    except ModelportError:
        proven = False
    tensor, at = first.output[0], None
    if proven:
        at = _values_around(graph, repaired, tensor, case)
    return Divergence(
        "training", cause, _EVALUATE, graph.label(first), tensor,
        position=at.position if at else (),
        expected=at.expected if at else "",
        actual=at.actual if at else "",
        proven=proven,
        repaired=bytes(model.SerializeToString(deterministic=True)) if proven else None,
        repair="in evaluation mode",
    )  # fmt: skip


def _values_around(graph: Graph, repaired: Graph, tensor: str, case: Case) -> Worst | None:
    try:
        before = graph.load(optimize=False, expose=[tensor]).run(case.inputs)[tensor]
        after = repaired.load(optimize=False, expose=[tensor]).run(case.inputs)[tensor]
    except ModelportError:
        return None
    return worst(after, before, case.tolerance)


def find_random(case: Case, graph: Graph, observed: Tensors) -> Divergence | None:
    """The first node that answers otherwise when it is asked again."""
    again = graph.observe(case.inputs)
    for node in graph.nodes:
        for tensor in node.output:
            if tensor not in observed or tensor not in again:
                continue
            before, after = observed[tensor], again[tensor]
            if before.shape == after.shape and agree(before, after, case.tolerance):
                continue
            draws = node.op_type in RANDOM
            return Divergence(
                "random",
                "the graph draws random numbers" if draws else (
                    f"{node.op_type} gives another answer each time"
                ),
                _EVALUATE,
                graph.label(node), tensor, proven=True,
            )  # fmt: skip
    return None


def find_optimization(case: Case, graph: Graph, observed: Tensors) -> Divergence | None:
    """The first node that ONNX Runtime's graph optimizations change.

    A tensor that is made an output is not optimized away: what comes before it is optimized as
    ever. So the first tensor that differs is found by bisection.
    """
    plain = {name: observed[name] for name in graph.outputs}
    optimized = graph.load(optimize=True).run(case.inputs)
    if not answers_agree(case, plain) or answers_agree(case, optimized):
        return None
    differing = next(
        name for name in graph.outputs
        if not agree(plain[name], optimized[name], case.tolerance)
    )  # fmt: skip
    wanted = [*graph.visible]
    wanted = [n for n in wanted if n in graph.depends[differing] or n == differing]

    def value(name: str) -> Array:
        return graph.load(optimize=True, expose=[name]).run(case.inputs)[name]

    low, high = 0, len(wanted) - 1
    while low < high:
        middle = (low + high) // 2
        if agree(observed[wanted[middle]], value(wanted[middle]), case.tolerance):
            low = middle + 1
        else:
            high = middle
    tensor = wanted[high]
    at = worst(observed[tensor], value(tensor), case.tolerance)
    return Divergence(
        "optimization",
        "ONNX Runtime's graph optimizations change the answer; run node by node, the export gives "
        "the source model's answers",
        "upgrade or downgrade onnxruntime, or export with another opset",
        graph.label(graph.maker[tensor]), tensor, "", "",
        at.position, at.expected, at.actual, proven=True,
    )  # fmt: skip


def find_source_batch(case: Case) -> Divergence | None:
    """Whether the source model itself answers a row otherwise when others stand beside it."""
    if len(case.seen) < 2 or case.export.signature.batch_symbol is None:
        return None
    try:
        together = {n: a[:1] for n, a in case.source.predict(case.seen).items()}
        alone = case.source.predict(_row(case.seen, 0))
    except InputError:
        return None
    apart = [o for o in compare(together, alone, case.tolerance) if not o.agrees]
    if not apart:
        return None
    return Divergence(
        "source",
        "the source model itself answers a row otherwise when other rows stand beside it: it is "
        "in training mode, or normalizes over the batch",
        _EVALUATE,
        tensor=apart[0].name,
        position=apart[0].worst,
        expected=apart[0].expected,
        actual=apart[0].actual,
        proven=True,
    )


def find_frozen(case: Case, graph: Graph, *, failed: bool) -> Divergence | None:
    """The first node whose output keeps its size while the batch grows.

    Parameters
    ----------
    failed : bool
        Whether the graph fails on the rows.
    """
    count = len(next(iter(case.inputs.values())))
    if count < 2 or case.export.signature.batch_symbol is None:
        return None
    whole, alone = (_observe_as_far(graph, first_rows(case.inputs, size)) for size in (count, 1))
    for node in graph.nodes:
        for tensor in node.output:
            if tensor not in whole or tensor not in alone:
                continue
            same = whole[tensor].shape == alone[tensor].shape
            if (same and _follows(node, whole, alone)) or (
                failed and _begins_with_a_constant(graph, node, whole, alone)
            ):
                return _frozen(graph, node, tensor, whole[tensor])
    return None


def _begins_with_a_constant(
    graph: Graph, node: onnx.NodeProto, whole: Tensors, alone: Tensors
) -> bool:
    """Whether it gives rows a constant number, such as a Reshape to [4, -1]."""
    if node.op_type not in _RESHAPING or node.input[1] not in graph.constants:
        return False
    shape = graph.constants[node.input[1]].reshape(-1)
    rows = node.input[0]
    if not shape.size or shape[0] <= 0 or rows not in whole or rows not in alone:
        return False
    return len(whole[rows].shape) > 0 and whole[rows].shape[:1] != alone[rows].shape[:1]


def find_mixing(
    case: Case, graph: Graph, runs: Sequence[tuple[Tensors, Tensors]]
) -> Divergence | None:
    """The first node that answers a row otherwise when others stand beside it.

    Parameters
    ----------
    runs : sequence of (mapping, mapping)
        Every tensor for all rows and for the first one: by the engine, and without rounding. What
        only one of them mixes is rounding, or the reference implementation's mistake.
    """
    (whole, alone), *_ = runs
    for node in graph.nodes:
        for tensor in node.output:
            if tensor not in graph.depends or tensor not in whole or tensor not in alone:
                continue
            known = [(a[tensor], b[tensor]) for a, b in runs if tensor in a and tensor in b]
            if not all(_mixes(*values, case) for values in known):
                continue
            at = worst(alone[tensor], whole[tensor][:1], case.tolerance)
            return Divergence(
                "batch",
                f"{node.op_type} mixes the rows of a batch: row 0 has another value alone "
                f"than among {len(case.seen)} rows",
                "take the mean, maximum or softmax over another axis than the batch",
                graph.label(node), tensor, "", "",
                at.position, at.expected, at.actual, proven=True,
            )  # fmt: skip
    return None


def _follows(node: onnx.NodeProto, whole: Tensors, alone: Tensors) -> bool:
    """Whether an input of the node grows with the batch, and its output should."""
    if node.op_type in ("Shape", "Size", "NonZero"):
        return False
    return any(
        name in whole and name in alone and whole[name].shape != alone[name].shape
        for name in node.input
    )


def _frozen(graph: Graph, node: onnx.NodeProto, tensor: str, value: Array) -> Divergence:
    shape = [graph.constants[n] for n in node.input[1:] if n in graph.constants]
    told = (
        f"the shape {[int(d) for d in shape[0].reshape(-1)]} is a constant"
        if shape and shape[0].dtype.kind == "i" and node.op_type in _RESHAPING
        else f"{tensor} is {list(value.shape)} in batches of every size"
    )
    batch = int(value.shape[0]) if value.ndim else 1
    return Divergence(
        "batch",
        f"the batch size is frozen: {node.op_type} was exported for batches of {batch}, {told}",
        _DYNAMIC,
        graph.label(node), tensor, proven=True,
    )  # fmt: skip


def _mixes(whole: Array, alone: Array, case: Case) -> bool:
    if not whole.ndim or len(whole) != len(case.seen) or alone.shape != (1, *whole.shape[1:]):
        return False
    return not agree(alone, whole[:1], case.tolerance)


def _observe_as_far(graph: Graph, inputs: Tensors) -> dict[str, Array]:
    """Every tensor, as far as the graph runs."""
    try:
        return graph.observe(inputs)
    except EngineError as error:
        failed = failing_node(graph, error)
    stop = next((i for i, n in enumerate(graph.nodes) if n is failed), 0)
    part = copy.deepcopy(graph.model)
    del part.graph.node[stop:]
    made = {name for node in part.graph.node for name in node.output}
    kept = [v for v in part.graph.output if v.name in made]
    del part.graph.output[:]
    visible = [name for name in Graph(part).visible if name in made]
    part.graph.output.extend(kept or [onnx.ValueInfoProto(name=n) for n in visible[:1]])
    if not part.graph.output:
        return dict(inputs)
    try:
        return Graph(part).observe(inputs)
    except EngineError:
        return dict(inputs)


def failing_node(graph: Graph, error: EngineError) -> onnx.NodeProto | None:
    """The node that ONNX Runtime's message names."""
    match = _FAILED.search(error.message)
    if match is None:
        return None
    kind, name = match.groups()
    same = [n for n in graph.nodes if n.op_type == kind and n.name in (name, "")]
    exact = [n for n in same if n.name == name]
    return next(iter(exact or same), None)


def first_rows(arrays: Tensors, count: int) -> dict[str, Array]:
    """The first `count` rows of every array."""
    return {name: array[:count] for name, array in arrays.items()}


def _row(rows: Rows, row: int) -> Rows:
    return Rows({name: array[[row]] for name, array in rows.columns.items()}, rows.where)
