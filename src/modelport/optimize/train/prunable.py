"""Subjects whose channels can be removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelport.core.errors import UnsupportedError
from modelport.optimize.base import Subject
from modelport.optimize.reduce.labels import Labels
from modelport.optimize.reduce.widths import Group, cost_without, groups_of, narrower
from modelport.optimize.train.source import Source, source_of

#: A share of the multiplications that is not worth a training.
LEAST_SAVED: Final = 0.1


@dataclass(frozen=True)
class Prunable:
    """A graph, what its channels depend on, and those that may go.

    Parameters
    ----------
    source : Source
    labels : Labels
    groups : list of Group
    """

    source: Source
    labels: Labels
    groups: list[Group]


def prunable(subject: Subject) -> Prunable:
    """The channels of a subject that may go.

    Raises
    ------
    UnsupportedError
        When it cannot be trained, or hardly any channel may go; the message says why.
    """
    source = source_of(subject)
    labels = Labels(source.model, source.observed)
    groups = groups_of(labels)
    if not groups:
        raise UnsupportedError("no layer is wide enough, or others depend on all its channels")
    least = narrower(groups, {}, 0.0)
    left = cost_without(labels, source.costs, source.model, least)
    if left > (1 - LEAST_SAVED) * source.total:
        raise UnsupportedError("the channels that could go take less than a tenth of the time")
    return Prunable(source, labels, groups)
