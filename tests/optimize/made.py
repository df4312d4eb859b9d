"""Trained models with where their rows come from, and what a change to them loses."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelport import api
from modelport.core.package import Package
from modelport.core.tensors import Array, Tensors
from tests.optimize.drawn import Drawn

_RESAMPLES: Final = 200


@dataclass(frozen=True)
class Made:
    """A trained model and where its rows come from.

    Parameters
    ----------
    source : object
        What `pack` takes; bytes: of an ONNX file.
    draw : callable
        From a number of rows and a seed to inputs by name and the right answers.
    numbers : bool
        Whether it answers numbers, whose loss is in percent of RMSE, and not labels.
    vectors : bool
        Whether it answers vectors, which have no right answers.
    sample : int
        Rows that `pack` gets.
    """

    source: Any
    draw: Callable[[int, int], Drawn]
    numbers: bool = False
    vectors: bool = False
    sample: int = 64

    def package(self, name: str, folder: Path) -> Package:
        """Converted."""
        rows, _ = self.draw(self.sample, 1)
        given = rows[""] if list(rows) == [""] else rows
        source = self.source
        if isinstance(source, bytes):
            source = folder / f"{name}.onnx"
            source.write_bytes(self.source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return api.pack(source, name, sample=given, out=folder)

    def named(self, package: Package, count: int, seed: int) -> Drawn:
        """Rows by the names that the package has for its inputs."""
        rows, answers = self.draw(count, seed)
        (spec, *_) = package.manifest.signature.inputs
        return {name or spec.name: array for name, array in rows.items()}, answers


def lost(made: Made, before: Tensors, after: Tensors, right: Array | None) -> tuple[float, float]:
    """How much worse answers are, and the standard error of that, of a bootstrap over the rows.

    Accuracy, or RMSE in units of the original's; without right answers the share of equal labels,
    the variance that is explained, or the mean cosine. Not with modelport's own metrics: those
    could be wrong the same way.
    """
    score = _scoring(made, before, right)
    count = len(next(iter(before.values())))
    random = np.random.default_rng(0)
    found = [
        score(before, rows) - score(after, rows)
        for rows in (random.integers(0, count, count) for _ in range(_RESAMPLES))
    ]
    everything = np.arange(count)
    return score(before, everything) - score(after, everything), float(np.std(found))


def _scoring(made: Made, original: Tensors, right: Array | None) -> Callable[..., float]:
    if not made.numbers and not made.vectors:
        labels = _labels_of(original) if right is None else right
        return lambda found, rows: float(np.mean(_labels_of(found)[rows] == labels[rows]))
    first = _numbers_of(original)
    if made.vectors:
        return lambda found, rows: float(
            np.mean(np.sum(first[rows] * _numbers_of(found)[rows], axis=1))
        )
    wanted = first if right is None else right.reshape(-1, 1).astype(np.float64)
    unit = first.var() if right is None else np.mean((first - wanted) ** 2)

    def score(found: Tensors, rows: Array) -> float:
        share = float(np.mean((_numbers_of(found)[rows] - wanted[rows]) ** 2) / unit)
        return -share if right is None else -(share**0.5)

    return score


def _numbers_of(found: Tensors) -> Array:
    first = next(iter(found.values())).astype(np.float64)
    return first.reshape(len(first), -1)


def _labels_of(found: Tensors) -> Array:
    if "label" in found:
        return found["label"].reshape(-1)
    return np.asarray(next(iter(found.values())).argmax(axis=1))
