"""Rows made to hurt PyTorch models: other lengths and sizes, and the ends of embedding tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from torch import nn

from modelport.convert.base import Probe
from modelport.convert.frameworks.torch.dimensions import BATCH, Exploration
from modelport.convert.frameworks.torch.program import Program
from modelport.core.golden import choose_rows
from modelport.core.rows import Rows
from modelport.core.tensors import Array

_ROWS: Final = 4
_IMAGES: Final = 2


def probes_of_sizes(rows: Rows, names: Sequence[str], explored: Exploration) -> list[Probe]:
    """The rows, cropped and repeated along every dynamic axis.

    Where the source model refuses such rows (shorter than a kernel, longer than its table of
    positions), the report says so and nothing is compared.
    """
    if BATCH not in explored.groups:
        return []
    images = any(rows.columns[name].ndim > 3 for name in names)
    chosen = choose_rows(len(rows), _IMAGES if images else _ROWS)
    base = {name: rows.columns[name][chosen] for name in names}
    probes = []
    for symbol, axes in explored.groups.items():
        if symbol == BATCH:
            continue
        size = explored.size(symbol)
        # A single element hits squeezes and broadcasts; odd and even sizes hit strides.
        sizes = {1, max(1, size // 2), size + 1, size + size // 2 + 1}
        for other in sorted(sizes - {size}):
            columns = dict(base)
            for number, axis in axes:
                columns[names[number]] = _resized(columns[names[number]], axis, other)
            probes.append(Probe(f"{symbol} of {other}, the sample has {size}", Rows(columns)))
    return probes


def _resized(array: Array, axis: int, size: int) -> Array:
    return np.asarray(np.take(array, np.arange(size) % array.shape[axis], axis=axis))


def probes_of_tables(
    rows: Rows, names: Sequence[str], dtypes: Sequence[torch.dtype], program: Program
) -> Iterator[Probe]:
    """The first and the last entry of embedding tables, in each integer input."""
    tables = {m.num_embeddings for m in program.module.modules() if isinstance(m, nn.Embedding)}
    base = {n: rows.columns[n][choose_rows(len(rows), _ROWS)] for n in names}
    for name, dtype in zip(names, dtypes, strict=True):
        if dtype.is_floating_point or dtype == torch.bool:
            continue
        for size in sorted(tables):
            ends = np.resize([0, size - 1], base[name].shape).astype(base[name].dtype)
            if ends.max(initial=0) == size - 1:
                yield Probe(
                    f"first and last of a table of {size} in {name}", Rows({**base, name: ends})
                )
