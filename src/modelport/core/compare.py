"""How far one set of answers is from another.

An element agrees when ``|actual - expected| <= relative * |expected| + absolute * scale``,
where ``scale`` is the largest finite expected magnitude, at least 1: a float32 computation cannot
be more exact near zero than its largest terms allow. A matrix has one scale per column, since
its columns may be different quantities (two regression targets, one in euros and one in parts);
with fewer than 8 rows, too few to tell, it has one in all. NaN agrees with NaN,
an infinity with the same infinity. Integers, booleans and strings agree only when equal.

Scores of classes hide labels: where the largest of a row's scores is another one than it was, the
label flips. A row whose two best scores tie within the tolerance has no label to flip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from modelport.core.tensors import Array, Tensors

_ROWS_THAT_TELL = 8


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted error of a floating-point output.

    Parameters
    ----------
    relative, absolute : float
        See the module's formula.
    """

    relative: float
    absolute: float

    def to_json(self) -> dict[str, float]:
        """The plain form that the manifest stores."""
        return asdict(self)


#: By the element type that the *served* model computes in, for scores and embeddings.
TOLERANCES = {
    "float16": Tolerance(relative=1e-2, absolute=1e-3),
    "float32": Tolerance(relative=1e-4, absolute=1e-5),
    "float64": Tolerance(relative=1e-7, absolute=1e-9),
}

#: For predicted quantities: in float32 an answer of at least a tenth of the largest one is off by
#: 1e-4 of itself at most (9e-5, and 1e-6 of up to ten times as much).
REGRESSION: Final = {**TOLERANCES, "float32": Tolerance(relative=9e-5, absolute=1e-6)}


@dataclass(frozen=True)
class OutputComparison:
    """One output, compared element by element.

    Attributes
    ----------
    name : str
    elements : int
        How many elements were compared.
    differing : int
        Elements outside the tolerance; for labels: the flips.
    max_absolute, max_relative : float
        Largest errors over finite elements; 0 where nothing is numeric.
    worst : tuple of int
        Position of the error that is largest in units of its tolerance, or of the first flip.
    expected, actual : str
        The two values at `worst`.
    exact : bool
        True for integers, booleans and strings: any difference is a flip.
    problem : str
        Non-empty where the two could not be compared: missing, or another shape.
    argmax_flips : int
        Rows whose largest score is another one, of outputs that can be scores of classes.
    ties : int
        Rows whose largest score is another one because two tie; no flips.
    """

    name: str
    elements: int
    differing: int
    max_absolute: float = 0.0
    max_relative: float = 0.0
    worst: tuple[int, ...] = ()
    expected: str = ""
    actual: str = ""
    exact: bool = False
    problem: str = ""
    argmax_flips: int = 0
    ties: int = 0

    @property
    def agrees(self) -> bool:
        """Whether every element is inside the tolerance."""
        return not self.problem and self.differing == 0

    def describe(self) -> str:
        """One line for people."""
        if self.problem:
            return f"{self.name}: {self.problem}"
        if self.exact:
            text = f"{self.name}: {self.differing} of {self.elements} differ"
        else:
            text = (
                f"{self.name}: max error {self.max_absolute:.2g} absolute, "
                f"{self.max_relative:.2g} relative; {self.differing} of {self.elements} "
                "outside tolerance"
            )
            if self.argmax_flips:
                text += f"; in {self.argmax_flips} rows another element is the largest"
        if self.differing:
            text += f"; at {list(self.worst)}: expected {self.expected}, got {self.actual}"
        return text


def compare(expected: Tensors, actual: Tensors, tolerance: Tolerance) -> list[OutputComparison]:
    """Compare every output in `expected` with the one of the same name in `actual`."""
    return [
        _compare_one(name, array, actual.get(name), tolerance) for name, array in expected.items()
    ]


def _compare_one(
    name: str, expected: Array, actual: Array | None, tolerance: Tolerance
) -> OutputComparison:
    if actual is None:
        return OutputComparison(name, expected.size, expected.size, problem="output is missing")
    if actual.shape != expected.shape:
        return OutputComparison(
            name,
            expected.size,
            expected.size,
            problem=f"shape is {list(actual.shape)}, expected {list(expected.shape)}",
        )
    if expected.dtype.kind == "f" and actual.dtype.kind == "f":
        return _compare_floats(name, expected, actual, tolerance)
    unequal = np.asarray(expected != actual, dtype=bool)
    flips = int(unequal.sum())
    worst, before, after = _values_at(unequal, expected, actual) if flips else ((), "", "")
    return OutputComparison(name, expected.size, flips, 0.0, 0.0, worst, before, after, exact=True)


