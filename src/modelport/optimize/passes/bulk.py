"""A runtime chosen by the number of rows: few go to ONNX Runtime, many to XGBoost.

ONNX Runtime answers one row of a tree ensemble many times as fast as XGBoost, whose calls cost
some tenths of a millisecond; XGBoost answers thousands up to twice as fast. The file stays as it
is: its metadata says from how many rows on the engine ``forest`` uses XGBoost, which is measured
here. Models whose trees XGBoost cannot have exactly are refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from modelport.adapters import find_adapter
from modelport.core.compare import Tolerance, compare
from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import Engine, EngineOptions, LoadedModel
from modelport.optimize.base import LOAD, Progress, Subject, Variant
from modelport.optimize.classic.ensemble import OPERATORS
from modelport.optimize.onnx_graph import operators, parse, serialize

_ENGINE: Final = "forest"
_BULK_ROWS: Final = "modelport.bulk_rows"

#: Batch sizes at which both are timed, the largest first.
_SIZES: Final = (4096, 2048, 1024, 512, 256, 128, 64, 32, 16)
_ROUNDS: Final = 5
_ROUND_SECONDS: Final = 0.005
#: How much faster XGBoost has to be to be worth it.
_LEAST_GAIN: Final = 1.05
_MOST_ROWS: Final = 4096
#: Shares of the numbers that are missing or infinite in rows that are made to hurt.
_MISSING, _INFINITE = 0.1, 0.02
_SEED: Final = 0


class BulkPass:
    """See the module."""

    name = "bulk"
    order = LOAD
    #: XGBoost adds up in float32, as ONNX Runtime does unless the trees are of float64.
    tolerance = 1e-5

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        if subject.variant.engine == _ENGINE:
            return "its runtime is chosen by the number of rows already"
        if not operators(parse(subject.variant.model)) & set(OPERATORS):
            return "no trees"
        if subject.signature.batch_symbol is None:
            return "its number of rows is fixed"
        return ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        options = EngineOptions(threads=subject.threads)
        engines: list[Engine] = [
            find_adapter("engine", name).load() for name in (subject.variant.engine, _ENGINE)
        ]
        few = engines[0].load(subject.variant.model, options)
        many = engines[1].load(_with_rows(subject.variant.model, 1), options)
        _agree(few, many, subject.rows)
        rows = _crossover(few, many, subject.rows, report)
        made = subject.variant.then(
            f"bulk, XGBoost from {rows} rows on", _with_rows(subject.variant.model, rows), rows=rows
        )
        yield replace(made, engine=_ENGINE)


def _with_rows(model: bytes, rows: int) -> bytes:
    graph = parse(model)
    kept = [item for item in graph.metadata_props if item.key != _BULK_ROWS]
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
    graph.metadata_props.add(key=_BULK_ROWS, value=str(rows))
    return serialize(graph)


def _agree(few: LoadedModel, many: LoadedModel, rows: Tensors) -> None:
    """Compare all outputs for the rows, and for the rows with numbers missing or infinite.

    Raises
    ------
    UnsupportedError
        When one label differs, or one number by more than it may.
    """
    some = {name: array[:_MOST_ROWS] for name, array in rows.items()}
    for given, of in ((some, "rows"), (_hurt(some), "rows with missing and infinite numbers")):
        found = compare(few.run(given), many.run(given), Tolerance(0.0, BulkPass.tolerance))
        wrong = [item.describe() for item in found if not item.agrees]
        if wrong:
            raise UnsupportedError(f"XGBoost answers {of} otherwise: {wrong[0]}")


def _hurt(rows: Tensors) -> dict[str, Array]:
    random = np.random.default_rng(_SEED)
    found = {}
    for name, array in rows.items():
        if array.dtype.kind == "f":
            share = random.random(array.shape)
            array = np.where(share < _MISSING, np.nan, array)
            array = np.where(share > 1 - _INFINITE, random.choice([-np.inf, np.inf]), array)
        found[name] = array.astype(rows[name].dtype)
    return found


def _crossover(few: LoadedModel, many: LoadedModel, rows: Tensors, report: Progress) -> int:
    """The least of the batch sizes from which on XGBoost is faster at all of them."""
    found = 0
    for size in _SIZES:
        batch = {
            name: np.take(array, range(size), axis=0, mode="wrap") for name, array in rows.items()
        }
        gain = _gain(few, many, batch)
        report(f"  {size} rows: XGBoost is {gain:.2f} times as fast as ONNX Runtime")
        if gain < _LEAST_GAIN:
            break
        found = size
    if not found:
        raise UnsupportedError(f"XGBoost is no faster even for {_SIZES[0]:,} rows at once")
    return found


def _gain(few: LoadedModel, many: LoadedModel, batch: Tensors) -> float:
    """The median of their times' ratios, taken in turns."""
    times = max(1, int(_ROUND_SECONDS / _seconds(few, batch, 1)))
    _seconds(many, batch, 1)
    ratios = [_seconds(few, batch, times) / _seconds(many, batch, times) for _ in range(_ROUNDS)]
    return float(np.median(ratios))


def _seconds(model: LoadedModel, batch: Tensors, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        model.run(batch)
    return max(time.perf_counter() - start, 1e-9)
