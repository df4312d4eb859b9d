"""Rows of other lengths, for inputs whose dimensions may vary.

A dynamic dimension beside the batch (words of a text, samples of a sound, the height of a picture)
is a promise that every length is answered. Exporters break it quietly: a length seen in tracing
becomes a constant of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from modelport.convert.base import Probe
from modelport.core.golden import choose_rows
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import Array

_ROWS: Final = 3


def rows_of_other_lengths(rows: Rows, signature: Signature) -> list[Probe]:
    """The rows with their dynamic dimensions at 1, at half and at twice their length.

    Dimensions of one length change together: the words of a text and of its mask often have names
    of their own. Rows are cut, or repeated from their beginning.

    Parameters
    ----------
    rows : Rows
        As `modelport.convert.proof.parity.ServedRows.seen`.
    signature : Signature
        Of the export.
    """
    chosen = choose_rows(len(rows), _ROWS)
    base = Rows({name: array[chosen] for name, array in rows.columns.items()}, rows.where)
    places: dict[int, list[tuple[str, int]]] = {}
    for spec in signature.inputs:
        array = base.columns[spec.name]
        for axis, dimension in enumerate(spec.shape):
            if axis and axis < array.ndim and isinstance(dimension, str):
                places.setdefault(array.shape[axis], []).append((spec.name, axis))
    probes = []
    for length, where in places.items():
        names = ", ".join(f"{name} axis {axis}" for name, axis in where)
        for size in dict.fromkeys((1, length // 2, 2 * length)):
            if size in (0, length):
                continue
            columns = dict(base.columns)
            for name, axis in where:
                columns[name] = _resized(columns[name], axis, size)
            probe = Rows(columns, rows.where)
            probes.append(Probe(f"length {size} in place of {length} ({names})", probe))
    return probes


def change_lengths(probes: Sequence[Probe], rows: Rows) -> bool:
    """Whether some of `probes` have other lengths than `rows`: then the framework knows better."""
    return any(
        name in rows.columns and array.shape[1:] != rows.columns[name].shape[1:]
        for probe in probes
        for name, array in probe.rows.columns.items()
    )


def _resized(array: Array, axis: int, size: int) -> Array:
    return np.asarray(np.take(array, np.arange(size) % array.shape[axis], axis=axis))