def _compare_floats(
    name: str, expected: Array, actual: Array, tolerance: Tolerance
) -> OutputComparison:
    reference = expected.astype(np.float64)
    other = actual.astype(np.float64)
    finite = np.isfinite(reference) & np.isfinite(other)
    magnitude = np.abs(np.where(finite, reference, 0.0))
    error = np.abs(np.where(finite, other - np.where(finite, reference, 0.0), 0.0))
    scale = np.maximum(1.0, _largest(magnitude))
    same_special = (np.isnan(reference) & np.isnan(other)) | (reference == other)
    allowed = tolerance.relative * magnitude + tolerance.absolute * scale
    outside = np.where(finite, error > allowed, ~same_special)
    # A NaN on one side only is the worst error there is.
    ranking = np.where(finite, error, np.where(same_special, 0.0, np.inf)) / np.maximum(
        allowed, np.finfo(np.float64).tiny
    )
    worst, before, after = (
        _values_at(ranking == ranking.max(), expected, actual) if expected.size else ((), "", "")
    )
    # A relative error says something only well away from zero.
    large = magnitude > 1e-3 * scale
    relative = error[large] / magnitude[large]
    flips, ties = _argmax_flips(reference, other, _tie(tolerance, actual))
    return OutputComparison(
        name,
        expected.size,
        int(outside.sum()),
        float(error.max(initial=0.0)),
        float(relative.max(initial=0.0)),
        worst,
        before,
        after,
        argmax_flips=flips,
        ties=ties,
    )


def _tie(tolerance: Tolerance, actual: Array) -> Tolerance:
    """How near two scores tie: a tolerance that was widened for a model is no excuse for labels."""
    base = TOLERANCES[actual.dtype.name]
    return Tolerance(min(tolerance.relative, base.relative), min(tolerance.absolute, base.absolute))


def _argmax_flips(expected: Array, actual: Array, tolerance: Tolerance) -> tuple[int, int]:
    """Rows whose largest score changes, and those of them in which two scores tie."""
    axis = _class_axis(expected)
    if axis is None:
        return 0, 0
    moved = expected.argmax(axis) != actual.argmax(axis)
    if not moved.any():
        return 0, 0
    rows, other = (np.moveaxis(array, axis, -1)[moved] for array in (expected, actual))
    best = rows.max(axis=-1)
    chosen = np.take_along_axis(rows, other.argmax(axis=-1)[:, np.newaxis], axis=-1)[:, 0]
    with np.errstate(invalid="ignore"):  # NaN ties with nothing
        tied = best - chosen <= 2 * (tolerance.relative * np.abs(best) + tolerance.absolute)
    return int((~tied).sum()), int(tied.sum())


def _class_axis(scores: Array) -> int | None:
    """Along which axis the classes stand, if they may: only probabilities tell beyond matrices."""
    if not scores.size:
        return None
    if scores.ndim == 2:
        return 1 if scores.shape[1] > 1 else None
    for axis in (-1, 1) if scores.ndim > 2 else ():
        sums = scores.sum(axis=axis)
        if scores.shape[axis] > 1 and (scores >= 0).all() and np.abs(sums - 1.0).max() < 1e-3:
            return axis
    return None


def _largest(magnitude: Array) -> Array:
    by_column = magnitude.ndim == 2 and len(magnitude) >= _ROWS_THAT_TELL
    return np.asarray(magnitude.max(axis=0 if by_column else None, initial=0.0))


def _values_at(chosen: Array, expected: Array, actual: Array) -> tuple[tuple[int, ...], str, str]:
    position = tuple(int(i) for i in np.unravel_index(int(np.argmax(chosen)), chosen.shape))
    return position, str(expected[position]), str(actual[position])


def tolerance_from_json(plain: Mapping[str, Any]) -> Tolerance:
    """The inverse of `Tolerance.to_json`."""
    return Tolerance(relative=float(plain["relative"]), absolute=float(plain["absolute"]))
