"""What is trained: the simplified graph of a subject, if it can be."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Tensors
from modelport.optimize.base import Subject, Variant
from modelport.optimize.onnx_graph import parse
from modelport.optimize.reduce.observe import Observed, channel_moments, observe_graph
from modelport.optimize.reduce.sparsity import dense
from modelport.optimize.session import simplified
from modelport.optimize.train.call import tensor_of
from modelport.optimize.train.graph import Moments, TorchGraph, normalizable
from modelport.optimize.train.losses import Goal, goals_of
from modelport.optimize.train.recipe import fitting_rows
from modelport.optimize.train.target import task_of

_COMPARED: Final = 16
_MOMENT_ROWS: Final = 128
#: How far the graph in PyTorch may be from the engine's answers, as a share of their spread.
_APART: Final = 1e-2
_LEAST: Final = 1e-4


@dataclass(frozen=True)
class Source:
    """A subject's graph, ready to be changed and trained.

    Parameters
    ----------
    model : ModelProto
        Simplified; every node has a name.
    observed : Observed
    costs : mapping of int to float
        Multiplications per row by the places of nodes.
    """

    model: onnx.ModelProto
    observed: Observed
    costs: Mapping[int, float]

    @property
    def total(self) -> float:
        """Multiplications per row."""
        return sum(self.costs.values())

    def moments(self, subject: Subject) -> dict[str, Moments]:
        """Of every convolution that can be normalized in training, by its name."""
        nodes = {node.output[0]: node.name for node in normalizable(self.model)}
        rows = {name: array[:_MOMENT_ROWS] for name, array in subject.rows.items()}
        found = channel_moments(self.model, dict.fromkeys(nodes, 1), rows)
        return {nodes[tensor]: Moments(*both) for tensor, both in found.items()}


def source_of(subject: Subject) -> Source:
    """The graph of a subject.

    Raises
    ------
    UnsupportedError
        When it cannot be trained; the message says why.
    """
    for variant, rows, source in _MADE:
        if variant() is subject.variant and rows is subject.rows:
            return source
    source = _made(subject)
    # It goes with its variant.
    made = weakref.ref(subject.variant, lambda _: _MADE.clear())
    _MADE[:] = [(made, subject.rows, source)]
    return source


#: The last one: several passes ask for the same, twice each.
_MADE: Final[list[tuple[weakref.ref[Variant], Tensors, Source]]] = []


def _made(subject: Subject) -> Source:
    if has_fixed_batch(subject):
        raise UnsupportedError("its batch size is fixed, and training needs batches")
    texts = [name for name, array in subject.rows.items() if array.dtype == object]
    if texts:
        raise UnsupportedError(f"its input {texts[0]} is text")
    count = len(next(iter(subject.rows.values())))
    goals = goals_of(subject.answers, count, task_of(subject))
    model = dense(parse(simplified(subject.variant.model)))
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{place}"
    graph = TorchGraph(model)
    observed = observe_graph(model, subject.rows)
    _compare(graph, subject, goals, max(1, min(_COMPARED, fitting_rows(model, observed))))
    return Source(model, observed, observed.multiplications(model))


def has_fixed_batch(subject: Subject) -> bool:
    """Whether its inputs say how many rows they take."""
    return any(not s.shape or isinstance(s.shape[0], int) for s in subject.signature.inputs)


def _compare(graph: TorchGraph, subject: Subject, goals: Sequence[Goal], rows: int) -> None:
    """The graph in PyTorch answers what the engine did, and its weights have to do with it."""
    graph.eval()
    found = graph({name: tensor_of(array[:rows]) for name, array in subject.rows.items()})
    if not any(found[goal.name].requires_grad for goal in goals):
        raise UnsupportedError("it has no float32 weights that its float32 outputs depend on")
    for goal in goals:
        expected = subject.answers[goal.name]
        answer = found[goal.name].detach().numpy()
        if answer.shape != expected[:rows].shape:
            raise UnsupportedError(f"in PyTorch, its output {goal.name} is of another shape")
        apart = float(np.abs(answer - expected[:rows]).max())
        size = max(float(expected.std()), 1e-3 * float(np.abs(expected).max()), _LEAST)
        if not apart <= _APART * size:
            raise UnsupportedError(f"in PyTorch, its output {goal.name} differs by {apart:.3g}")
