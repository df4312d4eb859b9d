"""Graphs of small models that answer in the place of a larger one: same inputs, same outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.classic.ensemble import LEAF, LEQ, Ensemble
from modelport.optimize.classic.tree_writer import write
from modelport.optimize.onnx_graph import serialize

_OPSETS: Final = {"": 18, "ai.onnx.ml": 5}
_VERSION: Final = 10
_FLOAT: Final = onnx.TensorProto.FLOAT
#: Rows of probabilities add up to one within this.
_SUM: Final = 1e-3
_NUMBERS: Final = (
    _FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64, onnx.TensorProto.INT32,
)  # fmt: skip
_LEAST: Final = 1e-6
#: Share of the rows on which the largest score has to have its label.
_AGREEING: Final = 0.95
_MOST_COLUMNS: Final = 4000


@dataclass(frozen=True, eq=False)
class Teacher:
    """What a model answers, and the numbers that a student learns.

    Parameters
    ----------
    model : ModelProto
    scores : str
        The output of floating-point numbers.
    label : str
        The output of labels; empty: there is none.
    labels : ndarray
        The label of each column of scores, or of a score below and above the limit.
    limit : float
        Of a single score.
    shares : bool
        Whether scores are probabilities of classes; students learn their logarithms.
    targets : ndarray of float64, shape (n, targets)
    """

    model: onnx.ModelProto
    scores: str
    label: str
    labels: Array
    limit: float
    shares: bool
    targets: Array

    def learned(self, answers: Tensors) -> Array:
        """The numbers that a student learns, of other rows."""
        return _learned(_matrix(answers[self.scores]), self.shares)


def teacher_of(model: onnx.ModelProto, answers: Tensors) -> Teacher:
    """Understand what a model answers.

    Raises
    ------
    UnsupportedError
        When a student cannot answer the same.
    """
    for value in inputs_of(model):
        kind = value.type.tensor_type
        if len(kind.shape.dim) != 2 or kind.elem_type not in _NUMBERS:
            raise UnsupportedError("students take tables of numbers only")
    if _looks_up(model):
        raise UnsupportedError("its input holds places in a table, such as tokens, not numbers")
    floats = [name for name, array in answers.items() if array.dtype.kind == "f"]
    others = [name for name in answers if name not in floats]
    wrong = [name for name, array in answers.items() if not 1 <= array.ndim <= 2]
    if len(floats) != 1 or len(others) > 1 or wrong:
        raise UnsupportedError("students answer one row of scores, and a label")
    scores = _matrix(answers[floats[0]])
    if not np.isfinite(scores).all():
        raise UnsupportedError("it answers NaN or infinities")
    shares = scores.shape[1] > 1 and bool(
        (scores >= 0).all() and np.abs(scores.sum(axis=1) - 1).max() < _SUM
    )
    label = others[0] if others else ""
    labels, limit = _labels(scores, answers[label]) if label else (np.empty(0), 0.0)
    return Teacher(model, floats[0], label, labels, limit, shares, _learned(scores, shares))


def _looks_up(model: onnx.ModelProto) -> bool:
    """Whether an input says which rows of a table are read."""
    places = {value.name for value in inputs_of(model)}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in places:
            places.add(node.output[0])
        if node.op_type == "Gather" and node.input[1] in places:
            return True
    return False


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What clients send: old graphs have their constants among the inputs, too."""
    constants = {item.name for item in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def _matrix(array: Array) -> Array:
    return array.reshape(len(array), -1).astype(np.float64)


def _learned(scores: Array, shares: bool) -> Array:
    if not shares:
        return scores
    logarithms = np.log(np.maximum(scores, _LEAST))
    if scores.shape[1] == 2:
        return logarithms[:, 1:] - logarithms[:, :1]
    return np.asarray(logarithms - logarithms.mean(axis=1, keepdims=True))


def _labels(scores: Array, found: Array) -> tuple[Array, float]:
    """The label of each column, as the rows show."""
    flat = found.reshape(len(found), -1)
    if flat.shape[1] != 1:
        raise UnsupportedError("students answer one label")
    limit = 0.5 if scores.shape[1] == 1 and scores.min() >= 0 and scores.max() <= 1 else 0.0
    places = scores.argmax(axis=1) if scores.shape[1] > 1 else (scores[:, 0] > limit).astype(int)
    labels = []
    for place in range(max(scores.shape[1], 2)):
        mine, counts = np.unique(flat[places == place, 0].astype(object), return_counts=True)
        if not len(mine):
            raise UnsupportedError(
                f"none of the rows has its label number {place}: no one teaches it"
            )
        if counts.max() < _AGREEING * counts.sum():
            raise UnsupportedError("its labels are not those of the largest score, on these rows")
        labels.append(mine[counts.argmax()])
    return np.asarray(labels, dtype=object if found.dtype == object else found.dtype), limit


class Student:
    """A graph with the teacher's inputs and outputs.

    Parameters
    ----------
    teacher : Teacher
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def linear(self, weights: Array, intercepts: Array) -> bytes:
        """Scores are a product with `weights`, of shape ``[targets, columns]``."""
        product = self._add("MatMul", self._input(), self._constant(weights.T.astype(np.float32)))
        return self._finish(
            self._add("Add", product, self._constant(intercepts.astype(np.float32)))
        )

    def trees(self, ensemble: Ensemble, base: Array) -> bytes:
        """Scores are sums of votes, plus `base`."""
        name = self._add(
            "TreeEnsemble", self._input(), domain="ai.onnx.ml", aggregate_function=1,
            post_transform=0, n_targets=ensemble.targets,
        )  # fmt: skip
        write(self._nodes[-1], ensemble)
        return self._finish(self._add("Add", name, self._constant(base.astype(np.float32))))

    def _input(self) -> str:
        values = inputs_of(self._teacher.model)
        names = [
            value.name if value.type.tensor_type.elem_type == _FLOAT
            else self._add("Cast", value.name, to=_FLOAT)
            for value in values
        ]  # fmt: skip
        return names[0] if len(names) == 1 else self._add("Concat", *names, axis=1)

    def _finish(self, scores: str) -> bytes:
        """From targets to outputs."""
        teacher = self._teacher
        targets = teacher.targets.shape[1]
        if teacher.shares and targets == 1:
            second = self._add("Sigmoid", scores)
            first = self._add("Sub", self._constant(np.ones(1, np.float32)), second)
            scores = self._add("Concat", first, second, axis=1)
        elif teacher.shares:
            scores = self._add("Softmax", scores, axis=1)
        if teacher.label:
            self._give(self._label(scores), teacher.label)
        self._give(scores, teacher.scores)
        graph = teacher.model.graph
        made = helper.make_graph(
            self._nodes, "student", inputs_of(teacher.model), list(graph.output), self._constants
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
        return serialize(helper.make_model(made, opset_imports=opsets, ir_version=_VERSION))

    def _label(self, scores: str) -> str:
        teacher = self._teacher
        if teacher.shares or teacher.targets.shape[1] > 1:
            place = self._add("ArgMax", scores, axis=1, keepdims=0)
        else:
            limit = self._constant(np.asarray([teacher.limit], np.float32))
            above = self._add("Greater", scores, limit)
            flat = self._add("Reshape", above, self._constant(np.asarray([-1])))
            place = self._add("Cast", flat, to=onnx.TensorProto.INT64)
        return self._add("Gather", self._constant(teacher.labels), place, axis=0)

    def _give(self, name: str, output: str) -> None:
        """In the type and the shape that the teacher's output has."""
        value = next(v for v in self._teacher.model.graph.output if v.name == output)
        kind = value.type.tensor_type
        if len(kind.shape.dim) == 1:
            name = self._add("Reshape", name, self._constant(np.asarray([-1])))
        elif output == self._teacher.label:
            name = self._add("Reshape", name, self._constant(np.asarray([-1, 1])))
        is_text = kind.elem_type == onnx.TensorProto.STRING
        last = (
            self._add("Identity", name) if is_text else self._add("Cast", name, to=kind.elem_type)
        )
        self._nodes[-1].output[0] = output
        assert last  # noqa: S101 - it has just been renamed

    def _add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(operator, inputs, [name], name, domain=domain, **attributes)
        )
        return name

    def _constant(self, value: Array) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, name))
        return name


