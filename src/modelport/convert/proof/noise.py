"""How exact a source model's own answers are: in other batches, and next to its inputs.

Models in floating point answer a little differently in other batches, and when their inputs move
by the last bit; an export cannot be closer to the source model than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from modelport.convert.proof.probes import take_rows
from modelport.core.errors import InputError
from modelport.core.golden import choose_rows
from modelport.core.rows import Rows
from modelport.core.tensors import Array

Predict = Callable[[Rows], dict[str, Array]]

#: Distance of neighbouring numbers around 1, by the type that a model computes in.
STEPS: Final = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_ROWS: Final = 16


def own_error(predict: Predict, rows: Rows, computes_in: str = "float32") -> dict[str, float]:
    """See `modelport.convert.base.Inexact.own_error`.

    Parameters
    ----------
    computes_in : str
        The least precise type inside the model, a key of `STEPS`.
    """
    batch, few, whole = _few(predict, rows)
    error = {name: 0.0 for name, array in whole.items() if array.dtype.kind == "f"}
    for moved in _moved(few, STEPS[computes_in]):
        answers = predict(moved)
        for name in error:
            error[name] = max(error[name], _largest(whole[name], answers[name]))
    for row in range(len(few)) if batch else ():
        try:
            single = predict(take_rows(few, np.asarray([row])))
        except InputError:  # it takes these rows together only
            return error
        for name in error:
            error[name] = max(error[name], _largest(whole[name][row : row + 1], single[name]))
    return error


def _few(predict: Predict, rows: Rows) -> tuple[bool, Rows, dict[str, Array]]:
    """Some rows and their answers; all where they belong together: a scalar, a fixed number."""
    if all(array.ndim and len(array) == len(rows) for array in rows.columns.values()):
        few = take_rows(rows, choose_rows(len(rows), _ROWS))
        try:
            return True, few, predict(few)
        except InputError:
            pass
    return False, rows, predict(rows)


def _moved(rows: Rows, step: float) -> Iterator[Rows]:
    """The rows with every floating-point number one step up, one down, or either."""
    floats = {name: array for name, array in rows.columns.items() if array.dtype.kind == "f"}
    generator = np.random.default_rng(20261121)
    for up in (1.0, 0.0, 0.5) if floats else ():
        moved = {}
        for name, array in floats.items():
            factors = np.where(generator.random(array.shape) < up, 1.0 + step, 1.0 - step)
            moved[name] = (array * factors).astype(array.dtype)
        yield Rows({**rows.columns, **moved}, rows.where)


def _largest(one: Array, other: Array) -> float:
    if one.shape != other.shape:
        return 0.0
    with np.errstate(all="ignore"):
        difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(difference[np.isfinite(difference)].max(initial=0.0))
