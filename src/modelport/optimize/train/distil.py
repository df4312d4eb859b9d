"""Training a changed graph to answer as the original does; right answers may help, if given.

Adam (Kingma and Ba, 2015) with a rate that rises for a twentieth of the steps and then falls along
a cosine. A part of the rows is held out: after every eighth of the training they decide whether
the weights are the best so far, which are the ones that are kept. Seeds are fixed: the same rows
give the same weights on the same machine, unless the deadline cuts the training short.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import torch
from torch import Tensor

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.base import Progress
from modelport.optimize.train.call import tensor_of
from modelport.optimize.train.clock import TRIAL, Clock
from modelport.optimize.train.graph import Moments, TorchGraph
from modelport.optimize.train.lesson import Batch, Examples, Lesson
from modelport.optimize.train.losses import total_loss
from modelport.optimize.train.recipe import Recipe

_MOST_GRADIENT: Final = 5.0
#: Steps that the deadline has to leave room for; fewer teach nothing.
_FEWEST_STEPS: Final = 10


@dataclass(frozen=True)
class Taught:
    """A trained graph.

    Parameters
    ----------
    model : ModelProto
    before, after : float
        The loss on rows that were held out, without training and with the weights that were kept.
    steps : int
        After which these were reached.
    scores : tuple of (float, float)
        How good the answers to these rows are, before and after, by the right ones; larger is
        better. (0, 0) where there are none.
    """

    model: onnx.ModelProto
    before: float
    after: float
    steps: int
    scores: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))


def distil(
    model: onnx.ModelProto,
    lesson: Lesson,
    recipe: Recipe,
    report: Progress,
    *,
    norms: Mapping[str, Moments] | None = None,
    masks: Mapping[str, Array] | None = None,
    deadline: float = float("inf"),
) -> Taught:
    """Train a graph's weights on a teacher's answers.

    Parameters
    ----------
    model : ModelProto
        Constants folded; it is left as it is.
    lesson : Lesson
        Rows and the teacher's answers.
    recipe : Recipe
    report : callable
    norms : mapping of str to Moments, optional
        Convolutions that are normalized in training: see `TorchGraph`.
    masks : mapping of str to ndarray, optional
        By the name of a weight: where it is 0 the weight is and stays 0.
    deadline : float
        In the time of `time.monotonic`.

    Raises
    ------
    UnsupportedError
        When the graph has operators that are not known, or the time is too short.
    """
    graph = TorchGraph(model, norms)
    pupil = _Pupil(graph, lesson, recipe, masks or {})
    with _threads(recipe.threads):
        started = time.monotonic()
        pupil.examine(0)
        # The held rows are looked at once more when the time is up.
        clock = Clock(recipe.steps, deadline - (time.monotonic() - started))
        for batch in lesson.learned.batches(recipe.batch, recipe.seed):
            if clock.over():
                if clock.step < min(_FEWEST_STEPS, recipe.steps):
                    raise UnsupportedError(
                        "the time was up before it had learned anything (--budget)"
                    )
                break
            if not pupil.learn(batch, clock.rate()):
                break
            checked = clock.tick()
            if clock.step == TRIAL and clock.possible() < recipe.least:
                raise UnsupportedError(
                    f"a step of {recipe.batch} rows takes {clock.each():.2g} s here: "
                    f"{clock.possible():.0f} fit into the time that is left, and fewer than "
                    f"{recipe.least} teach too little (--budget)"
                )
            if checked:
                pupil.examine(clock.step)
            if clock.tells(checked):
                report(
                    f"    {clock.step} of {recipe.steps} steps, {clock.left():.0f} s left: "
                    f"loss {pupil.last:.4g}"
                )
        pupil.examine(clock.step)
        return pupil.taught()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Pupil:
    """A graph that learns; its best weights so far."""

    def __init__(
        self, graph: TorchGraph, lesson: Lesson, recipe: Recipe, masks: Mapping[str, Array]
    ) -> None:
        self._graph, self._lesson, self._recipe = graph, lesson, recipe
        self._masks = [(graph.weight(name), tensor_of(mask)) for name, mask in masks.items()]
        self._optimizer = torch.optim.Adam(graph.parameters(), lr=recipe.rate)
        self._best, self._best_step = float("inf"), 0
        self._examined: dict[int, float] = {}
        self._state: dict[str, Tensor] = {}
        self._first = self._score = (0.0, 0.0)
        self._mask()

    @property
    def last(self) -> float:
        """The loss on the held rows when they were looked at last."""
        return list(self._examined.values())[-1]

    def learn(self, batch: Batch, rate: float) -> bool:
        """One step; whether there is a loss to go on with: too large steps end in infinities."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.rate * rate
        self._graph.train()
        self._optimizer.zero_grad()
        loss = self._loss(self._graph(batch.rows), batch)
        if not bool(torch.isfinite(loss)):
            return False
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._graph.parameters(), _MOST_GRADIENT)
        self._optimizer.step()
        self._mask()
        return True

    def examine(self, step: int) -> None:
        """Look at the held rows; keep the weights as they are now if they are the best."""
        if step in self._examined:
            return
        loss, score = self._held(self._lesson.held)
        self._examined[step] = loss
        if not self._state or loss < self._best:
            self._first = self._first if self._state else score
            self._best, self._best_step, self._score = loss, step, score
            self._state = {name: value.clone() for name, value in self._graph.state_dict().items()}

    def taught(self) -> Taught:
        """The graph with the best weights."""
        self._graph.load_state_dict(self._state)
        return Taught(
            self._graph.write(), self._examined[0], self._best, self._best_step,
            (self._first, self._score),
        )  # fmt: skip

    def _mask(self) -> None:
        with torch.no_grad():
            for weight, mask in self._masks:
                weight.mul_(mask)

    def _loss(self, found: Mapping[str, Tensor], batch: Batch) -> Tensor:
        told = total_loss(self._lesson.goals, found, batch.answers)
        share, target = self._recipe.right, self._lesson.target
        if not share or target is None or batch.right is None:
            return told
        return (1 - share) * told + share * target.loss(found, batch.right)

    def _held(self, held: Examples) -> tuple[float, tuple[float, float]]:
        """The mean loss, and the score by the right answers."""
        self._graph.eval()
        losses, scores, counts = [], [], []
        target = self._lesson.target
        with torch.no_grad():
            for part in held.parts(self._recipe.batch):
                found = self._graph(part.rows)
                losses.append(float(self._loss(found, part)))
                if target is not None and part.right is not None:
                    scores.append(target.score(found, part.right))
                counts.append(len(next(iter(part.rows.values()))))
        loss = float(np.average(losses, weights=counts))
        score = np.average(scores, axis=0, weights=counts) if scores else (0.0, 0.0)
        return (loss if math.isfinite(loss) else float("inf")), (float(score[0]), float(score[1]))
