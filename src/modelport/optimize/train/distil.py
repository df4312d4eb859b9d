"""Training a changed graph to answer as the original does; labels are never needed.

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
from modelport.optimize.train.graph import Moments, TorchGraph
from modelport.optimize.train.lesson import Lesson
from modelport.optimize.train.losses import Goal, goals_of, total_loss

_WARM: Final = 0.05
_CHECKS: Final = 8
_MOST_GRADIENT: Final = 5.0
#: Steps that the deadline has to leave room for; fewer teach nothing.
_FEWEST_STEPS: Final = 10
#: Steps after which it is known how long one takes.
_TRIAL: Final = 4


@dataclass(frozen=True)
class Recipe:
    """How a student is trained.

    Parameters
    ----------
    steps : int
    batch : int
        Rows per step.
    rate : float
        The highest learning rate.
    threads : int
        A network that is small for its threads waits for them.
    least : int
        Rows, counted again when they come again, that have to fit into the time: after the first
        steps it is clear whether they do, and less than that would be minutes for nothing.
    seed : int
        Of the order of the rows.
    """

    steps: int
    batch: int
    rate: float
    threads: int = 1
    least: int = 0
    seed: int = 0


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
    """

    model: onnx.ModelProto
    before: float
    after: float
    steps: int


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
    goals = goals_of(lesson.answers, lesson.count)
    held = lesson.held
    fixed: dict[Tensor, Tensor] = {
        graph.weight(name): torch.from_numpy(mask) for name, mask in (masks or {}).items()
    }
    optimizer = torch.optim.Adam(graph.parameters(), lr=recipe.rate)
    keeper = _Keeper(graph, fixed)
    with _threads(recipe.threads):
        keeper.offer(0, _held_loss(graph, goals, held, recipe.batch))
        clock = _Clock(recipe.steps, deadline)
        for batch in lesson.batches(recipe.batch, recipe.seed):
            if clock.over():
                break
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * clock.rate()
            graph.train()
            optimizer.zero_grad()
            found = graph(batch.rows)
            loss = total_loss(goals, found, batch.answers)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(graph.parameters(), _MOST_GRADIENT)
            optimizer.step()
            keeper.mask()
            checked = clock.tick()
            if clock.step == _TRIAL and clock.possible() * recipe.batch < recipe.least:
                raise UnsupportedError(
                    f"a step of {recipe.batch} rows takes {clock.each():.2g} s here, which is too "
                    "long to learn enough in the time that there is"
                )
            if checked:
                left = keeper.offer(clock.step, _held_loss(graph, goals, held, recipe.batch))
                report(f"    {clock.step} of {recipe.steps} steps: loss {left:.4g}")
    if clock.step < min(_FEWEST_STEPS, recipe.steps):
        raise UnsupportedError("the time was up before it had learned anything (--budget)")
    return keeper.taught()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Clock:
    """Steps and time: when to stop, how fast to learn, when to look at the held rows."""

    def __init__(self, steps: int, deadline: float) -> None:
        self.step = 0
        self._steps, self._start, self._deadline = steps, time.monotonic(), deadline
        self._next_check = 1 / _CHECKS
        self._hurried = False

    def _progress(self) -> float:
        """The share that is done: of the steps, or of the time where that comes first."""
        share = self.step / self._steps
        passed = time.monotonic() - self._start
        room = self._deadline - self._start
        if self.step >= _FEWEST_STEPS and passed / self.step * self._steps > room:
            self._hurried = True
        return max(share, passed / max(room, 1e-9)) if self._hurried else share

    def each(self) -> float:
        """Seconds per step so far."""
        return (time.monotonic() - self._start) / max(self.step, 1)

    def possible(self) -> float:
        """Steps that fit into the time."""
        return min(self._steps, (self._deadline - self._start) / max(self.each(), 1e-9))

    def over(self) -> bool:
        return self._progress() >= 1 or time.monotonic() >= self._deadline

    def rate(self) -> float:
        rising = (self.step + 1) / max(_WARM * self._steps, 1)
        return min(rising, 0.5 * (1 + math.cos(math.pi * min(self._progress(), 1))))

    def tick(self) -> bool:
        """Count a step; whether the held rows have to be looked at."""
        self.step += 1
        if self._progress() < self._next_check and self.step < self._steps:
            return False
        self._next_check = self._progress() + 1 / _CHECKS
        return True


class _Keeper:
    """The best weights so far."""

    def __init__(self, graph: TorchGraph, masks: Mapping[Tensor, Tensor]) -> None:
        self._graph, self._masks = graph, masks
        self._best, self._step = float("inf"), 0
        self._before: float | None = None
        self._state: dict[str, Tensor] = {}
        self.mask()

    def mask(self) -> None:
        with torch.no_grad():
            for weight, mask in self._masks.items():
                weight.mul_(mask)

    def offer(self, step: int, loss: float) -> float:
        """Keep the weights as they are now if they are the best; the loss."""
        self._before = loss if self._before is None else self._before
        if not self._state or loss < self._best:
            self._best, self._step = loss, step
            self._state = {name: value.clone() for name, value in self._graph.state_dict().items()}
        return loss

    def taught(self) -> Taught:
        self._graph.load_state_dict(self._state)
        return Taught(self._graph.write(), self._before or 0.0, self._best, self._step)


def _held_loss(graph: TorchGraph, goals: list[Goal], held: Lesson, size: int) -> float:
    graph.eval()
    losses, counts = [], []
    with torch.no_grad():
        for part in held.parts(size):
            losses.append(float(total_loss(goals, graph(part.rows), part.answers)))
            counts.append(len(next(iter(part.rows.values()))))
    loss = float(np.average(losses, weights=counts))
    return loss if math.isfinite(loss) else float("inf")
