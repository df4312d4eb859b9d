"""An ONNX graph in three parts: what comes before the trees, the trees, and what comes after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.engines.forest.trees import OPERATORS, attributes_of

#: The tensor that stands for what the trees add up to, float32 of shape (n, targets).
SUMS: Final = "modelport.sums"

_FLOAT, _DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
_AGGREGATES: Final = {"SUM": "SUM", "AVERAGE": "AVERAGE", 0: "AVERAGE", 1: "SUM"}
_TRANSFORMS: Final = {"NONE": "NONE", "LOGISTIC": "LOGISTIC", "SOFTMAX": "SOFTMAX",
                      0: "NONE", 1: "SOFTMAX", 2: "LOGISTIC"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Parts:
    """A graph around one node with trees.

    Parameters
    ----------
    node : NodeProto
        With the trees.
    rows : str
        The float32 tensor that they compare.
    wide : bool
        Whether they get it as float64.
    before : ModelProto or None
        From the graph's inputs to `rows`; None: it is one of them.
    alone : ModelProto
        From the node's input to its outputs that are numbers.
    after : ModelProto
        From `SUMS`, and inputs that are used otherwise, to the graph's outputs.
    scores : ModelProto
        From `SUMS` to what `alone` answers.
    """

    node: onnx.NodeProto
    rows: str
    wide: bool
    before: onnx.ModelProto | None
    alone: onnx.ModelProto
    after: onnx.ModelProto
    scores: onnx.ModelProto


def parts_of(model: onnx.ModelProto, dtype_of: Callable[[onnx.ModelProto], str]) -> Parts:
    """Take a graph apart.

    Parameters
    ----------
    model : ModelProto
    dtype_of : callable
        From a graph to the element type of its only output.

    Raises
    ------
    UnsupportedError
        When there is not exactly one node with trees, or what it does is not known here.
    """
    places = [node for node in model.graph.node if node.op_type in OPERATORS]
    inside = sum(node.op_type in OPERATORS for node in _nodes(model.graph))
    if len(places) != 1 or inside != 1:
        raise UnsupportedError(f"XGBoost can stand in for one tree ensemble, and it has {inside}")
    node = places[0]
    rows, before, wide = _rows(model, node, dtype_of)
    given = helper.make_tensor_value_info(node.input[0], _DOUBLE if wide else _FLOAT, None)
    sums = helper.make_tensor_value_info(SUMS, _FLOAT, None)
    scores = node.output[-1]
    replaced = onnx.ModelProto()
    replaced.CopyFrom(model)
    stubs = list(_after_sums(node, wide))
    at = list(model.graph.node).index(node)
    del replaced.graph.node[:]
    replaced.graph.node.extend([*model.graph.node[:at], *stubs, *model.graph.node[at + 1 :]])
    outputs = [value.name for value in model.graph.output]
    return Parts(
        node=node,
        rows=rows,
        wide=wide,
        before=before,
        alone=_part(model, [given], [scores]),
        after=_part(replaced, [sums], outputs),
        scores=_part(replaced, [sums], [scores]),
    )


def _rows(
    model: onnx.ModelProto, node: onnx.NodeProto, dtype_of: Callable[[onnx.ModelProto], str]
) -> tuple[str, onnx.ModelProto | None, bool]:
    """The tensor that is compared, in float32; what makes it; whether it becomes float64 then."""
    makers = {out: one for one in model.graph.node for out in one.output}
    constants = {item.name for item in model.graph.initializer}
    inputs = {
        value.name: value.type.tensor_type.elem_type
        for value in model.graph.input
        if value.name not in constants
    }
    name, wide = node.input[0], False
    while True:
        before = None if name in inputs else _part(model, [], [name])
        if before is None:
            kind = helper.tensor_dtype_to_np_dtype(inputs[name]).name
        else:
            kind = dtype_of(before)
        if kind == "float32":
            return name, before, wide
        maker = makers.get(name)
        if kind != "float64" or wide or maker is None or maker.op_type != "Cast":
            raise UnsupportedError(f"its trees compare {kind}, and XGBoost compares float32")
        name, wide = maker.input[0], True


def _after_sums(node: onnx.NodeProto, wide: bool) -> Iterator[onnx.NodeProto]:
    """Nodes that make a node's outputs of its trees' sums.

    Source of the cases: ``TreeAggregatorClassifier`` and ``write_scores`` of ONNX Runtime, since
    the specification leaves two classes with one score open.
    """
    found = attributes_of(node)
    transform = _TRANSFORMS.get(found.get("post_transform", "NONE"))
    aggregate = _AGGREGATES.get(found.get("aggregate_function", "SUM"))
    if transform is None or aggregate is None:
        raise UnsupportedError(
            f"its trees end with {found.get('aggregate_function', 'SUM')} and "
            f"{found.get('post_transform', 'NONE')}, which is not known here"
        )
    steps = _Steps(SUMS)
    if aggregate == "AVERAGE":
        trees = found["tree_roots"] if "tree_roots" in found else np.unique(found["nodes_treeids"])
        steps.add("Div", np.float32(len(trees)))
    base = np.asarray(found.get("base_values", ()), dtype=np.float32)
    if base.any():
        steps.add("Add", base)
    if node.op_type != "TreeEnsembleClassifier":
        steps.transform(transform)
        kind = _DOUBLE if wide and node.op_type == "TreeEnsemble" else _FLOAT
        steps.add("Cast", to=kind, out=node.output[0])
        return iter(steps.nodes)
    labels = found.get("classlabels_int64s", found.get("classlabels_strings"))
    if labels is None or len(labels) < 2:
        raise UnsupportedError("its trees vote for classes without labels")
    if len(labels) == 2:
        _two_classes(steps, node, found, transform)
    else:
        at = steps.tensor
        steps.add("ArgMax", axis=1, keepdims=0)
        label = steps.tensor
        steps.tensor = at
        steps.transform(transform)
        steps.add("Identity", out=node.output[1])
        steps.tensor = label
    steps.pick(labels, node.output[0])
    return iter(steps.nodes)


def _two_classes(
    steps: _Steps, node: onnx.NodeProto, found: dict[str, Any], transform: str
) -> None:
    """One score; it leaves the number of the label."""
    if found["class_ids"].any() or len(found.get("base_values", ())) > 1:
        raise UnsupportedError("its trees vote for both of two classes, which is not known here")
    positive = bool((found["class_weights"] >= 0).all())
    if transform == "SOFTMAX":
        raise UnsupportedError("a softmax of one score is not known here")
    score = steps.tensor
    steps.add("Greater", np.float32(0.5 if positive else 0.0))
    steps.add("Cast", to=TensorProto.INT64)
    steps.add("Reshape", np.array([-1]))
    label = steps.tensor
    steps.tensor = score
    if positive:
        steps.add("Neg")
        steps.add("Add", np.float32(1.0))
        other = steps.tensor
    else:
        steps.add("Neg")
        steps.transform(transform)
        other = steps.tensor
        steps.tensor = score
        steps.transform(transform)
        score = steps.tensor
    steps.tensor = other
    steps.add("Concat", score, axis=1, out=node.output[1])
    steps.tensor = label


class _Steps:
    """Nodes, each of which takes the tensor that the one before it made."""

    def __init__(self, tensor: str) -> None:
        self.tensor = tensor
        self.nodes: list[onnx.NodeProto] = []

    def constant(self, value: Any) -> str:
        """A constant tensor; returns its name."""
        name = f"{SUMS}.{len(self.nodes)}"
        held = numpy_helper.from_array(np.asarray(value), name)
        self.nodes.append(helper.make_node("Constant", [], [name], value=held))
        return name

    def add(self, operator: str, *others: Any, out: str = "", **attributes: Any) -> None:
        """A node of the tensor and of others, which are names or constants."""
        names = [other if isinstance(other, str) else self.constant(other) for other in others]
        made = out or f"{SUMS}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [self.tensor, *names], [made], **attributes))
        self.tensor = made

    def transform(self, kind: str) -> None:
        """What turns sums into scores."""
        if kind == "SOFTMAX":
            self.add("Softmax", axis=1)
        elif kind == "LOGISTIC":  # in float32 ONNX Runtime's Sigmoid is another one than the trees'
            self.add("Cast", to=_DOUBLE)
            self.add("Sigmoid")
            self.add("Cast", to=_FLOAT)

    def pick(self, labels: Any, out: str) -> None:
        """The label of a number."""
        number, self.tensor = self.tensor, self.constant(np.asarray(labels))
        self.add("Gather", number, axis=0, out=out)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, also of graphs inside."""
    for node in graph.node:
        yield node
        for inner in _inner(node):
            yield from _nodes(inner)


