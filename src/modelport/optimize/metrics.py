"""How good answers are: against labels, or against the original's own answers.

All metrics are turned so that larger is better, and losses are in their own unit:

=========== ==================================================================================
accuracy    share of rows with the right label
f1          F1 score, of the labels' mean (macro); of two labels that of the second one in order
recall      likewise, recall
rmse        root of the mean squared error, negative, in units of the original's own: a loss of
            0.01 is one percent more (against the original: of its answers' standard deviation)
r2          share of the variance that is explained (against the original: of its answers)
cosine      mean cosine of the angle to the original's vectors
agreement   without labels: ``accuracy``, ``r2`` or ``cosine`` against the original's answers,
            whichever fits what the model answers; of several outputs all of a row's labels, or
            the output that agrees least
=========== ==================================================================================

``module:function`` is a function of the user's: ``f(expected, answers) -> float``, larger is
better, with the target's values and the outputs by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from modelport.core.errors import InputError
from modelport.core.tensors import Array, Tensors
from modelport.optimize import formulas
from modelport.optimize.agreement import agreement, check_varies
from modelport.optimize.answers import (
    LABELS,
    NUMBERS,
    Form,
    count_places,
    form_of,
    has_labels,
    labels_of,
    numbers_of,
    places_of,
    target_labels,
    target_numbers,
)
from modelport.optimize.judge import Judge
from modelport.optimize.own_metric import own_metric
from modelport.optimize.significance import Hits

NAMES: Final = ("accuracy", "f1", "recall", "rmse", "r2", "cosine", "agreement")

_OF_LABELS: Final = ("accuracy", "f1", "recall")


def make_judge(
    name: str, original: Tensors, target: Array | None, task: str, form: Form | None = None
) -> Judge:
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
    form : Form, optional
        How answers are read, where it was found out with other rows.

    Raises
    ------
    InputError
        When the metric is not known, needs a target, or does not fit what the model answers.
    """
    form = form or form_of(original, task)
    if ":" in name:
        return own_metric(name, target)
    if name and name not in NAMES:
        raise InputError(
            f"not a metric: {name!r}", where="--metric", hint=f"{', '.join(NAMES)}, module:function"
        )
    if target is None or name == "agreement":
        return agreement(name or "agreement", original, form)
    if name == "cosine":
        raise InputError("cosine compares with the original", hint="leave out --target")
    if form.kind == NUMBERS and task != "regression" and _of_two(original, target):
        form = replace(form, kind=LABELS)
    if not name:
        name = "accuracy" if form.kind == LABELS else "rmse"
    if name in _OF_LABELS:
        return _of_labels(name, original, target, form)
    return _of_numbers(name, original, target)


def _of_two(original: Tensors, target: Array) -> bool:
    """Whether the target is zeros and ones, to one score a row: a classifier of two labels."""
    scores = numbers_of(original)
    flat = np.asarray(target).ravel()
    return (
        len(scores) == 1
        and len(flat) == next(iter(scores.values())).size
        and flat.dtype.kind in "biuf"
        and set(np.unique(flat).tolist()) <= {0, 1}
    )


def _of_labels(name: str, original: Tensors, target: Array, form: Form) -> Judge:
    if form.kind != LABELS:
        raise InputError(f"{name} is of labels, and this model answers {form.kind}",
                         where="--metric")  # fmt: skip
    expected = target_labels(target)
    decide = _like(expected, original, form)
    _not_by_chance(expected, decide(original))
    if name == "accuracy":
        return Judge(
            name, len(expected), decide,
            lambda decided: formulas.mean_of(decided == expected),
            lambda before, after: [(before == expected, after == expected)],
        )  # fmt: skip
    known = {*expected.tolist(), *decide(original).tolist(), *form.labels}
    labels = np.asarray(sorted(known, key=_order))
    positive = 1 if len(labels) == 2 else None
    if positive is not None and labels[positive] not in expected:
        raise InputError(f"no row of the target is {labels[positive]!r}: {name} has no value",
                         where="--target")  # fmt: skip
    places = {label: place for place, label in enumerate(labels.tolist())}

    def coded(decided: Array) -> Array:
        return np.asarray([places.get(label, len(places)) for label in decided.tolist()])

    def strata(before: Array, after: Array) -> list[Hits]:
        """Per label its rows; for F1 with those that are taken for it."""
        groups = []
        for label in labels if positive is None else labels[positive:]:
            group = expected == label
            if name == "f1":
                group |= (before == label) | (after == label)
            if group.any():
                groups.append(((before == expected)[group], (after == expected)[group]))
        return groups

    function = {"f1": formulas.f1, "recall": formulas.recall}[name]
    of = f" of {labels[positive]}" if positive is not None else " (mean of labels)"
    return Judge(
        name + of, len(expected), decide,
        lambda decided: function(coded(expected), coded(decided), len(labels), positive), strata,
    )  # fmt: skip


def _not_by_chance(expected: Array, found: Array) -> None:
    """A model that is right far less often than who guesses means other labels."""
    share = float(np.mean(expected == found))
    labels = len(set(expected.tolist()))
    if labels > 1 and share < 0.5 / labels:
        raise InputError(
            f"the original is right in {share:.1%} of rows, and who guesses in {1 / labels:.0%}: "
            "the target's labels are in another order than the model's",
            where="--target",
        )


def _like(expected: Array, original: Tensors, form: Form) -> Callable[[Tensors], Array]:
    """What reads the labels that the target holds: the model's own, or the places of its scores."""

    def own(answers: Tensors) -> Array:
        return np.asarray(labels_of(answers, form)[:, 0])

    def places(answers: Tensors) -> Array:
        return places_of(answers, form)

    meant = set(expected.tolist())
    if has_labels(original) and meant & set(own(original).tolist()):
        return own
    if meant <= set(map(str, range(count_places(original)))):
        return places
    raise InputError(
        f"the target holds {_some(expected)} and the model answers {_some(own(original))}",
        where="--target",
        hint="the target has to hold the model's own labels, or the places of its scores",
    )


def _of_numbers(name: str, original: Tensors, target: Array) -> Judge:
    expected = target_numbers(target)

    def decide(answers: Tensors) -> Array:
        found = next(iter(numbers_of(answers).values()))
        if found.size != expected.size:
            raise InputError(
                f"the target holds {expected.size // len(expected)} numbers a row, and the model "
                f"answers {found.size // max(len(found), 1)}",
                where="--target",
            )
        return found.reshape(expected.shape)

    if name == "r2":
        check_varies(expected, "the target")
        return Judge(name, len(expected), decide, lambda found: formulas.r2(expected, found))
    unit = formulas.rmse(expected, decide(original)) or float(np.std(expected)) or 1.0
    return Judge(
        f"{name} (1 is {unit:.4g})", len(expected), decide,
        lambda found: formulas.minus_rmse(expected, found, unit), bounded=False,
    )  # fmt: skip


def _order(label: str) -> tuple[bool, float, str]:
    """Numbers in their order, before text."""
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label


def _some(values: Array) -> str:
    distinct = list(dict.fromkeys(map(str, values[:1000])))
    return ", ".join(distinct[:5]) + (", …" if len(distinct) > 5 else "")
