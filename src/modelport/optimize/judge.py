"""A metric that is ready to be asked about answers to certain rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelport.core.tensors import Tensors
from modelport.optimize.significance import ERROR, Hits, Loss, Meter, paired_loss


@dataclass(frozen=True)
class Judge:
    """A metric that is ready to be asked about answers to certain rows.

    Parameters
    ----------
    name : str
        What is measured, for people: ``accuracy``, ``agreement (same label)``.
    rows : int
    decide : callable
        From outputs by name to what is judged: an array of a row each, or several by name.
    meter : callable
        From what was decided to the metric as a function of the rows' weights.
    strata : callable or None
        From what was decided of the original's answers and of a variant's to which rows are
        right, for each group of rows whose shares, averaged, are the metric or move like it;
        None: it does not count rows.
    bounded : bool
        Whether the metric is 1 at most, so that a loss of 1 is everything.
    error : float
        How often the truth may lie above a loss's bound.
    """

    name: str
    rows: int
    decide: Callable[[Tensors], Any]
    meter: Callable[[Any], Meter]
    strata: Callable[[Any, Any], list[Hits]] | None = None
    bounded: bool = True
    error: float = ERROR

    def score(self, decided: Any) -> float:
        """The metric on all rows."""
        return self.meter(decided)(np.ones(self.rows))

    def loss(self, before: Any, after: Any, budget: float) -> Loss:
        """What a variant loses against the original; see `paired_loss`."""
        strata = [] if self.strata is None else self.strata(before, after)
        return paired_loss(
            self.meter(before),
            self.meter(after),
            self.rows,
            budget,
            strata=strata,
            error=self.error,
        )
