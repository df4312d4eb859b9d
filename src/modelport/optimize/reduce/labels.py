"""Which channels depend on each other: every channel has a label, and operators carry it on.

A node with weights gives each of its output channels a new label. Where tensors are added, the
labels of both are one from then on; where they are joined, split or flattened, the labels are
moved by the operator itself, as if they were numbers. What reads a channel is tied to its label:
a column of the next layer's weights, an entry of a norm. What nothing here understands fixes the
labels that it reads: such channels stay. (The dependency graph of Fang et al., "DepGraph: Towards
Any Structural Pruning", 2023, on ONNX's operators.)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Final

import onnx
from onnx import helper

from modelport.core.tensors import Array
from modelport.optimize.reduce.moves import Labelled, moved
from modelport.optimize.reduce.observe import Observed
from modelport.optimize.reduce.sets import Sets
from modelport.optimize.train.shaping import MOVING

_ELEMENTWISE: Final = frozenset(
    {"Abs", "Cast", "Ceil", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
     "HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu",
     "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh"}
)  # fmt: skip
_BROADCASTING: Final = frozenset(
    {"Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where"}
)
_POOLS: Final = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
_REDUCTIONS: Final = frozenset(
    {"ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
     "ReduceSumSquare"}
)  # fmt: skip
#: With so many inputs it is told its sizes, channels and all.
_SIZES_OF_RESIZE: Final = 4
_NORMS: Final = frozenset({"BatchNormalization", "InstanceNormalization"})


@dataclass(frozen=True)
class Tie:
    """An axis of a constant that has to shrink with channels.

    Parameters
    ----------
    constant : str
    axis : int
    labels : ndarray of int64
    node : int
        The place of the node that reads the constant.
    made : bool
        Whether the channels are made here: rows of weights, not columns.
    """

    constant: str
    axis: int
    labels: Array
    node: int
    made: bool = False


class Labels:
    """The labels of a whole graph.

    Parameters
    ----------
    model : ModelProto
        Constants folded.
    observed : Observed
    """

    def __init__(self, model: onnx.ModelProto, observed: Observed) -> None:
        self._model, self._observed = model, observed
        self._constants = {item.name for item in model.graph.initializer}
        self._opset = next(i.version for i in model.opset_import if i.domain in ("", "ai.onnx"))
        self._sets = Sets()
        self._at: dict[str, Labelled] = {}
        self.ties: list[Tie] = []
        #: Depthwise convolutions, and reshapes whose sizes name channels: place, labels, position.
        self.depthwise: dict[int, Array] = {}
        self.sizes: list[tuple[int, Array, int]] = []
        for place, node in enumerate(model.graph.node):
            self._node(place, node)
        for value in model.graph.output:
            self._fix(value.name)
        self._agree()
        # From here on, labels that are one are the same number.
        self.ties = [replace(tie, labels=self._sets.roots(tie.labels)) for tie in self.ties]
        self.depthwise = {at: self._sets.roots(labels) for at, labels in self.depthwise.items()}
        self.sizes = [(at, self._sets.roots(labels), axis) for at, labels, axis in self.sizes]

    def _fix(self, *names: str) -> None:
        for name in names:
            if name in self._at:
                self._sets.fix(self._at[name].labels)

    def _shape(self, name: str) -> tuple[int, ...]:
        return self._observed.shapes[name]

    def _node(self, place: int, node: onnx.NodeProto) -> None:
        kind = node.op_type if node.domain in ("", "ai.onnx") else ""
        if kind in ("Conv", "ConvTranspose"):
            self._convolution(place, node)
        elif kind in ("Gemm", "MatMul"):
            self._product(place, node)
        elif kind in _ELEMENTWISE or kind in ("Identity", "Dropout"):
            self._carry(node.input[0], node.output[0])
        elif kind in _BROADCASTING:
            self._broadcast(place, node)
        elif kind in _NORMS:
            self._norm(place, node)
        elif kind in _POOLS or (kind == "Resize" and len(node.input) < _SIZES_OF_RESIZE):
            self._carry_axis(node, 1)
        elif kind in MOVING:
            self._move(place, node)
        elif kind in ("Softmax", "LogSoftmax"):
            self._softmax(node)
        elif kind in _REDUCTIONS:
            self._reduce(node)
        elif kind not in ("Shape", "Size"):
            self._fix(*node.input)

    def _carry(self, source: str, to: str) -> None:
        if source in self._at:
            self._at[to] = self._at[source]

    def _carry_axis(self, node: onnx.NodeProto, axis: int) -> None:
        found = self._at.get(node.input[0])
        if (
            found is not None
            and found.axis == axis
            and self._shape(node.output[0])[axis] == len(found.labels)
        ):
            self._at[node.output[0]] = found
        else:
            self._fix(node.input[0])

    def _tie(self, place: int, constant: str, axis: int, labels: Array, made: bool = False) -> None:
        self.ties.append(Tie(constant, axis, labels, place, made))

    def _convolution(self, place: int, node: onnx.NodeProto) -> None:
        read = [name for name in node.input[1:] if name]
        found = self._at.get(node.input[0])
        if not all(name in self._constants for name in read) or (found and found.axis != 1):
            self._fix(*node.input)
            return
        weight = self._shape(node.input[1])
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        if groups == 1:
            inner, outer = (1, 0) if node.op_type == "Conv" else (0, 1)
            if found is not None:
                self._tie(place, node.input[1], inner, found.labels)
            made = self._sets.new(weight[outer])
            self._tie(place, node.input[1], outer, made, made=True)
        elif node.op_type == "Conv" and groups == weight[0] and weight[1] == 1 and found:
            made, outer = found.labels, 0
            self._tie(place, node.input[1], 0, made)
            self.depthwise[place] = made
        else:
            self._fix(*node.input)
            return
        for bias in read[1:]:
            self._tie(place, bias, 0, made)
        self._at[node.output[0]] = Labelled(1, made)

    def _product(self, place: int, node: onnx.NodeProto) -> None:
        attributes = {a.name: a.i for a in node.attribute}
        found = self._at.get(node.input[0])
        if (
            not all(name in self._constants for name in node.input[1:] if name)
            or len(self._shape(node.input[1])) != 2
            or attributes.get("transA")
        ):
            self._fix(*node.input)
            return
        rank = len(self._shape(node.input[0]))
        outer = 0 if attributes.get("transB") else 1
        if found is not None and found.axis != rank - 1:
            self._at[node.output[0]] = found  # an axis that the product leaves alone
            return
        if found is not None:
            self._tie(place, node.input[1], 1 - outer, found.labels)
        made = self._sets.new(self._shape(node.input[1])[outer])
        self._tie(place, node.input[1], outer, made, made=True)
        for bias in node.input[2:]:
            if bias and self._shape(bias) and self._shape(bias)[-1] == len(made):
                self._tie(place, bias, len(self._shape(bias)) - 1, made)
        self._at[node.output[0]] = Labelled(rank - 1, made)

    def _norm(self, place: int, node: onnx.NodeProto) -> None:
        found = self._at.get(node.input[0])
        if not all(name in self._constants for name in node.input[1:]):
            self._fix(*node.input)
        elif found is not None and found.axis == 1:
            for name in node.input[1:]:
                self._tie(place, name, 0, found.labels)
            self._at[node.output[0]] = found
        else:
            self._fix(node.input[0])

    def _broadcast(self, place: int, node: onnx.NodeProto) -> None:
        """Tensors that meet at an axis have the same channels there."""
        rank = len(self._shape(node.output[0]))
        from_end = {self._at[n].axis - len(self._shape(n)) for n in node.input if n in self._at}
        if not from_end:
            return
        end = from_end.pop()
        length = self._shape(node.output[0])[end]
        if from_end or any(len(self._at[n].labels) != length for n in node.input if n in self._at):
            self._fix(*node.input)
            return
        labels = next(self._at[name].labels for name in node.input if name in self._at)
        for name in node.input:
            shape = self._shape(name)
            if name in self._at:
                self._sets.join(labels, self._at[name].labels)
            elif len(shape) < -end or shape[end] == 1:
                continue
            elif name in self._constants:
                self._tie(place, name, len(shape) + end, labels)
            else:
                self._sets.fix(labels)
        self._at[node.output[0]] = Labelled(rank + end, labels)

    def _softmax(self, node: onnx.NodeProto) -> None:
        """Its sum is over all channels: without some, the others are different."""
        self._fix(node.input[0])
        self._carry(node.input[0], node.output[0])

    def _reduce(self, node: onnx.NodeProto) -> None:
        found = self._at.get(node.input[0])
        if found is None:
            return
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        rank = len(self._shape(node.input[0]))
        given = attributes.get("axes")
        if len(node.input) > 1 and node.input[1] in self._observed.integers:
            given = self._observed.integers[node.input[1]].tolist()
        axes = {axis % rank for axis in (given or range(rank))}
        if found.axis in axes:
            self._fix(node.input[0])
        elif attributes.get("keepdims", 1):
            self._at[node.output[0]] = found
        else:
            fewer = sum(axis < found.axis for axis in axes)
            self._at[node.output[0]] = Labelled(found.axis - fewer, found.labels)

    def _move(self, place: int, node: onnx.NodeProto) -> None:
        if not any(name in self._at for name in node.input):
            return
        found = moved(node, self._opset, self._at, self._observed)
        if found is None:
            self._fix(*node.input)
            return
        self._at[node.output[0]] = found
        if node.op_type == "Reshape" and node.input[1] in self._constants:
            size = self._observed.integers[node.input[1]][found.axis]
            if size > 0:
                self.sizes.append((place, found.labels, found.axis))

    def _agree(self) -> None:
        """Constants that several nodes read shrink for all of them, or not at all."""
        uses = Counter(name for node in self._model.graph.node for name in node.input)
        uses.update(value.name for value in self._model.graph.output)
        meeting: dict[tuple[str, int], list[Tie]] = defaultdict(list)
        for tie in self.ties:
            meeting[tie.constant, tie.axis].append(tie)
        for (constant, _), ties in meeting.items():
            for tie in ties:
                self._sets.join(ties[0].labels, tie.labels)
            if len(ties) < uses[constant]:
                self._sets.fix(ties[0].labels)
