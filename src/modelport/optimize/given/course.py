"""How much a student learns, and which of its weights are kept; of any framework.

A part of the rows is held out: after every eighth of the course they decide whether the weights
are the best so far. The order of the rows is fixed, so the same student learns the same, unless
time cuts it short.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from modelport.core.errors import UnsupportedError
from modelport.optimize.base import Progress
from modelport.optimize.given.lesson import Lesson
from modelport.optimize.teachers.base import Pupil
from modelport.optimize.train.clock import Clock

_RATE: Final = 2e-3
_BATCH: Final = 64
_SMALLEST_BATCH: Final = 8
#: Batches that the rows should at least make: many small steps teach more than few large ones.
_BATCHES: Final = 16
_MOST_EPOCHS: Final = 60
_MOST_STEPS: Final = 3000
#: Fewer steps teach nothing.
_FEWEST_STEPS: Final = 10
_PART: Final = 256
_SEED: Final = 3


@dataclass(frozen=True)
class Taught:
    """What a course came to.

    Parameters
    ----------
    steps : int
        After which the weights were reached that were kept.
    before, after : float
        The loss on the held rows, untaught and with these weights.
    """

    steps: int
    before: float
    after: float


def teach(pupil: Pupil, lesson: Lesson, held: Lesson, seconds: float, report: Progress) -> Taught:
    """Let a student learn, and leave it with its best weights.

    Parameters
    ----------
    pupil : Pupil
    lesson : Lesson
        What it learns.
    held : Lesson
        What decides which weights are the best.
    seconds : float
        That it may take.
    report : callable

    Raises
    ------
    UnsupportedError
        When the loss becomes infinite or NaN, or the time is up before it has learned anything.
    """
    size = min(max(lesson.count // _BATCHES, _SMALLEST_BATCH), _BATCH)
    steps = min(max(_MOST_EPOCHS * lesson.count // size, 1), _MOST_STEPS)
    deadline = time.monotonic() + seconds
    before = best = _held_loss(pupil, held)
    kept = 0
    pupil.keep()
    clock = Clock(steps, deadline)
    batches = lesson.batches(size, _SEED)
    while not clock.over():
        loss = pupil.step(next(batches), _RATE * clock.rate())
        if not math.isfinite(loss):
            raise _diverged(clock.step, loss)
        if not clock.tick() and not clock.over():
            continue
        found = _held_loss(pupil, held)
        report(f"    {clock.step} of {steps} steps, {clock.left():.0f} s left: loss {found:.4g}")
        if not math.isfinite(found):
            raise _diverged(clock.step, found)
        if found < best:
            best, kept = found, clock.step
            pupil.keep()
    if clock.step < min(_FEWEST_STEPS, steps):
        raise UnsupportedError(
            f"the time was up after {clock.step} steps, before it had learned anything (--budget)"
        )
    pupil.restore()
    return Taught(kept, before, best)


def _diverged(step: int, loss: float) -> UnsupportedError:
    return UnsupportedError(
        f"its training diverged: after {step} steps the loss is {loss}; scale its inputs, or "
        "normalize between its layers"
    )


def _held_loss(pupil: Pupil, held: Lesson) -> float:
    losses, counts = [], []
    for at in range(0, held.count, _PART):
        part = held.take(np.arange(at, min(at + _PART, held.count)))
        losses.append(pupil.loss(part))
        counts.append(part.count)
    return float(np.average(losses, weights=counts))
