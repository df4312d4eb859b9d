"""Between which values each tensor lies on the calibration rows, in bounded memory.

MinMax takes the least and the largest value. Percentile leaves out a share of the values at each
end; entropy takes the range whose 8-bit histogram says most about the full one (Migacz, "8-bit
inference with TensorRT", GTC 2017). The latter two need a histogram, which takes a second run
over the rows; nothing else is kept, so the memory does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from modelport.core.tensors import Array, Tensors
from modelport.optimize.session import Probe, batches

METHODS: Final = ("minmax", "percentile", "entropy")

_BINS: Final = 2048
_LEVELS: Final = 128
_PERCENTILE: Final = 99.999
_BATCH: Final = 4
_STRIDE: Final = 16


@dataclass(frozen=True)
class Range:
    """The values of a tensor.

    Parameters
    ----------
    low, high : float
        The least and the largest one.
    histogram : ndarray of int or None
        Counts in `_BINS` equal bins from `low` to `high`.
    """

    low: float
    high: float
    histogram: Array | None = None

    def cut(self, method: str) -> tuple[float, float]:
        """What is kept of it by a method of `METHODS`; zero is always in it."""
        low, high = self.low, self.high
        usable = self.histogram is not None and self.histogram.any()
        if method != "minmax" and usable and high > low:
            found = _percentile if method == "percentile" else _entropy
            first, last = found(np.asarray(self.histogram))
            width = (high - low) / _BINS
            low, high = low + first * width, low + last * width
        return min(low, 0.0), max(high, 0.0)


def observe(
    model: onnx.ModelProto, tensors: Iterable[str], rows: Tensors, *, histograms: int
) -> dict[str, Range]:
    """The ranges of tensors inside a graph.

    Parameters
    ----------
    model : ModelProto
    tensors : iterable of str
        Of floating-point numbers.
    rows : mapping of str to ndarray
    histograms : int
        Of so many rows, for `percentile` and `entropy`; 0: only `minmax` will be asked for.
    """
    names = list(dict.fromkeys(tensors))
    probe = Probe(model, names, optimize=True)
    low = dict.fromkeys(names, np.inf)
    high = dict.fromkeys(names, -np.inf)
    for batch in batches(model, rows, _BATCH):
        for name, array in probe.run(batch, names).items():
            if array.size:
                low[name] = min(low[name], float(array.min()))
                high[name] = max(high[name], float(array.max()))
    seen = [name for name in names if np.isfinite(low[name]) and np.isfinite(high[name])]
    counts: dict[str, Array] = {}
    if histograms:
        counts = {name: np.zeros(_BINS, dtype=np.int64) for name in seen}
        few = {name: array[:histograms] for name, array in rows.items()}
        for batch in batches(model, few, _BATCH):
            for name, array in probe.run(batch, seen).items():
                found, _ = np.histogram(array, bins=_BINS, range=(low[name], high[name]))
                counts[name] += found
    return {name: Range(low[name], high[name], counts.get(name)) for name in seen}


def _percentile(histogram: Array) -> tuple[int, int]:
    shares = np.cumsum(histogram) / histogram.sum()
    tail = (100 - _PERCENTILE) / 100
    first = int(np.searchsorted(shares, tail, side="right"))
    last = int(np.searchsorted(shares, 1 - tail)) + 1
    return min(first, _BINS - 1), max(last, first + 1)


def _entropy(histogram: Array) -> tuple[int, int]:
    """The range, symmetric about the fullest bin, that loses the least information."""
    best, kept = np.inf, (0, _BINS)
    centre = int(np.argmax(histogram))
    for reach in range(_LEVELS, _BINS + 1, _STRIDE):
        first, last = max(0, centre - reach), min(_BINS, centre + reach)
        inside = histogram[first:last].astype(np.float64)
        clipped = inside.copy()
        clipped[0] += histogram[:first].sum()
        clipped[-1] += histogram[last:].sum()
        loss = _divergence(clipped, _rounded(inside))
        if loss < best:
            best, kept = loss, (first, last)
        if first == 0 and last == _BINS:
            break
    return kept


def _rounded(counts: Array) -> Array:
    """The counts as they would be known with only `_LEVELS` levels."""
    rounded = np.zeros_like(counts)
    for part in np.array_split(np.arange(len(counts)), _LEVELS):
        filled = counts[part] > 0
        if filled.any():
            rounded[part[filled]] = counts[part].sum() / filled.sum()
    return rounded


def _divergence(expected: Array, found: Array) -> float:
    """Kullback and Leibler's, of two counts."""
    p, q = expected / expected.sum(), found / max(found.sum(), 1.0)
    there = p > 0
    return float(np.sum(p[there] * np.log(p[there] / np.maximum(q[there], 1e-9))))