def ensemble_of(trees: Sequence[Any], targets: Sequence[int]) -> Ensemble:
    """Trees of scikit-learn's histogram gradient boosting as an ensemble.

    Parameters
    ----------
    trees : sequence of ndarray
        Their nodes, as ``TreePredictor.nodes``.
    targets : sequence of int
        To which target each one's votes go.
    """
    parts, start, roots = [], 0, []
    for nodes in trees:
        roots.append(start)
        parts.append((nodes, start))
        start += len(nodes)
    joined = np.concatenate([nodes for nodes, _ in parts])
    offset = np.concatenate([np.full(len(nodes), at, dtype=np.int64) for nodes, at in parts])
    owner = np.concatenate([np.full(len(n), i) for i, (n, _) in enumerate(parts)])
    leaf = joined["is_leaf"].astype(bool)
    votes = np.zeros((len(leaf), max(targets) + 1))
    voted = np.zeros(votes.shape, dtype=bool)
    column = np.asarray(targets)[owner]
    votes[leaf, column[leaf]] = joined["value"][leaf]
    voted[leaf, column[leaf]] = True
    raw = Ensemble(
        tree=owner,
        mode=np.where(leaf, LEAF, LEQ).astype(np.uint8),
        feature=np.where(leaf, 0, joined["feature_idx"]).astype(np.int64),
        threshold=np.where(leaf, 0.0, joined["num_threshold"]),
        left=np.where(leaf, -1, joined["left"].astype(np.int64) + offset),
        right=np.where(leaf, -1, joined["right"].astype(np.int64) + offset),
        missing_left=joined["missing_go_to_left"].astype(bool) & ~leaf,
        votes=votes,
        voted=voted,
    )
    return raw.rewired(raw.left, raw.right, np.asarray(roots))


def table_of(model: onnx.ModelProto, rows: Tensors) -> Array:
    """All inputs side by side, as float32.

    Raises
    ------
    UnsupportedError
        When there are too many columns.
    """
    table = np.concatenate([rows[value.name] for value in inputs_of(model)], axis=1)
    if table.shape[1] > _MOST_COLUMNS:
        raise UnsupportedError(f"{table.shape[1]:,} columns are too many for a student of trees")
    return table.astype(np.float32)
