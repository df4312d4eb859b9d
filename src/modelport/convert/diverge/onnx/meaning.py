"""The node that means something else than the source model.

The source model's own intermediate answers, where its framework gives them, narrow the graph down
to the few nodes between the last layer that agrees and the first that does not. There every node
is replaced by what may have been meant; a replacement that gives the source model's values proves
the cause.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from modelport.convert.base import Inspectable
from modelport.convert.diverge.base import Case, Divergence
from modelport.convert.diverge.onnx.compare import agree, worst
from modelport.convert.diverge.onnx.constants import (
    in_few_channels,
    special_values,
    weights_of,
    wrong_constant,
)
from modelport.convert.diverge.onnx.graph import Graph, values_for
from modelport.convert.diverge.onnx.layers import (
    Parting,
    arrangements,
    find,
    find_parting,
    nearest,
)
from modelport.convert.diverge.onnx.reference import run_wide, widened, work_of
from modelport.convert.diverge.onnx.variants import Variant, variants
from modelport.core.tensors import Array

#: How much the replacements may cost, in multiplications.
_WORK: Final = 200_000_000
_MOST_VARIANTS: Final = 400
#: Tensors behind the last layer that agrees, of the size of the next one.
_CANDIDATES: Final = 6
_WEIGHED: Final = {
    "Add", "BatchNormalization", "Conv", "ConvTranspose", "Div", "Gemm", "LinearClassifier",
    "LinearRegressor", "MatMul", "Mul", "Scaler", "Sub",
}  # fmt: skip
_MIXING: Final = ("Conv", "Gemm", "MatMul")
_REMEDY: Final = "compare this layer with the export code; another exporter may do it right"


@dataclass(frozen=True)
class _Stretch:
    """The nodes among which the fault is.

    Parameters
    ----------
    nodes : list of onnx.NodeProto
        They compute `tensor` from what agrees.
    tensor : str
        What should have the layer's value.
    actual : ndarray
        Its value, arranged as the layer's.
    targets : list of (str, ndarray, list of str)
        The layer and those after it: name, value, and the tensors that may be it.
    agreed : set of str
        Tensors that have the source model's values.
    """

    nodes: list[onnx.NodeProto]
    tensor: str
    actual: Array
    targets: list[tuple[str, Array, list[str]]]
    agreed: set[str]


def find_meaning(case: Case, graph: Graph, observed: Mapping[str, Array]) -> Divergence | None:
    """Where the graph stops computing what the source model computes."""
    seen = {name: observed[name] for name in (*graph.inputs, *graph.visible) if name in observed}
    swapped = _swapped_outputs(case, graph, seen)
    if swapped is not None:
        return swapped
    parting = find_parting(_layers(case, observed), seen, case.tolerance)
    if parting is None:
        return None
    stretch = _stretch(parting, graph, seen, case)
    if stretch is None:
        return Divergence(
            "meaning",
            f"nothing in the graph has the size of layer {parting.layer}",
            _REMEDY,
            layer=parting.layer,
            after=parting.after,
        )
    known = {**graph.constants, **{name: widened(array) for name, array in observed.items()}}
    return _proven(case, graph, parting, stretch, known) or _guessed(case, graph, parting, stretch)


def _layers(case: Case, observed: Mapping[str, Array]) -> list[tuple[str, Array]]:
    layers: list[tuple[str, Array]] = []
    if isinstance(case.source, Inspectable):
        with contextlib.suppress(Exception):  # what came before it failed still tells
            layers.extend((n, np.asarray(a)) for n, a in case.source.layers(case.seen))
    layers = [(name, value) for name, value in layers if value.dtype.kind == "f"]
    for name, value in case.expected.items():
        if value.dtype.kind == "f" and not agree(value, observed[name], case.tolerance):
            layers.append((f"output {name}", value))
    return layers


def _swapped_outputs(case: Case, graph: Graph, seen: Mapping[str, Array]) -> Divergence | None:
    """An output that bears the value of another tensor of the graph."""
    for name, value in case.expected.items():
        if name not in seen or agree(value, seen[name], case.tolerance):
            continue
        other = find(value, {n: a for n, a in seen.items() if n != name}, case.tolerance)
        if other is not None and seen[other].shape == value.shape:
            at = worst(value, seen[name], case.tolerance)
            what = "output" if other in graph.outputs else "inner tensor"
            return Divergence(
                "meaning",
                f"the source model's {name} is {what} {other} of the graph",
                "export the outputs under the right names",
                graph.label(graph.maker[name]), name, "", "",
                at.position, at.expected, at.actual, proven=True,
            )  # fmt: skip
    return None


def _stretch(
    parting: Parting, graph: Graph, seen: Mapping[str, Array], case: Case
) -> _Stretch | None:
    agreed = {*parting.found.values(), *graph.inputs}
    last = parting.found.get(parting.after)

    def candidates(layer: str, value: Array) -> list[str]:
        output = layer.removeprefix("output ")
        if output in case.expected and layer != output:
            return [output]
        return [
            name
            for name, array in seen.items()
            if name not in agreed
            and (last is None or last in graph.depends[name])
            and array.size == value.size
        ]

    value = parting.value.astype(np.float64)
    possible = candidates(parting.layer, value)
    if not possible:  # the layer before it stands on another branch
        last = None
        possible = candidates(parting.layer, value)
    found = nearest(value, ((name, seen[name]) for name in possible))
    if found is None:
        return None
    tensor, actual = found
    first = list(dict.fromkeys([tensor, *possible[:_CANDIDATES]]))
    targets = [(parting.layer, parting.value, first)]
    targets += [(n, array, candidates(n, array)[:_CANDIDATES]) for n, array in parting.following]
    return _Stretch(graph.between(agreed, {tensor}), tensor, actual, targets, agreed)


def _proven(
    case: Case, graph: Graph, parting: Parting, stretch: _Stretch, known: Mapping[str, Array]
) -> Divergence | None:
    """The first replacement of a node that gives the layer's value."""
    nodes = graph.between(stretch.agreed, {t for _, _, names in stretch.targets for t in names})
    left = min(_MOST_VARIANTS, _WORK // max(1, work_of(graph, known, nodes)))
    for position, node in enumerate(nodes):
        for variant in variants(node, graph.constants):
            if left <= 0:
                return None
            left -= 1
            runs = _replay(graph, variant, nodes[position:], known)
            right = (
                (layer, value, tensor)
                for layer, value, tensors in stretch.targets
                for tensor in tensors
                if _right(tensor, runs, value, case)
            )
            layer, value, tensor = next(right, ("", parting.value, ""))
            if not tensor:
                continue
            _, actual = nearest(value, [(tensor, known[tensor])]) or ("", known[tensor])
            at = worst(value, actual, case.tolerance)
            return Divergence(
                "meaning", variant.cause, variant.remedy,
                graph.label(node), tensor, layer, parting.after,
                at.position, at.expected, at.actual, proven=True,
                repaired=_repaired(graph, node, variant) if variant.repairs else None,
                repair=f"with {node.op_type} as the source model means it",
            )  # fmt: skip
    return None


def _replay(
    graph: Graph,
    variant: Variant,
    nodes: Sequence[onnx.NodeProto],
    known: Mapping[str, Array],
) -> list[dict[str, Array]]:
    """What `nodes` make with the first of them replaced; once for each alternative."""
    results = []
    for change in variant.changes or (None,):
        values = dict(known)
        made: dict[str, Array] = {}
        for node in nodes:
            first = node is nodes[0]
            try:
                taken = values_for(node, values, {})
                if first and change is not None:
                    taken = change(taken)
                arrays = run_wide(graph, variant.node if first else node, taken)
            except Exception:
                break
            made.update(zip((o for o in node.output if o), arrays, strict=False))
            values.update(made)
        results.append(made)
    return results


def _right(tensor: str, runs: Sequence[Mapping[str, Array]], value: Array, case: Case) -> bool:
    """Whether every row of a tensor has the layer's value in one of the runs."""
    made = [run[tensor] for run in runs if tensor in run and run[tensor].size == value.size]
    for array in made:
        if any(agree(value, arranged, case.tolerance) for arranged in arrangements(array, value)):
            return True
    made = [array for array in made if array.shape == value.shape]
    if len(made) < 2:
        return False
    return all(
        any(agree(value[[row]], array[[row]], case.tolerance) for array in made)
        for row in range(len(value))
    )


def _repaired(graph: Graph, node: onnx.NodeProto, variant: Variant) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for other in model.graph.node:
        if other.output == node.output:
            other.CopyFrom(variant.node)
            break
    return bytes(model.SerializeToString(deterministic=True))


def _guessed(case: Case, graph: Graph, parting: Parting, stretch: _Stretch) -> Divergence:
    """No replacement is right: say how the values differ, and by which node that can be."""
    value = parting.value.astype(np.float64)
    actual = stretch.actual.astype(np.float64)
    at = worst(value, actual, case.tolerance)
    node, cause = wrong_constant(graph, stretch.nodes, value, actual)
    if node is None:
        node = stretch.nodes[0] if stretch.nodes else graph.maker[stretch.tensor]
        weighed = [n for n in stretch.nodes if weights_of(graph, n)]
        mixing = [i for i, n in enumerate(weighed) if n.op_type in _MIXING]
        if mixing and in_few_channels(value, actual, case.tolerance):
            weighed = weighed[mixing[-1] :]
        if weighed:
            node = weighed[0]
            names = ", ".join(name for name, _ in weights_of(graph, node))
            cause = f"the node or its weights ({names}) are not the source model's"
        else:
            cause = f"{node.op_type} does not compute what the source model computes"
        special = special_values(value, actual)
        cause = special or cause
    behind = stretch.nodes[stretch.nodes.index(node) + 1 :] if node in stretch.nodes else []
    others = [graph.label(n) for n in behind if n.op_type in _WEIGHED]
    if 0 < len(others) <= 3 and "element" not in cause:
        cause += f" (or it is {', '.join(others)})"
    return Divergence(
        "meaning", cause, _REMEDY, graph.label(node), stretch.tensor, parting.layer,
        parting.after, at.position, at.expected, at.actual,
    )  # fmt: skip