def _inner(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [
        graph
        for item in node.attribute
        for graph in ([item.g] if item.type == onnx.AttributeProto.GRAPH else item.graphs)
    ]


def _reads(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node reads, and those inside its graphs."""
    inner = (name for graph in _inner(node) for one in graph.node for name in _reads(one))
    outer = (value.name for graph in _inner(node) for value in graph.output)
    return {*node.input, *inner, *outer} - {""}


def _part(
    model: onnx.ModelProto, given: Sequence[onnx.ValueInfoProto], wanted: Collection[str]
) -> onnx.ModelProto:
    """The nodes that some tensors need, from tensors that are given and the graph's inputs."""
    graph = model.graph
    makers = {out: node for node in graph.node for out in node.output if out}
    known = {value.name for value in given}
    needed, waiting = set(), list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            if name not in known and name in makers:
                waiting += _reads(makers[name])
    part = onnx.ModelProto()
    part.CopyFrom(model)
    for field in ("node", "input", "output", "initializer", "sparse_initializer", "value_info"):
        del getattr(part.graph, field)[:]
    made = needed - known
    part.graph.node.extend(node for node in graph.node if made & set(node.output))
    part.graph.initializer.extend(item for item in graph.initializer if item.name in made)
    part.graph.sparse_initializer.extend(
        item for item in graph.sparse_initializer if item.values.name in made
    )
    part.graph.input.extend(given)
    part.graph.input.extend(value for value in graph.input if value.name in made)
    outputs = {value.name: value for value in graph.output}
    part.graph.output.extend(
        outputs.get(name) or helper.make_empty_tensor_value_info(name) for name in wanted
    )
    return part
