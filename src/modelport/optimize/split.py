"""Thirds of the rows: to make variants with, to choose one by, and to hold it against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from modelport.core.errors import InputError
from modelport.core.tensors import Array

_SEED: Final = 1
_FEWEST: Final = 30


@dataclass(frozen=True)
class Thirds:
    """Indices of rows.

    Parameters
    ----------
    calibrate : ndarray of int
        Passes calibrate and train on these.
    choose : ndarray of int
        Variants are chosen by these.
    hold : ndarray of int
        The chosen one has to hold on these, which nothing else has seen.
    """

    calibrate: Array
    choose: Array
    hold: Array


def thirds(rows: int) -> Thirds:
    """The same thirds for the same number of rows, whatever their order means.

    Raises
    ------
    InputError
        When there are too few rows for any statement.
    """
    if rows < _FEWEST:
        raise InputError(
            f"{rows} rows are too few to tell whether a variant is as good: at least {_FEWEST}",
            where="--data",
            hint="without a loss, about 600 rows show that it is below 0.01, 1,200 below 0.005",
        )
    order = np.random.default_rng(_SEED).permutation(rows)
    cuts = rows // 3, 2 * (rows // 3)
    return Thirds(*(np.sort(part) for part in np.split(order, cuts)))
