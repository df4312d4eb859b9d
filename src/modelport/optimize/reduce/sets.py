"""Which labels are one: disjoint sets that only grow together (union-find)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from modelport.core.tensors import Array

#: The label of channels that stay, and the smallest one.
FIXED: Final = 0


class Sets:
    """Labels; at first each is alone."""

    def __init__(self) -> None:
        self._parents = [FIXED]

    def new(self, count: int) -> Array:
        """So many new labels."""
        start = len(self._parents)
        self._parents += range(start, start + count)
        return np.arange(start, start + count)

    def join(self, left: Iterable[int], right: Iterable[int]) -> None:
        """Make labels one, pair by pair."""
        for one, other in zip(left, right, strict=True):
            first, second = sorted((self._root(int(one)), self._root(int(other))))
            self._parents[second] = first  # FIXED is the smallest

    def fix(self, labels: Iterable[int]) -> None:
        """Make labels one with `FIXED`."""
        self.join(labels, (FIXED for _ in labels))

    def roots(self, labels: Iterable[int]) -> Array:
        """The same number for labels that are one."""
        return np.array([self._root(int(label)) for label in labels], dtype=np.int64)

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label
