"""Metrics that hold variants against the original's own answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from modelport.core.errors import InputError
from modelport.core.tensors import Array, Tensors
from modelport.optimize import formulas
from modelport.optimize.answers import (
    LABELS,
    NUMBERS,
    VECTORS,
    Form,
    kind_of,
    labels_of,
    numbers_of,
)
from modelport.optimize.judge import Judge
from modelport.optimize.significance import Meter

#: Up to so many labels a row, all of them have to be right; beyond, their share counts.
_FEW_LABELS: Final = 16


def agreement(name: str, original: Tensors, form: Form) -> Judge:
    """A judge for whom the original is right.

    Parameters
    ----------
    name : str
        ``agreement``, or the metric that is wanted.
    original : mapping of str to ndarray
        Its answers.
    form : Form
        How they are read.

    Raises
    ------
    InputError
        When the metric needs labels, or the original answers every row alike.
    """
    if name in ("f1", "recall"):
        raise InputError(f"{name} needs labels", where="--metric", hint="--target COLUMN")
    if name == "accuracy" or (name == "agreement" and form.kind == LABELS):
        return _same_labels(original, form)
    expected = numbers_of(original)
    meters: dict[str, Callable[[Array], Meter]] = {}
    words = set()
    for output, array in expected.items():
        function = name if name != "agreement" else _fitting(array, form)
        words.add({"cosine": "mean cosine", "r2": "R²", "rmse": "RMSE"}[function])
        meters[output] = _against(function, array)

    def decide(answers: Tensors) -> dict[str, Array]:
        found = list(numbers_of(answers).values())
        if [array.shape for array in found] != [array.shape for array in expected.values()]:
            raise InputError(
                f"it answers {_shapes(found)} and the original {_shapes(expected.values())}"
            )
        return dict(zip(expected, found, strict=True))

    def meter(found: Tensors) -> Meter:
        each = [one(found[output]) for output, one in meters.items()]
        return lambda weights: min(one(weights) for one in each)

    worst = ", the worst output" if len(expected) > 1 else ""
    title = f"agreement ({' or '.join(sorted(words))}{worst})"
    rows = len(next(iter(expected.values())))
    return Judge(title, rows, decide, meter, bounded=name != "rmse")


def _shapes(arrays: Iterable[Array]) -> str:
    return ", ".join(f"{array.dtype.name}{list(array.shape)}" for array in arrays)


def _fitting(array: Array, form: Form) -> str:
    kind = NUMBERS if form.kind == NUMBERS and array.ndim < 3 else kind_of(array)
    return "cosine" if kind == VECTORS else "r2"


def _against(function: str, expected: Array) -> Callable[[Array], Meter]:
    if function == "cosine":
        return lambda found: formulas.cosine(expected, found)
    check_varies(expected, "the original's answer")
    if function == "r2":
        return lambda found: formulas.r2(expected, found)
    unit = float(np.std(expected))
    return lambda found: formulas.minus_rmse(expected, found, unit)


def _same_labels(original: Tensors, form: Form) -> Judge:
    expected = labels_of(original, form)

    def decide(answers: Tensors) -> Array:
        found = labels_of(answers, form)
        if found.shape != expected.shape:
            raise InputError(
                f"it answers {found.shape[1]} labels a row and the original {expected.shape[1]}"
            )
        return found

    if expected.shape[1] > _FEW_LABELS:
        return Judge(
            "agreement (share of labels)", len(expected), decide,
            lambda found: formulas.mean_of(np.mean(found == expected, axis=1)),
        )  # fmt: skip

    def same(found: Array) -> Array:
        return np.asarray((found == expected).all(axis=1))

    several = "s" if expected.shape[1] > 1 else ""
    return Judge(
        f"agreement (same label{several})", len(expected), decide,
        lambda found: formulas.mean_of(same(found)),
        lambda before, after: [(same(before), same(after))],
    )  # fmt: skip


def check_varies(values: Array, what: str) -> None:
    """Refuse numbers that explain nothing."""
    if not np.ptp(values.reshape(len(values), -1), axis=0).any():
        raise InputError(
            f"{what} is the same for every row, which tells nothing about variants",
            where="--data",
            hint="rows that differ",
        )
