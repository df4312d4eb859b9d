"""Whether the numbers of tree models hold together, before a C++ library relies on them.

The loaders of XGBoost and LightGBM trust lengths and positions in the file; wrong ones make them
read memory that is not theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelport.core.tensors import Array


def integers(values: Any, what: str, *, size: int | None = None) -> Array:
    """`values` as int64, of the given size.

    Raises
    ------
    ValueError
        When they are not a flat list of integers of that size.
    """
    array = np.asarray(values)
    if array.size == 0:
        array = array.reshape(-1).astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise ValueError(f"{what} is not a list of integers")
    if size is not None and len(array) != size:
        raise ValueError(f"{what} has {len(array)} numbers instead of {size}")
    return array.astype(np.int64)


def numbers(values: Any, what: str, *, size: int) -> Array:
    """`values` as float64, of the given size; raises ValueError as `integers`."""
    array = np.asarray(values)
    if array.size == 0:
        array = array.reshape(-1).astype(np.float64)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise ValueError(f"{what} is not a list of numbers")
    if len(array) != size:
        raise ValueError(f"{what} has {len(array)} numbers instead of {size}")
    return array.astype(np.float64)


def check_range(values: Array, stop: int, what: str, *, start: int = 0) -> None:
    """Raise ValueError unless all values are in ``start <= value < stop``."""
    if len(values) and (int(values.min()) < start or int(values.max()) >= stop):
        raise ValueError(f"{what} has numbers outside of {start} to {stop - 1}")


def check_is_tree(children: Sequence[Array], count: int, what: str) -> None:
    """Raise ValueError unless every node but the first is the child of exactly one node before.

    Parameters
    ----------
    children : sequence of ndarray
        Left and right child of each inner node, as positions.
    count : int
        Number of nodes.
    """
    everything = np.concatenate(children)
    check_range(everything, count, what)
    parents = np.bincount(everything, minlength=count)
    if count and (parents[0] or (parents[1:] != 1).any()):
        raise ValueError(f"{what}: its nodes are not a tree")
