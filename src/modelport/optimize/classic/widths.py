"""How many columns the matrices of a graph have, as some rows show."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.classic.ensemble import OPERATORS
from modelport.optimize.classic.part import before, part
from modelport.optimize.session import Probe, batches

#: What has three rows for three and two for two has rows; a matrix of two weights does not.
_ROWS: Final = (3, 2)


def widths_of(model: onnx.ModelProto, rows: Tensors) -> dict[str, int]:
    """Columns of the tensors with two dimensions, the first of which is that of rows.

    Some rows are run, operator by operator, or as many as the graph takes; what trees make is left
    out, since loading them takes long.

    Raises
    ------
    UnsupportedError
        When the graph does not run on them.
    """
    names = before(model, OPERATORS)
    probe = Probe(part(model, names), names) if names else None
    found = [_run(model, probe, rows, count) for count in _ROWS]
    shown = [_widths(arrays) for arrays in found]
    return {name: width for name, width in shown[0].items() if shown[1].get(name) == width}


def _run(
    model: onnx.ModelProto, probe: Probe | None, rows: Tensors, count: int
) -> tuple[int, dict[str, Array]]:
    some = next(batches(model, rows, count), None)
    if some is None:
        raise UnsupportedError("there are fewer rows than the graph takes at once")
    ran = len(next(iter(some.values())))
    return ran, {**(probe.run(some) if probe is not None else {}), **some}


def _widths(shown: tuple[int, dict[str, Array]]) -> dict[str, int]:
    count, arrays = shown
    return {
        name: int(array.shape[1])
        for name, array in arrays.items()
        if isinstance(array, np.ndarray) and array.ndim == 2 and len(array) == count
    }
