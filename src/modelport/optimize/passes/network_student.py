"""A small network from scratch that learns what a model answers whose own parts cannot go.

For recurrent networks and graphs with operators that training does not know: the student knows
nothing of the graph but rows and answers. Rows of numbers get a perceptron, sequences and images
small convolutional networks; all without labels, see `modelport.optimize.train.distil`. Of a model
whose channels can be removed, what is left of itself is the better student.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from modelport.core.errors import ModelportError, UnsupportedError
from modelport.optimize.base import REDUCE, Progress, Subject, Variant
from modelport.optimize.onnx_graph import operators, parse, serialize
from modelport.optimize.train.graph import Moments, normalizable
from modelport.optimize.train.lesson import lesson_of
from modelport.optimize.train.prunable import prunable
from modelport.optimize.train.source import train
from modelport.optimize.train.student import student_of

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
        lesson = lesson_of(subject.variant.model, subject.rows, subject.answers, _ASSUMED_COST)
        for width in _WIDTHS:
            model = student_of(subject, width)
            if len(serialize(model)) > _LARGEST * len(subject.variant.model):
                return
            report(f"  a student {width} wide")
            widths = {item.name: item.dims[0] for item in model.graph.initializer}
            norms = {
                node.name: Moments(
                    np.zeros(widths[node.input[1]], np.float32),
                    np.ones(widths[node.input[1]], np.float32),
                )
                for node in normalizable(model)
            }
            taught = train(model, lesson, report, deadline=subject.deadline, norms=norms)
            if not taught.steps:
                raise UnsupportedError("a student learned nothing of its answers")
            yield subject.variant.then(
                f"network-student, {width} wide", serialize(taught.model), width=width,
                steps=taught.steps, loss=taught.after,
            )  # fmt: skip
