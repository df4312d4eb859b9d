"""Between which values each tensor lies on the calibration rows, in bounded memory.

MinMax takes the least and the largest value. Percentile leaves out a share of the values at each
end; entropy takes the range whose 8-bit histogram says most about the full one (Migacz, "8-bit
inference with TensorRT", GTC 2017). MSE takes the range [l, u] with the least

    sum over values x of  max(l - x, x - u, 0) ** 2 + ((u - l) / 255) ** 2 / 12

the squares of what is cut off and of what is rounded. All but MinMax need a histogram, which takes
a second run over the rows; nothing else is kept, so the memory does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from modelport.core.tensors import Array, Tensors
from modelport.optimize.session import Probe, batches

METHODS: Final = ("minmax", "percentile", "entropy", "mse")

_BINS: Final = 2048
_LEVELS: Final = 128
_PERCENTILE: Final = 99.999
_BATCH: Final = 4
_STRIDE: Final = 16
#: Shares of each end that are tried.
_SHARES: Final = np.linspace(1, 0.2, 41)


@dataclass(frozen=True)
class Range:
    """The values of a tensor.

    Parameters
    ----------
    low, high : float
        The least and the largest one.
    histogram : ndarray of int or None
        Counts in `_BINS` equal bins from `low` to `high`.
    size : int
        Bytes of one row.
    """

    low: float
    high: float
    histogram: Array | None = None
    size: int = 0

    def cut(self, method: str) -> tuple[float, float]:
        """What is kept of it by a method of `METHODS`; zero is always in it."""
        low, high = self.low, self.high
        counts = self.histogram
        if method != "minmax" and high > low and counts is not None and counts.any():
            if method == "mse":
                return _least_squares(counts, low, high)
            first, last = _percentile(counts) if method == "percentile" else _entropy(counts)
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
        Of so many rows; 0: only `minmax` will be asked for.
    """
    names = list(dict.fromkeys(tensors))
    probe = Probe(model, names, optimize=True)
    low = dict.fromkeys(names, np.inf)
    high = dict.fromkeys(names, -np.inf)
    sizes = dict.fromkeys(names, 0)
    for batch in batches(model, rows, _BATCH):
        for name, array in probe.run(batch, names).items():
            if array.size:
                low[name] = min(low[name], float(array.min()))
                high[name] = max(high[name], float(array.max()))
                sizes[name] = max(sizes[name], array.nbytes // len(next(iter(batch.values()))))
    seen = [name for name in names if np.isfinite(low[name]) and np.isfinite(high[name])]
    counts: dict[str, Array] = {}
    if histograms:
        counts = {name: np.zeros(_BINS, dtype=np.int64) for name in seen}
        few = {name: array[:histograms] for name, array in rows.items()}
        for batch in batches(model, few, _BATCH):
            for name, array in probe.run(batch, seen).items():
                found, _ = np.histogram(array, bins=_BINS, range=(low[name], high[name]))
                counts[name] += found
    return {name: Range(low[name], high[name], counts.get(name), sizes[name]) for name in seen}


def _percentile(histogram: Array) -> tuple[int, int]:
    shares = np.cumsum(histogram) / histogram.sum()
    tail = (100 - _PERCENTILE) / 100
    first = int(np.searchsorted(shares, tail, side="right"))
    last = int(np.searchsorted(shares, 1 - tail)) + 1
    return min(first, _BINS - 1), max(last, first + 1)


def _least_squares(histogram: Array, low: float, high: float) -> tuple[float, float]:
    centres = low + (np.arange(_BINS) + 0.5) * (high - low) / _BINS
    lows, highs = min(low, 0.0) * _SHARES, max(high, 0.0) * _SHARES
    below = np.maximum(lows[:, None] - centres, 0) ** 2 @ histogram
    above = np.maximum(centres - highs[:, None], 0) ** 2 @ histogram
    steps = (highs[None, :] - lows[:, None]) / 255
    errors = below[:, None] + above[None, :] + histogram.sum() * steps**2 / 12
    first, last = divmod(int(np.argmin(errors)), len(_SHARES))
    return float(lows[first]), float(highs[last])


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
