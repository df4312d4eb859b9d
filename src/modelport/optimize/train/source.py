"""What is trained: the simplified graph of a subject, if it can be; and how long."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx
import torch

from modelport.core.errors import ModelportError, UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.base import Progress, Subject
from modelport.optimize.onnx_graph import operators, parse
from modelport.optimize.reduce.observe import Observed, channel_moments, observe_graph
from modelport.optimize.session import simplified
from modelport.optimize.train.distil import Recipe, Taught, distil
from modelport.optimize.train.graph import Moments, TorchGraph, normalizable
from modelport.optimize.train.lesson import Lesson, lesson_of
from modelport.optimize.train.losses import goals_of

#: Multiplications of all forward steps of one training: two to three minutes on two cores.
_WORK: Final = 1e12
_MOST_EPOCHS: Final = 60
_MOST_STEPS: Final = 3000
#: And in no case more seconds than this, however slow the machine.
_SECONDS: Final = 180.0
#: Unless there is a budget: then a tenth of what is left, but never more than half of it, since
#: other passes want some, too.
_SHARE_OF_BUDGET: Final = 0.1
_MOST_OF_BUDGET: Final = 0.5
#: Steps times batch: fewer rows teach a network nothing.
_FEWEST_ROWS: Final = 3000
#: Of the multiplications: from here on the rate is the full one.
_MUCH: Final = 0.75
#: Multiplications per step that are worth a second thread.
_WORTH_THREADS: Final = 5e8
_BATCH: Final = 64
_SMALLEST_BATCH: Final = 8
#: Bytes of activations that a step may hold, with their gradients.
_MEMORY: Final = 6e8
_COMPARED: Final = 16
_MOMENT_ROWS: Final = 128
#: How far the graph in PyTorch may be from the engine's answers, as a share of their spread.
_APART: Final = 1e-2
_LEAST: Final = 1e-4
#: Learning rates: with norms, in perceptrons, in transformers.
_RATE_NORMED: Final = 4e-3
_RATE: Final = 2e-3
_RATE_TRANSFORMER: Final = 3e-4


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
    if _MADE and _MADE[0][0] is subject:
        return _MADE[0][1]
    source = _made(subject)
    _MADE[:] = [(subject, source)]
    return source


#: The last one: several passes ask for the same, twice each.
_MADE: Final[list[tuple[Subject, Source]]] = []


def _made(subject: Subject) -> Source:
    if has_fixed_batch(subject):
        raise UnsupportedError("its batch size is fixed, and training needs batches")
    texts = [name for name, array in subject.rows.items() if array.dtype == object]
    if texts:
        raise UnsupportedError(f"its input {texts[0]} is text")
    goals_of(subject.answers, len(next(iter(subject.rows.values()))))
    model = parse(simplified(subject.variant.model))
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{place}"
    graph = TorchGraph(model)
    _compare(graph, subject)
    observed = observe_graph(model, subject.rows)
    return Source(model, observed, observed.multiplications(model))


def has_fixed_batch(subject: Subject) -> bool:
    """Whether its inputs say how many rows they take."""
    return any(not s.shape or isinstance(s.shape[0], int) for s in subject.signature.inputs)


def why_not(subject: Subject) -> str:
    """Why it cannot be trained; empty: it can."""
    try:
        source_of(subject)
    except ModelportError as error:
        return error.line
    return ""


def _compare(graph: TorchGraph, subject: Subject) -> None:
    """The graph in PyTorch answers what the engine did."""
    graph.eval()
    rows = {
        n: torch.from_numpy(np.ascontiguousarray(a[:_COMPARED])) for n, a in subject.rows.items()
    }
    with torch.no_grad():
        found = graph(rows)
    for name, expected in subject.answers.items():
        if expected.dtype != np.float32 or name not in found:
            continue
        apart = np.abs(found[name].numpy() - expected[:_COMPARED]).max(initial=0.0)
        if not apart <= _APART * max(
            float(expected.std()), 1e-3 * float(np.abs(expected).max()), _LEAST
        ):
            raise UnsupportedError(f"in PyTorch, its output {name} differs by {apart:.3g}")


def lesson_for(subject: Subject, source: Source) -> Lesson:
    """The subject's rows and answers, and where they are few, more of them."""
    return lesson_of(subject.variant.model, subject.rows, subject.answers, source.total)


