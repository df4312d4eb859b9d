"""Rows made to hurt boosted trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from modelport.convert.base import Probe
from modelport.convert.forests.forest import Forest, rows_next_to_thresholds
from modelport.convert.forests.inputs import TreeInputs
from modelport.core.golden import choose_rows
from modelport.core.rows import Rows
from modelport.core.tensors import Array

_BASE_ROWS: Final = 64
_FEW: Final = 8


def tree_probes(forest: Forest, inputs: TreeInputs, rows: Rows) -> Sequence[Probe]:
    """Rows next to thresholds, and codes that no category has.

    Parameters
    ----------
    rows : Rows
        As the source sees those that are served.
    """
    matrix = inputs.matrix(rows)
    matrix = matrix[choose_rows(len(matrix), _BASE_ROWS)]
    with np.errstate(over="ignore"):
        wide = not np.array_equal(matrix, matrix.astype(np.float32), equal_nan=True)
    probes = []
    coded = [number for number, f in enumerate(inputs.features) if f.categories]
    near = rows_next_to_thresholds(forest, matrix, wide=wide)
    if len(near):
        probes.append(Probe("next to tree thresholds", inputs.rows(near)))
    features = sorted({int(forest.feature[node]) for node in forest.sets} - set(coded))
    if features:
        probes.append(
            Probe("codes that no category has", inputs.rows(_odd_codes(forest, matrix, features)))
        )
    return probes


def _odd_codes(forest: Forest, matrix: Array, features: Sequence[int]) -> Array:
    largest = max(int(members.max()) for members in forest.sets.values())
    odd = (largest + 1, largest + 40, 0.5, 1.75, -0.5, -1.0, 1e6, 3e7)
    base = matrix[choose_rows(len(matrix), _FEW)]
    rows = []
    for feature in features[:_FEW]:
        for position, value in enumerate(odd):
            rows.append(base[position % len(base)].copy())
            rows[-1][feature] = value
    return np.stack(rows)
