"""A small network from scratch that learns what a model answers whose own parts cannot go.

For recurrent networks and graphs with operators that training does not know: the student knows
nothing of the graph but rows and answers. Rows of numbers get a perceptron, sequences and images
small convolutional networks; see `modelport.optimize.train.distil`. Of a model
whose channels can be removed, what is left of itself is the better student.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from modelport.core.errors import ModelportError, UnsupportedError
from modelport.optimize.base import REDUCE, Progress, Subject, Variant
from modelport.optimize.onnx_graph import operators, parse, serialize
from modelport.optimize.train.clock import Allowance
from modelport.optimize.train.graph import Moments, normalizable
from modelport.optimize.train.lesson import lesson_of
from modelport.optimize.train.prunable import prunable
from modelport.optimize.train.student import student_of
from modelport.optimize.train.trainings import Plan, train_in_turn

_WIDTHS: Final = (32, 64)
#: What learns from scratch needs more than what is left of a trained network.
_FEWEST: Final = 200
#: Of the original's bytes.
_LARGEST: Final = 0.7
_TREES: Final = ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")
#: Of making more rows out of few: the original is asked, whatever it consists of.
_ASSUMED_COST: Final = 1e8


class NetworkStudentPass:
    """See the module."""

    name = "network-student"
    order = REDUCE
    tolerance = float("inf")

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        if operators(parse(subject.variant.model)) & set(_TREES):
            return "it has trees, which are reduced otherwise"
        try:
            size = len(serialize(student_of(subject, _WIDTHS[0])))
        except ModelportError as error:
            return error.line
        count = len(next(iter(subject.rows.values())))
        if count < _FEWEST:
            return f"{count} rows are too few to learn from scratch: at least {_FEWEST}"
        if size > _LARGEST * len(subject.variant.model):
            return "it is as small as a student would be"
        try:
            prunable(subject)
        except ModelportError:
            return ""
        return "its own channels can be removed, which leaves a better student"

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        allowance = Allowance(subject.deadline)
        lesson = lesson_of(subject, _ASSUMED_COST)
        for plan, model, detail in train_in_turn(_plans(subject), lesson, allowance, report):
            if not detail["steps"]:
                raise UnsupportedError("a student learned nothing of its answers")
            yield subject.variant.then(plan.name, serialize(model), **detail)


def _plans(subject: Subject) -> Iterator[Plan]:
    """Students, the smallest first."""
    for width in _WIDTHS:
        model = student_of(subject, width)
        if len(serialize(model)) > _LARGEST * len(subject.variant.model):
            return
        widths = {item.name: item.dims[0] for item in model.graph.initializer if item.dims}
        norms = {
            node.name: Moments(
                np.zeros(widths[node.input[1]], np.float32),
                np.ones(widths[node.input[1]], np.float32),
            )
            for node in normalizable(model)
        }
        yield Plan(f"network-student, {width} wide", model, norms, detail={"width": width})
