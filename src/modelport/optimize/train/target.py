"""What a student learns from right answers, where people gave them beside the teacher's.

Of classes it learns the cross-entropy of the right one, of numbers the squared error; both are
mixed with what it learns from the teacher ("hard targets" of Hinton, Vinyals and Dean, 2015,
section 2). Rows that were made up have no right answer and are left out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from modelport.core.errors import InputError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.answers import as_text, target_labels, target_numbers
from modelport.optimize.base import Subject
from modelport.optimize.train.losses import NUMBERS, PROBABILITIES, REGRESSION, SCORES, Goal

#: In the places of labels: of a row that has none.
UNKNOWN: Final = -1
_LEAST: Final = 1e-12


@dataclass(frozen=True)
class Target:
    """The output that right answers are about.

    Parameters
    ----------
    goal : Goal
    metric : str
        What `score` begins with, for people.
    """

    goal: Goal
    metric: str

    def loss(self, found: Mapping[str, Tensor], right: Tensor) -> Tensor:
        """The mean over the rows that have a right answer; zero if none has.

        Parameters
        ----------
        found : mapping of str to Tensor
            The student's outputs.
        right : Tensor
            Places of labels, or numbers of the shape of the output.
        """
        answers = found[self.goal.name].float()
        if self.goal.kind == NUMBERS:
            given = torch.isfinite(right)
            squares = (answers - torch.where(given, right, answers.detach())) ** 2
            return (squares / self.goal.variance_of(answers)).sum() / given.sum().clamp(min=1)
        if self.goal.kind == PROBABILITIES:
            answers = answers.clamp(min=_LEAST).log()
        total = F.cross_entropy(answers, right, ignore_index=UNKNOWN, reduction="sum")
        return total / (right != UNKNOWN).sum().clamp(min=1)

    def score(self, found: Mapping[str, Tensor], right: Tensor) -> tuple[float, float]:
        """How good answers are, larger is better: the metric, and minus the loss for ties."""
        loss = -float(self.loss(found, right))
        if self.goal.kind == NUMBERS:
            return loss, loss
        given = right != UNKNOWN
        hits = found[self.goal.name].argmax(dim=-1)[given] == right[given]
        return float(hits.float().mean()) if len(hits) else 0.0, loss


def task_of(subject: Subject) -> str:
    """The package's task; where it has none, right answers with fractions mean a regression."""
    right = subject.target
    if subject.task or right is None or right.dtype.kind != "f":
        return subject.task
    return "" if np.array_equal(right, np.round(right)) else REGRESSION


def target_of(subject: Subject, goals: Sequence[Goal]) -> tuple[Target, Array] | str:
    """What right answers are about, and what they are in terms of the model's own answers.

    Returns
    -------
    (Target, ndarray) or str
        The array has one entry per row: int64 places of labels, `UNKNOWN` where the label is not
        one of the model's; or float32 numbers. Text: why nothing can be learned from them; empty
        where there are none.
    """
    if subject.target is None:
        return ""
    scored = [g for g in goals if g.kind in (SCORES, PROBABILITIES)]
    try:
        if scored:
            return _labels(subject, scored[0])
        return _numbers(subject, goals[0])
    except InputError as error:
        return error.message


def _labels(subject: Subject, goal: Goal) -> tuple[Target, Array] | str:
    labels = target_labels(np.asarray(subject.target))
    scores = subject.answers[goal.name]
    best = scores.argmax(axis=1)
    names = _names(subject.answers, best) or [str(place) for place in range(scores.shape[1])]
    of = {name: place for place, name in enumerate(names) if name}
    places = np.array([of.get(label, UNKNOWN) for label in labels.tolist()], dtype=np.int64)
    known = places != UNKNOWN
    if not known.any():
        return (
            f"labels like {labels[0]} are no places of scores in {goal.name}, and what they are "
            "called only steps after the model know"
        )
    right = float(np.mean(best[known] == places[known]))
    if right < np.bincount(places[known]).max() / known.sum():
        return (
            f"the model itself is right on {right:.0%} of the rows, less than one label alone "
            "would be: its scores are in another order, or it is no teacher"
        )
    return Target(goal, "accuracy"), places


def _names(answers: Tensors, best: Array) -> list[str]:
    """The model's own labels by the places of its scores, "" where unseen; empty: it has none."""
    for array in answers.values():
        if array.dtype.kind == "f" or array.size != len(best):
            continue
        texts = as_text(array.reshape(-1))
        pairs = set(zip(best.tolist(), texts.tolist(), strict=True))
        if len(pairs) == len({place for place, _ in pairs}) == len({text for _, text in pairs}):
            named = dict(pairs)
            return [named.get(place, "") for place in range(max(named) + 1)]
    return []


def _numbers(subject: Subject, goal: Goal) -> tuple[Target, Array] | str:
    if goal.kind != NUMBERS:
        return f"its output {goal.name} is neither scores of classes nor numbers"
    if subject.task and subject.task != REGRESSION:
        return f"its output {goal.name} is one score, and labels are learned from one per class"
    answers = subject.answers[goal.name]
    numbers = target_numbers(np.asarray(subject.target))
    if numbers.size != answers.size:
        return f"the target has another number of values per row than the output {goal.name}"
    right = numbers.reshape(answers.shape)
    if float(np.mean((right - answers) ** 2)) >= float(right.var()):
        return "the model itself is worse than the mean of the right answers: they are no target"
    return Target(goal, "−squared error"), right.astype(np.float32)
