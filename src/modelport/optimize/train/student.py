"""Small networks with weights by chance, with the inputs and outputs of a subject."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, TensorSpec
from modelport.optimize.base import Subject
from modelport.optimize.train.losses import PROBABILITIES, Goal, goals_of
from modelport.optimize.train.source import has_fixed_batch
from modelport.optimize.train.target import task_of

_SEED: Final = 5
_OPSET: Final = 17
_IR: Final = 8
#: Shorter sequences and smaller images are rows of numbers.
_SHORTEST: Final = 8
_LEAST: Final = 1e-6
#: Numbers in a matrix that may be made in any case, before it is known whether they are too many.
_LARGE: Final = 1_000_000


def student_of(subject: Subject, width: int) -> onnx.ModelProto:
    """A perceptron, or a small convolutional network; untrained.

    Parameters
    ----------
    subject : Subject
    width : int
        Of its layers; convolutions begin with half of it and end with twice as much.

    Raises
    ------
    UnsupportedError
        When the inputs or outputs are not of a kind that it can have.
    """
    if has_fixed_batch(subject):
        raise UnsupportedError("its batch size is fixed, and training needs batches")
    if len(subject.signature.inputs) != 1 or subject.signature.inputs[0].dtype != "float32":
        raise UnsupportedError("a student has one input of float32 numbers")
    spec = subject.signature.inputs[0]
    if not all(isinstance(size, int) for size in spec.shape[1:]) or len(spec.shape) < 2:
        raise UnsupportedError(f"the sizes of its input {spec.name} are open")
    rows = subject.rows[spec.name]
    if not np.isfinite(rows).all():
        raise UnsupportedError(f"its input {spec.name} holds NaN or infinities")
    goals = {goal.name: goal for goal in goals_of(subject.answers, len(rows), task_of(subject))}
    builder = _Builder(max(len(subject.variant.model), _LARGE))
    features, count = _body(builder, spec, rows, width)
    # Scores before the labels that follow from them.
    for output in sorted(subject.signature.outputs, key=lambda one: one.name not in goals):
        builder.head(features, count, output, subject.answers, goals)
    graph = helper.make_graph(
        builder.nodes, "student", [_value(spec)], [_value(s) for s in subject.signature.outputs],
        builder.constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


def _body(builder: _Builder, spec: TensorSpec, rows: Array, width: int) -> tuple[str, int]:
    """Features per row, and how many."""
    sizes = [int(size) for size in spec.shape[1:]]
    spatial = sizes[1:] if len(sizes) == 3 else sizes[:1]
    if len(sizes) in (2, 3) and min(spatial) >= _SHORTEST:
        h, before = spec.name, sizes[0]
        if len(sizes) == 2:  # steps, then features of each
            h, before = builder.op("Transpose", h, perm=[0, 2, 1]), sizes[1]
        for after in (width // 2, width, 2 * width):
            h = builder.op("Relu", builder.conv(h, before, after, len(spatial)))
            before = after
        h = builder.op("Flatten", builder.op("GlobalAveragePool", h))
        return h, before
    flat = rows.reshape(len(rows), -1)
    h, before = spec.name, flat.shape[1]
    if len(sizes) > 1:
        h = builder.op("Flatten", h)
    h = builder.op("Relu", builder.first(h, flat, 2 * width))
    return builder.op("Relu", builder.dense(h, 2 * width, width)), width


class _Builder:
    """A graph that grows node by node, of matrices with at most so many numbers each."""

    def __init__(self, largest: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._largest = largest
        self._random = np.random.default_rng(_SEED)

    def op(self, kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        name = f"student/{kind}_{len(self.nodes)}"
        made = to or f"{name}_output"
        self.nodes.append(helper.make_node(kind, inputs, [made], name=name, **attributes))
        return made

    def constant(self, array: Array) -> str:
        name = f"student/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def _weight(self, *shape: int) -> Array:
        """He et al., "Delving Deep into Rectifiers", 2015, equation 10."""
        if np.prod(shape) > self._largest:
            raise UnsupportedError("it is as small as a student would be")
        spread = np.sqrt(2 / np.prod(shape[1:]))
        weight: Array = (self._random.standard_normal(shape) * spread).astype(np.float32)
        return weight

    def conv(self, x: str, before: int, after: int, axes: int) -> str:
        weight = self.constant(self._weight(after, before, *[3] * axes))
        bias = self.constant(np.zeros(after, np.float32))
        return self.op("Conv", x, weight, bias, pads=[1] * 2 * axes, strides=[2] * axes)

    def dense(self, x: str, before: int, after: int) -> str:
        weight = self.constant(self._weight(after, before))
        return self.op("Gemm", x, weight, self.constant(np.zeros(after, np.float32)), transB=1)

    def first(self, x: str, flat: Array, after: int) -> str:
        """A layer that takes columns as if they had mean 0 and deviation 1."""
        mean, deviation = flat.mean(axis=0), flat.std(axis=0)
        weight = self._weight(after, flat.shape[1]) / np.where(deviation > _LEAST, deviation, 1.0)
        bias = -weight @ mean
        return self.op(
            "Gemm", x, self.constant(weight.astype(np.float32)),
            self.constant(bias.astype(np.float32)), transB=1,
        )  # fmt: skip

    def head(
        self, x: str, count: int, output: TensorSpec, answers: Any, goals: dict[str, Goal]
    ) -> None:
        """One output; a label is the place of the largest score of another one."""
        answer = answers[output.name]
        if output.name not in goals:
            scores = [n for n in goals if answers[n].ndim == 2 and answers[n].shape[1] > 1]
            for name in scores:
                if answer.ndim == 1 and np.array_equal(answer, answers[name].argmax(axis=1)):
                    self.op("ArgMax", name, to=output.name, axis=1, keepdims=0)
                    return
            raise UnsupportedError(f"its output {output.name} does not follow from scores")
        goal, flat = goals[output.name], answer.reshape(len(answer), -1)
        if not all(isinstance(size, int) for size in output.shape[1:]):
            raise UnsupportedError(f"the sizes of its output {output.name} are open")
        scores_of_classes = goal.kind == PROBABILITIES
        weight = self._weight(flat.shape[1], count)
        bias = np.zeros(flat.shape[1]) if scores_of_classes else flat.mean(axis=0)
        scale = np.ones(1) if scores_of_classes else np.sqrt(np.array(goal.variance))
        ready = scores_of_classes or answer.ndim != 2
        h = self.op(
            "Gemm", x, self.constant((weight * scale[:, None]).astype(np.float32)),
            self.constant(bias.astype(np.float32)), transB=1, to="" if ready else output.name,
        )  # fmt: skip
        if scores_of_classes:
            self.op("Softmax", h, axis=-1, to=output.name)
        elif answer.ndim != 2:
            shape = self.constant(np.array([-1, *answer.shape[1:]], dtype=np.int64))
            self.op("Reshape", h, shape, to=output.name)


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    if spec.dtype not in kinds:
        raise UnsupportedError(f"a student has no {spec.name} of {spec.dtype}")
    return helper.make_tensor_value_info(spec.name, kinds[spec.dtype], list(spec.shape))
