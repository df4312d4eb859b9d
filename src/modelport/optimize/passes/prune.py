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
from collections.abc import Iterator
from typing import Final

import numpy as np
from onnx import numpy_helper

from modelport.core.errors import ModelportError, UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.base import NUMBERS, Progress, Subject, Variant
from modelport.optimize.onnx_graph import operators, parse, serialize
from modelport.optimize.reduce.sparsity import (
    magnitude_masks,
    pattern_mask,
    prunable_weights,
    sparse,
)
from modelport.optimize.train.source import Source, lesson_for, source_of, train

_ZEROS: Final = (0.9, 0.95)
_PATTERN: Final = (1, 8)
#: Multiplications of a training: what is left of its weights is where it was.
_WORK: Final = 5e11
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
        source = source_of(subject)
        lesson = lesson_for(subject, source)
        moments = source.moments(subject)
        for made, (name, masks) in enumerate(_masks(source)):
            report(f"  {name}")
            try:
                taught = train(
                    source.model, lesson, report, deadline=subject.deadline, norms=moments,
                    masks=masks, work=_WORK,
                )  # fmt: skip
            except UnsupportedError as error:
                if not made:
                    raise
                report(f"  no more: {error.message}")
                return
            model, stored = sparse(taught.model)
            packed = serialize(model)
            yield subject.variant.then(
                f"prune, {name}", packed, zeros=_zeros(taught.model.graph.initializer, masks),
                sparse=stored, compressed=len(zlib.compress(serialize(taught.model))),
                steps=taught.steps, loss=taught.after,
            )  # fmt: skip


def _masks(source: Source) -> Iterator[tuple[str, dict[str, Array]]]:
    weights = prunable_weights(source.model)
    arrays = {name: array for name, (array, _) in weights.items()}
    for share in _ZEROS:
        yield f"{share:.0%} zeros", magnitude_masks(arrays, share)
    kept, of = _PATTERN
    patterns = {
        name: pattern_mask(array, axis, kept, of) for name, (array, axis) in weights.items()
    }
    yield f"{kept} of {of} kept", patterns


def _zeros(initializers: object, masks: dict[str, Array]) -> float:
    """The share of zeros in what was pruned."""
    found = [
        numpy_helper.to_array(item) == 0
        for item in initializers  # type: ignore[attr-defined]
        if item.name in masks
    ]
    return round(float(np.mean(np.concatenate([zero.ravel() for zero in found]))), 4)
