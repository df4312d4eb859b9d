"""Scores become labels: the best, or the best few, with their probabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from modelport.core.compare import Tolerance
from modelport.core.errors import InputError
from modelport.core.steps import LabelsStep
from modelport.core.tensors import STRING, Array, Tensors, TensorSpec
from modelport.processing.base import Facts, Transform

#: How far probabilities of a model may be from a sum of 1.
_ROUNDING: Final = 1e-2


class LabelsProcessor:
    """See the module."""

    def fit(self, step: LabelsStep, facts: Facts) -> LabelsStep:
        """See `modelport.processing.base.Processor.fit`."""
        spec = _scores(facts, step)
        classes = 2 if _binary(spec) else spec.shape[-1]
        if isinstance(classes, int) and classes != len(step.labels):
            raise InputError(
                f"{len(step.labels)} labels do not fit output {spec.name} {spec.shape_text}"
            )
        answers = facts.answers.get(spec.name)
        if answers is not None and answers.ndim == 2 and not _binary(spec):
            _check_width(spec.name, answers, step)
        if _binary(spec) and step.top_k:
            raise InputError(f"output {spec.name} {spec.shape_text} has no {step.top_k} best")
        if _binary(spec) and step.activation == "softmax":
            raise InputError(f"output {spec.name} {spec.shape_text}: one score has no softmax")
        taken = {s.name for s in facts.known.outputs if step.keep or s.name != spec.name}
        names = ("labels", "probabilities") if step.top_k else ("label", "probability")
        prefix = "top_" if taken & set(names) else ""
        label, probability = (prefix + name for name in names)
        return replace(
            step,
            output=spec.name,
            activation=step.activation or _activation(spec, answers),
            label=step.label or label,
            probability=step.probability or probability,
        )

    def open(self, step: LabelsStep, facts: Facts) -> Transform:
        """See `modelport.processing.base.Processor.open`."""
        return LabelsTransform(step, facts.known.outputs_by_name[step.output])


class LabelsTransform:
    """Decides row by row, in float64.

    Parameters
    ----------
    step : LabelsStep
        Fitted.
    spec : TensorSpec
        Of the scores.
    """

    row_independent = True
    library = ""

    def __init__(self, step: LabelsStep, spec: TensorSpec) -> None:
        self._step = step
        self._binary = _binary(spec)
        self._labels = np.asarray(step.labels, dtype=object)
        shape = (spec.shape[0], *((step.top_k,) if step.top_k else ()))
        self.takes = (spec,)
        self.gives = (
            TensorSpec(step.label, STRING, shape),
            TensorSpec(step.probability, spec.dtype, shape),
        )

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """See `modelport.processing.base.Transform.run`."""
        step = self._step
        raw = tensors[step.output]
        probabilities = self._probabilities(raw)
        count = step.top_k or 1
        # Stable: of equal scores the first label comes first, on every machine.
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
        chosen = np.take_along_axis(probabilities, best, axis=1).astype(raw.dtype)
        labels = self._labels[best]
        if not step.top_k:
            labels, chosen = labels[:, 0], chosen[:, 0]
        return {step.label: labels, step.probability: chosen}

    def clear(self, tensors: Tensors, tolerance: Tolerance) -> Array:
        """See `modelport.processing.base.RankedTransform.clear`.

        What decides are the differences between neighbours in rank; each of the two scores may
        be wrong by the tolerance (see `modelport.core.compare`).
        """
        scores = self._scores(tensors[self._step.output])
        finite = np.abs(scores[np.isfinite(scores)])
        scale = max(1.0, float(finite.max(initial=0.0)))
        error = tolerance.relative * np.abs(scores) + tolerance.absolute * scale
        order = np.argsort(-scores, axis=1, kind="stable")[:, : (self._step.top_k or 1) + 1]
        ranked = np.take_along_axis(scores, order, axis=1)
        slack = np.take_along_axis(error, order, axis=1)
        with np.errstate(invalid="ignore"):
            gaps = ranked[:, :-1] - ranked[:, 1:] > slack[:, :-1] + slack[:, 1:]
        clear: Array = gaps.all(axis=1)
        return clear

    def _scores(self, raw: Array) -> Array:
        """Two dimensions; of a binary score both sides of its border."""
        scores = raw.astype(np.float64)
        if not self._binary:
            _check_width(self._step.output, scores, self._step)
            return scores
        positive = scores.reshape(-1)
        border = 1.0 if self._step.activation == "none" else 0.0
        return np.stack([border - positive, positive], axis=1)

    def _probabilities(self, raw: Array) -> Array:
        scores = self._scores(raw)
        if self._step.activation == "none":
            return scores
        with np.errstate(over="ignore", invalid="ignore"):
            if self._step.activation == "sigmoid":
                # Written so that nothing overflows; of a binary score the two sum to 1.
                tail = np.exp(-np.abs(scores))
                return np.where(scores >= 0, 1.0 / (1.0 + tail), tail / (1.0 + tail))
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _scores(facts: Facts, step: LabelsStep) -> TensorSpec:
    """The model's output that holds the scores."""
    specs = facts.known.outputs_by_name
    shown = ", ".join(f"{s.name} {s.dtype} {s.shape_text}" for s in specs.values())
    if step.output:
        spec = specs.get(step.output)
        if spec is None or spec.numpy_dtype.kind != "f" or len(spec.shape) not in (1, 2):
            raise InputError(
                f"the labels step reads scores from {step.output!r}; the model gives: {shown}"
            )
        return spec
    floats = [s for s in specs.values() if s.numpy_dtype.kind == "f" and len(s.shape) in (1, 2)]
    sized = [s for s in floats if len(s.shape) == 2 and s.shape[1] == len(step.labels)]
    for fitting in (sized, floats):
        if len(fitting) == 1:
            return fitting[0]
    raise InputError(
        f"no telling which output holds the scores of {len(step.labels)} labels; "
        f"the model gives: {shown}",
        hint="declare it: 'output'",
    )


def _binary(spec: TensorSpec) -> bool:
    """Whether it holds one score per row, of the second of two labels."""
    return len(spec.shape) == 1 or spec.shape[1] == 1


def _check_width(name: str, scores: Array, step: LabelsStep) -> None:
    if scores.shape[1] != len(step.labels):
        raise InputError(
            f"output {name} has {scores.shape[1]} scores per row, and there are "
            f"{len(step.labels)} labels"
        )


def _activation(spec: TensorSpec, answers: Array | None) -> str:
    """Whether scores on real rows are probabilities already."""
    if answers is None or not answers.size:
        return "none"
    within = bool(((answers >= 0) & (answers <= 1)).all())
    if _binary(spec):
        return "none" if within else "sigmoid"
    sums = answers.astype(np.float64).sum(axis=1)
    return "none" if within and np.allclose(sums, 1.0, atol=_ROUNDING) else "softmax"
