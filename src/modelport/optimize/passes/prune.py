"""Sets most weights to zero, lets the others learn the original's answers, stores only these.

It makes files smaller, and nothing faster: ONNX Runtime gains no time by zeros here and there. A
weight that is kept takes eight bytes with its place. So half of them have to be zero before
anything is gained, three of four before it is less than float16 takes, seven of eight before it is
less than int8, which is faster, too. Hence nine of ten is the least that is proposed, and a
pattern of one in eight, for runtimes that skip what a pattern leaves out; 2 of 4, the pattern of
some GPUs, gains nothing here. And it comes last, since what changes the numbers again would store
the zeros again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from modelport.core.errors import ModelportError
from modelport.core.tensors import Array
from modelport.optimize.base import NUMBERS, Progress, Subject, Variant
from modelport.optimize.onnx_graph import operators, parse, serialize
from modelport.optimize.reduce.sparsity import (
    magnitude_masks,
    pattern_mask,
    prunable_weights,
    sparse,
)
from modelport.optimize.train.clock import Allowance
from modelport.optimize.train.lesson import lesson_of
from modelport.optimize.train.source import source_of
from modelport.optimize.train.trainings import Plan, train_in_turn

_ZEROS: Final = (0.9, 0.95)
_PATTERN: Final = (1, 8)
#: Multiplications of a training: what is left of its weights is where it was.
_WORK: Final = 5e11
#: Of the time: what is quantized is as small, and faster.
_SHARE_OF_TIME: Final = 1 / 3
#: Below, the file is hardly smaller: the rest of the graph is the larger part.
_LEAST_SHARE: Final = 0.5


class PrunePass:
    """See the module."""

    name = "prune"
    order = NUMBERS
    tolerance = float("inf")

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        if subject.variant.passes:
            return "what is left of it is smaller as int8 than as numbers with their places"
        if operators(parse(subject.variant.model)) & {"DequantizeLinear", "MatMulInteger"}:
            return "it is quantized already, which is smaller"
        try:
            weights = prunable_weights(source_of(subject).model)
        except ModelportError as error:
            return error.line
        share = sum(array.nbytes for array, _ in weights.values()) / len(subject.variant.model)
        if share < _LEAST_SHARE:
            return f"large matrices and filters are only {share:.0%} of the file"
        return ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        allowance = Allowance(subject.deadline, _SHARE_OF_TIME)
        source = source_of(subject)
        lesson = lesson_of(subject, source.total)
        moments = source.moments(subject)
        masks = _masks(source.model)
        plans = (
            Plan(f"prune, {name}", source.model, moments, masks[name], work=_WORK) for name in masks
        )
        for plan, taught, detail in train_in_turn(plans, lesson, allowance, report, len(masks)):
            model, stored = sparse(taught, set(plan.masks or ()))
            yield subject.variant.then(
                plan.name, serialize(model), **detail, zeros=_zeros(taught, plan.masks or {}),
                sparse=stored, compressed=len(zlib.compress(serialize(taught))),
            )  # fmt: skip


def _masks(model: onnx.ModelProto) -> dict[str, dict[str, Array]]:
    """What is kept of each weight, by what it is called."""
    weights = prunable_weights(model)
    arrays = {name: array for name, (array, _) in weights.items()}
    found = {f"{share:.0%} zeros": magnitude_masks(arrays, share) for share in _ZEROS}
    kept, of = _PATTERN
    found[f"{kept} of {of} kept"] = {
        name: pattern_mask(array, axis, kept, of) for name, (array, axis) in weights.items()
    }
    return found


def _zeros(model: onnx.ModelProto, masks: Mapping[str, Array]) -> float:
    """The share of zeros in what was pruned."""
    arrays = [numpy_helper.to_array(item) for item in model.graph.initializer if item.name in masks]
    left = sum(int(np.count_nonzero(array)) for array in arrays)
    return round(1 - left / sum(array.size for array in arrays), 4)
