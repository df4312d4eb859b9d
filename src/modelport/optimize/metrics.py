"""How good answers are: against labels, or against the original's own answers.

All metrics are turned so that larger is better, and losses are in their own unit:

=========== ==================================================================================
accuracy    share of rows with the right label
f1          F1 score, of the labels' mean (macro); for two labels of the second one
recall      likewise, recall
rmse        root of the mean squared error, negative, in units of the original's own: a loss of
            0.01 is one percent more (against the original: of its answers' standard deviation)
r2          share of the variance that is explained (against the original: of its answers)
cosine      mean cosine of the angle to the original's vectors
agreement   without labels: ``accuracy``, ``r2`` or ``cosine`` against the original's answers,
            whichever fits what the model answers
=========== ==================================================================================

``module:function`` is a function of the user's: ``f(expected, answers) -> float``, larger is
better, with the target's values and the outputs by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError
from modelport.core.tensors import Array, Tensors

NAMES: Final = ("accuracy", "f1", "recall", "rmse", "r2", "cosine", "agreement")

_OF_LABELS: Final = ("accuracy", "f1", "recall")
#: Rows of scores that add up to one, or are of length one, within this.
_SUM: Final = 1e-3


@dataclass(frozen=True)
class Judge:
    """A metric that is ready to be asked about answers to certain rows.

    Parameters
    ----------
    name : str
        What is measured, for people: ``accuracy``, ``agreement (same label)``.
    expected : ndarray
        Labels, numbers or vectors, one per row.
    decide : callable
        From outputs by name to what is compared with `expected`.
    function : callable
        From `expected` and what was decided, both for the same rows, to a number.
    share : bool
        Whether it is a share of rows: right or wrong.
    """

    name: str
    expected: Array
    decide: Callable[[Tensors], Any]
    function: Callable[[Any, Any], float]
    share: bool

    def hits(self, decided: Any) -> Array:
        """Per row whether it is right; only of metrics that are a `share`."""
        return np.asarray(decided == self.expected)

    def score(self, decided: Any, rows: Array) -> float:
        """The metric on some rows."""
        taken = (
            {name: array[rows] for name, array in decided.items()}
            if isinstance(decided, Mapping)
            else decided[rows]
        )
        return float(self.function(self.expected[rows], taken))


def make_judge(name: str, original: Tensors, target: Array | None, task: str) -> Judge:
    """Get ready to judge answers to certain rows.

    Parameters
    ----------
    name : str
        One of `NAMES`, ``module:function``, or empty: ``agreement`` without a target, else
        ``accuracy`` or ``rmse``, by the target.
    original : mapping of str to ndarray
        The original's answers to the rows, as clients get them.
    target : ndarray or None
        The right answers to the rows.
    task : str
        As the package's manifest has it.

    Raises
    ------
    InputError
        When the metric is not known, needs a target, or does not fit what the model answers.
    """
    if ":" in name:
        return _own(name, target)
    if name and name not in NAMES:
        raise InputError(
            f"not a metric: {name!r}", where="--metric", hint=f"{', '.join(NAMES)}, module:function"
        )
    kind = _kind(original, task)
    if target is None:
        return _agreement(name or "agreement", original, kind)
    if not name or name == "agreement":
        name = "accuracy" if kind == "labels" else "rmse"
    if name in _OF_LABELS:
        decide = _labels_like(target, original, kind, name)
        return Judge(name, _comparable(target), decide, _COUNTED[name], share=name == "accuracy")
    if name == "cosine":
        raise InputError("cosine compares with the original", hint="leave out --target")
    numbers = _numbers_of(target)
    decide = _shaped(numbers)
    function = _r2 if name == "r2" else _minus_rmse(_rmse(numbers, decide(original)))
    return Judge(name, numbers, decide, function, share=False)


def _agreement(name: str, original: Tensors, kind: str) -> Judge:
    if name in ("f1", "recall"):
        raise InputError(f"{name} needs labels", where="--metric", hint="--target COLUMN")
    chosen = {"labels": "accuracy", "numbers": "r2", "vectors": "cosine"}[kind]
    metric = chosen if name == "agreement" else name
    if metric == "accuracy":
        expected = _labels(original)
        return Judge("agreement (same label)", expected, _labels, _accuracy, share=True)
    vectors = _vectors(original)
    function, words = {
        "cosine": (_cosine, "mean cosine"),
        "r2": (_r2, "R²"),
        "rmse": (_minus_rmse(float(np.std(vectors))), "RMSE"),
    }[metric]
    return Judge(f"agreement ({words})", vectors, _vectors, function, share=False)


def _own(name: str, target: Array | None) -> Judge:
    """A function of the user's, who names it on the command line: it is their own code."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"cannot import the metric {name!r}: {error}", where="--metric",
            hint="module:function, importable from here",
        ) from error  # fmt: skip
    if target is None:
        raise InputError(f"{name} needs labels", where="--metric", hint="--target COLUMN")
    return Judge(name, _comparable(target), dict, function, share=False)


