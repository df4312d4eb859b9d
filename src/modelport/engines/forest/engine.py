"""Tree ensembles by two runtimes: ONNX Runtime for few rows, XGBoost for many.

::

    fewer rows than modelport.bulk_rows ──▶ the ONNX file, by ONNX Runtime

    as many, or more ──▶ before the trees ──▶ the trees, ──▶ after the trees
                         (ONNX Runtime)       by XGBoost     (ONNX Runtime)

The file is an ONNX file like any other. XGBoost's model is made of it in memory at every start,
and has to add up to what ONNX Runtime's does before anything is answered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx

from modelport.adapters import find_adapter
from modelport.core.errors import EngineError, UnsupportedError
from modelport.core.signature import Signature
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import Engine, EngineOptions, LoadedModel
from modelport.engines.forest.booster import Sums
from modelport.engines.forest.graph import SUMS, Parts, parts_of
from modelport.engines.forest.trees import Trees, neighbour, read_trees

#: The entry of the file's metadata that says from how many rows on XGBoost answers.
BULK_ROWS: Final = "modelport.bulk_rows"

_PROBES: Final = 256
_SEED: Final = 0
#: Share of the largest sum. Both add up in float32, or ONNX Runtime in float64.
_TOLERANCE: Final = 1e-5


class ForestEngine:
    """Executes ONNX files with one tree ensemble."""

    def load(self, model: Path | bytes, options: EngineOptions) -> LoadedModel:
        """See `modelport.engines.base.Engine.load`.

        Raises
        ------
        UnsupportedError
            When the model has no trees, or XGBoost cannot have them exactly.
        """
        runtime: Engine = find_adapter("engine", "onnxruntime").load()
        few = runtime.load(model, options)
        if not options.optimize:
            return few
        content = model if isinstance(model, bytes) else model.read_bytes()
        graph = onnx.load_from_string(content)
        return ForestModel(few, _Many(graph, runtime, options), _bulk_rows(graph))


class ForestModel:
    """A model that two runtimes answer for.

    Parameters
    ----------
    few : LoadedModel
    many : _Many
        The same model.
    rows : int
        From so many on `many` answers.
    """

    def __init__(self, few: LoadedModel, many: _Many, rows: int) -> None:
        if few.signature.batch_symbol is None:
            raise UnsupportedError("its number of rows is fixed: there is no choice by it")
        self._few, self._many, self._rows = few.run, many, rows
        self._counted = few.signature.inputs[0].name
        self._signature = few.signature

    @property
    def signature(self) -> Signature:
        """See `modelport.engines.base.LoadedModel.signature`."""
        return self._signature

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `modelport.engines.base.LoadedModel.run`."""
        if len(inputs[self._counted]) < self._rows:
            return self._few(inputs)
        return self._many.run(inputs)


class _Many:
    """The model with XGBoost in the place of the trees."""

    def __init__(self, graph: onnx.ModelProto, runtime: Engine, options: EngineOptions) -> None:
        def load(part: onnx.ModelProto) -> LoadedModel:
            return runtime.load(part.SerializeToString(), options)

        def dtype_of(part: onnx.ModelProto) -> str:
            return load(part).signature.outputs[0].dtype

        parts = parts_of(graph, dtype_of)
        trees = read_trees(parts.node)
        self._sums = Sums(trees, options.threads)
        self._rows = parts.rows
        self._before = load(parts.before) if parts.before is not None else None
        self._after = load(parts.after)
        self._also = [s.name for s in self._after.signature.inputs if s.name != SUMS]
        _prove(parts, trees, self._sums, load(parts.alone), load(parts.scores))

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """All outputs."""
        made = inputs if self._before is None else self._before.run(inputs)
        given = {name: inputs[name] for name in self._also}
        return self._after.run({SUMS: self._sums.of(made[self._rows]), **given})


def _bulk_rows(graph: onnx.ModelProto) -> int:
    text = next((item.value for item in graph.metadata_props if item.key == BULK_ROWS), "")
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise EngineError(
            f"{BULK_ROWS} in the model's metadata is {text!r}, not a number of rows",
            hint="modelport optimize --passes bulk writes it",
        )
    return int(text)


def _prove(parts: Parts, trees: Trees, sums: Sums, alone: LoadedModel, scores: LoadedModel) -> None:
    """Hold XGBoost against ONNX Runtime on rows that are made to hurt.

    Raises
    ------
    EngineError
        When they differ: another version of one of them reads something otherwise.
    """
    rows = _probes(trees)
    given = rows.astype(np.float64) if parts.wide else rows
    (expected,) = alone.run({parts.node.input[0]: given}).values()
    (found,) = scores.run({SUMS: sums.of(rows)}).values()
    error = np.abs(expected.astype(np.float64) - found)
    largest = np.maximum(1.0, np.abs(expected).max(axis=0))
    if not (error <= _TOLERANCE * largest).all():
        raise EngineError(
            f"XGBoost and ONNX Runtime disagree about the trees by up to {error.max():.2g}",
            hint="serve the package this one was made of",
        )


def _probes(trees: Trees) -> Array:
    """Rows of thresholds, their neighbours, numbers between them, NaN, infinities and zeros."""
    random = np.random.default_rng(_SEED)
    rows = np.zeros((_PROBES, trees.width), dtype=np.float32)
    inner = trees.left >= 0
    features = trees.feature[inner]
    order = np.argsort(features, kind="stable")
    limits = trees.threshold[inner][order]
    names, starts = np.unique(features[order], return_index=True)
    for name, mine in zip(names, np.split(limits, starts[1:]), strict=True):
        near = random.choice(mine, _PROBES)
        kinds = [
            near, neighbour(near, -np.inf), neighbour(near, np.inf),
            random.normal(near, 1.0), np.full(_PROBES, np.nan), np.full(_PROBES, np.inf),
            np.full(_PROBES, -np.inf), np.zeros(_PROBES),
        ]  # fmt: skip
        kind = random.choice(len(kinds), _PROBES, p=[0.2, 0.15, 0.1, 0.35, 0.1, 0.03, 0.03, 0.04])
        rows[:, name] = np.stack(kinds).astype(np.float32)[kind, np.arange(_PROBES)]
    return rows