def train(
    model: onnx.ModelProto,
    lesson: Lesson,
    report: Progress,
    *,
    deadline: float,
    norms: Mapping[str, Moments] | None = None,
    masks: Mapping[str, Array] | None = None,
    work: float = _WORK,
    changed: float = 1.0,
) -> Taught:
    """Distil with a recipe that fits the graph and the rows.

    Parameters
    ----------
    model : ModelProto
        Changed.
    lesson : Lesson
    report : callable
    deadline : float
    norms, masks
        See `modelport.optimize.train.distil.distil`.
    work : float
        Multiplications that may be spent on forward steps.
    changed : float
        The share of the multiplications that is gone: what has lost little forgets the rest by
        steps that are as large as those of what has lost much.
    """
    observed = observe_graph(model, lesson.rows)
    cost = sum(observed.multiplications(model).values())
    started = time.monotonic()
    seconds = _seconds(deadline - started)
    work *= seconds / _SECONDS if seconds > _SECONDS else 1
    if work / max(cost, 1) < _FEWEST_ROWS:
        raise UnsupportedError(
            f"a row takes {cost / 1e6:.0f} million multiplications, and {_FEWEST_ROWS} times a row "
            f"more than the {max(seconds, _SECONDS) / 60:.0f} minutes that a training has",
            hint="--budget gives a tenth of the time to each training",
        )
    recipe = recipe_for(model, observed, cost, lesson.count, bool(norms), work)
    if norms:  # otherwise the rate is low as it is
        recipe = replace(recipe, rate=recipe.rate * min(1.0, changed / _MUCH))
    taught = distil(
        model, lesson, recipe, report, norms=norms, masks=masks,
        deadline=started + seconds,
    )  # fmt: skip
    report(
        f"    trained {time.monotonic() - started:.0f} s: loss {taught.before:.4g} to "
        f"{taught.after:.4g}"
    )
    return taught


def _seconds(left: float) -> float:
    if math.isinf(left):
        return _SECONDS
    return min(max(_SECONDS, _SHARE_OF_BUDGET * left), _MOST_OF_BUDGET * left)


def recipe_for(
    model: onnx.ModelProto, observed: Observed, cost: float, rows: int, normed: bool, work: float
) -> Recipe:
    """Steps by what they cost, the batch by its memory, the rate by the kind of network."""
    floats = sum(
        float(np.prod(observed.shapes[name])) / 2
        for node in model.graph.node
        for name in node.output
        if name in observed.shapes
    )
    fitting = int(_MEMORY / (8 * max(floats, 1)))
    # Many small steps teach more than few large ones, where there are few rows.
    batch = max(min(_BATCH, fitting, rows // 16), _SMALLEST_BATCH)
    epochs = min(work / max(cost * rows, 1), _MOST_EPOCHS)
    steps = int(min(max(epochs * rows / batch, 1), _MOST_STEPS))
    kinds = operators(model)
    if normed:
        rate = _RATE_NORMED
    elif kinds & {"LayerNormalization", "Softmax"} and "MatMul" in kinds:
        rate = _RATE_TRANSFORMER
    else:
        rate = _RATE
    # Half of the cores: others wait for each other when the machine has something else to do.
    threads = len(os.sched_getaffinity(0)) // 2 if cost * batch > _WORTH_THREADS else 1
    least = min(_FEWEST_ROWS, steps * batch) // 2
    return Recipe(steps, batch, rate, max(threads, 1), least)