def _kind(answers: Tensors, task: str) -> str:
    """``labels``, ``numbers`` or ``vectors``: what a model decides."""
    if task == "regression":
        return "numbers"
    if task in ("classification", "clustering", "outlier"):
        return "labels"
    arrays = list(answers.values())
    if any(array.dtype.kind in "biuO" for array in arrays):
        return "labels"
    first = arrays[0]
    if first.ndim < 2 or first.shape[-1] == 1:
        return "numbers"
    if first.ndim > 2 or np.allclose(np.linalg.norm(first, axis=-1), 1.0, atol=_SUM):
        return "vectors"
    return "labels"


def _labels(answers: Tensors) -> Array:
    """The label of each row: the output that is one, or the place of the largest score."""
    for array in answers.values():
        if array.dtype.kind in "biuO":
            return _comparable(array.reshape(len(array), -1)[:, 0])
    scores = next(iter(answers.values()))
    scores = scores.reshape(len(scores), -1)
    if scores.shape[1] == 1:
        return np.asarray(scores[:, 0] > _threshold(scores))
    return np.asarray(scores.argmax(axis=1))


def _threshold(scores: Array) -> float:
    """Of one score per row: half of a probability, zero of a margin."""
    return 0.5 if scores.min() >= 0 and scores.max() <= 1 else 0.0


def _labels_like(
    target: Array, original: Tensors, kind: str, metric: str
) -> Callable[[Tensors], Array]:
    if kind != "labels":
        raise InputError(f"{metric} is of labels, and this model answers {kind}", where="--metric")
    found = _labels(original)
    expected = _comparable(target)
    if not set(np.unique(expected)) & set(np.unique(found)):
        raise InputError(
            f"the target holds {_some(expected)} and the model answers {_some(found)}",
            where="--target",
            hint="the target has to hold the model's own labels, or the places of its scores",
        )
    return _labels


def _comparable(labels: Array) -> Array:
    """Labels as integers where they are, else as text."""
    flat = np.asarray(labels).reshape(len(labels), -1)[:, 0]
    if flat.dtype.kind in "biu":
        return flat.astype(np.int64)
    if flat.dtype.kind == "f" and np.array_equal(flat, flat.round()):
        return flat.astype(np.int64)
    texts = np.asarray([str(item) for item in flat], dtype=object)
    try:
        return np.asarray([int(text) for text in texts], dtype=np.int64)
    except ValueError:
        return texts


def _numbers_of(target: Array) -> Array:
    try:
        return np.asarray(target, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the target holds no numbers: {error}", where="--target") from error


def _shaped(expected: Array) -> Callable[[Tensors], Array]:
    def decide(answers: Tensors) -> Array:
        return _vectors(answers).reshape(expected.shape)

    return decide


def _vectors(answers: Tensors) -> Array:
    """The first output of floating-point numbers."""
    for array in answers.values():
        if array.dtype.kind == "f":
            return array.astype(np.float64)
    raise InputError("the model answers no numbers", where="--metric")


def _some(values: Array) -> str:
    distinct = list(dict.fromkeys(map(str, values[:1000])))
    return ", ".join(distinct[:5]) + (", …" if len(distinct) > 5 else "")


def _accuracy(expected: Array, found: Array) -> float:
    return float(np.mean(expected == found))


def _counts(expected: Array, found: Array) -> tuple[Array, Array, Array]:
    """Per label: rows found rightly, rows found, rows expected. Of two labels: the second."""
    labels = np.unique(np.concatenate([expected, found]))
    right = np.array([np.sum((expected == label) & (found == label)) for label in labels])
    named = np.array([np.sum(found == label) for label in labels])
    meant = np.array([np.sum(expected == label) for label in labels])
    chosen = slice(1, None) if len(labels) == 2 else slice(None)
    return right[chosen], named[chosen], meant[chosen]


def _f1(expected: Array, found: Array) -> float:
    right, named, meant = _counts(expected, found)
    return float(np.mean(2 * right / np.maximum(named + meant, 1)))


def _recall(expected: Array, found: Array) -> float:
    right, _, meant = _counts(expected, found)
    there = meant > 0
    return float(np.mean(right[there] / meant[there])) if there.any() else 0.0


def _rmse(expected: Array, found: Array) -> float:
    return float(np.sqrt(np.mean((expected - found) ** 2)))


def _minus_rmse(unit: float) -> Callable[[Array, Array], float]:
    def function(expected: Array, found: Array) -> float:
        return -_rmse(expected, found) / (unit or 1.0)

    return function


def _r2(expected: Array, found: Array) -> float:
    flat, other = (array.reshape(len(array), -1) for array in (expected, found))
    spread = np.sum((flat - flat.mean(axis=0)) ** 2)
    return float(1 - np.sum((flat - other) ** 2) / spread) if spread else 1.0


def _cosine(expected: Array, found: Array) -> float:
    flat, other = (array.reshape(len(array), -1) for array in (expected, found))
    lengths = np.linalg.norm(flat, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean(np.sum(flat * other, axis=1) / np.maximum(lengths, 1e-30)))


_COUNTED: Final[Mapping[str, Callable[[Array, Array], float]]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "recall": _recall,
}
