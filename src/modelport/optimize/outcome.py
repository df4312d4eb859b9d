"""What became of an optimization."""

from __future__ import annotations

from dataclasses import dataclass

from modelport.core.artifact import Artifact
from modelport.optimize.evaluate import Measured
from modelport.optimize.frontier import Point
from modelport.optimize.search import Refusal


@dataclass(frozen=True)
class Outcome:
    """The measured variants, and the one that wins.

    Parameters
    ----------
    points : tuple of Point
        The original first, then every variant.
    picked : Point or None
        None: nothing wins.
    held : Measured or None
        The picked variant on the rows that nothing else has seen.
    failed : tuple of (str, str)
        Variants that did not hold on those rows, and why.
    refusals : tuple of Refusal
        Passes that could not do anything.
    metric : str
        What was measured, for people.
    rows : int
        How many rows variants were chosen by.
    artifact : Artifact or None
        Of the picked variant.
    """

    points: tuple[Point, ...]
    picked: Point | None
    held: Measured | None
    failed: tuple[tuple[str, str], ...]
    refusals: tuple[Refusal, ...]
    metric: str
    rows: int
    artifact: Artifact | None = None
