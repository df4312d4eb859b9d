"""The LightGBM framework adapter."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import lightgbm
import numpy as np

from modelport.convert.base import Attempt, Export, Probe
from modelport.convert.forests.ensemble import add_forest
from modelport.convert.forests.forest import rows_of_thresholds
from modelport.convert.forests.graph import GraphBuilder, add_link
from modelport.convert.forests.inputs import TreeInputs
from modelport.convert.forests.outputs import add_outputs, as_labels, output_specs
from modelport.convert.forests.probes import tree_probes
from modelport.convert.frameworks.lightgbm.dump import ZERO, read_booster
from modelport.convert.frameworks.lightgbm.loading import load_model
from modelport.core.errors import InputError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.source import AuditedSource
from modelport.core.tensors import Array

_PICKLES: Final = ("pickle", "joblib")
#: LightGBM compares and adds up in float64, whatever the rows are; so does the graph.
_REAL: Final = "float64"


class LightgbmFramework:
    """Loads LightGBM models and writes their trees as an ONNX graph."""

    def recognises(self, audited: AuditedSource) -> bool:
        """See `modelport.convert.base.Framework.recognises`."""
        if audited.format == "object":
            return isinstance(audited.source.model, lightgbm.LGBMModel | lightgbm.Booster)
        if audited.format in _PICKLES:
            return next(iter(audited.globals), "").startswith("lightgbm.")
        return audited.format == "lightgbm"

    def load(self, audited: AuditedSource) -> LightgbmModel:
        """See `modelport.convert.base.Framework.load`."""
        return LightgbmModel(load_model(audited))


class LightgbmModel:
    """A booster, or a wrapper and its booster.

    Parameters
    ----------
    model : lightgbm.Booster or lightgbm.LGBMModel
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        wrapped = isinstance(model, lightgbm.LGBMModel)
        self._booster: lightgbm.Booster = model.booster_ if wrapped else model
        # As predict does, it takes the best iteration where early stopping found one.
        text = self._booster.model_to_string()
        self._dump = read_booster(text, self._booster.pandas_categorical)
        classifier = isinstance(model, lightgbm.LGBMClassifier)
        self._classes = as_labels(model.classes_) if classifier else None
        self._kind = self._find_kind(classifier)

    def _find_kind(self, classifier: bool) -> str:
        """See `modelport.convert.forests.outputs`."""
        dump = self._dump
        classifies = classifier or dump.objective in ("binary", "multiclass", "multiclassova")
        if not classifies or not dump.objective:
            return "values"
        return "binary" if dump.groups == 1 else "multiclass"

    @property
    def task(self) -> str:
        """See `modelport.convert.base.SourceModel.task`."""
        return "regression" if self._kind == "values" else "classification"

    @property
    def framework_version(self) -> str:
        """See `modelport.convert.base.SourceModel.framework_version`."""
        return f"LightGBM {lightgbm.__version__}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `modelport.convert.base.SourceModel.notes`."""
        notes = []
        used, grown = self._booster.best_iteration, self._booster.current_iteration()
        if 0 < used < grown:
            notes.append(f"early stopping: the first {used} rounds are used, as predict does")
        if not self._dump.objective:
            notes.append("the objective is the user's own: answers are raw scores, as predict's")
        return tuple(notes)

    def predict(self, rows: Rows) -> dict[str, Array]:
        """See `modelport.convert.base.SourceModel.predict`."""
        matrix = self._inputs(rows).matrix(rows)
        quiet = contextlib.redirect_stdout(sys.stderr)
        with warnings.catch_warnings(), np.errstate(all="ignore"), quiet:
            warnings.simplefilter("ignore")
            try:
                if self._kind == "values":
                    return {"prediction": np.asarray(self._model.predict(matrix))}
                if isinstance(self._model, lightgbm.LGBMClassifier):
                    return {
                        "label": as_labels(self._model.predict(matrix)),
                        "probabilities": np.asarray(self._model.predict_proba(matrix)),
                    }
                answer = np.asarray(self._booster.predict(matrix))
            except (lightgbm.basic.LightGBMError, ValueError) as error:
                raise InputError(f"the source model refuses the rows: {error}") from error
        if self._kind == "binary":
            answer = np.stack([1.0 - answer, answer], axis=1)
        return {"label": answer.argmax(axis=1), "probabilities": answer}

    def _inputs(self, rows: Rows | None) -> TreeInputs:
        return self._dump.inputs if rows is None else self._dump.inputs.named_as_in(rows)

    def attempts(self, rows: Rows | None) -> Sequence[Attempt]:
        """For rows in float32 and in float64; float64 inside in both.

        Decimals of a file often equal a threshold (the middle between two others), and rounded to
        float32 they may pass it: where the rows hold such numbers, float64 comes first.
        """
        inputs = self._inputs(rows)
        served = ("float32", "float64")
        if rows is not None and not rows.fit_float32:
            served = ("float64", "float32")
        return [Attempt(f"tree graph {s}", partial(self._export, inputs, s)) for s in served]

    def _export(self, inputs: TreeInputs, served: str) -> Export:
        dump, builder = self._dump, GraphBuilder()
        matrix = inputs.add_to(builder, served)
        if served != _REAL:
            matrix = builder.cast(matrix, _REAL)
        matrix = self._add_conversions(builder, matrix)
        sums = add_forest(builder, dump.forest, matrix, _REAL)
        if dump.rounds:
            sums = builder.add("Div", sums, builder.constant(np.float64(dump.rounds)))
        if dump.factor != 1.0:
            sums = builder.add("Mul", sums, builder.constant(np.float64(dump.factor)))
        answers = add_link(builder, dump.link, sums, _REAL)
        tensors = add_outputs(builder, self._kind, answers, dump.groups, _REAL, self._classes)
        signature = Signature(
            inputs.specs(served), output_specs(self._kind, dump.groups, served, self._classes)
        )
        for spec in signature.outputs:
            if spec.dtype == served != _REAL:
                tensors[spec.name] = builder.cast(tensors[spec.name], served)
        return builder.finish(signature, tensors, "modelport")

    def _add_conversions(self, builder: GraphBuilder, matrix: str) -> str:
        """Codes without their fraction; zeros as missing values, where the model says so."""
        dump = self._dump
        if dump.categorical:
            size = builder.add("Floor", builder.add("Abs", matrix))
            whole = builder.add("Mul", builder.add("Sign", matrix), size)
            matrix = builder.add("Where", self._mask(builder, dump.categorical), whole, matrix)
        if dump.zero_missing:
            small = builder.add(
                "LessOrEqual", builder.add("Abs", matrix), builder.constant(np.float64(ZERO))
            )
            zero = builder.add("And", small, self._mask(builder, dump.zero_missing))
            matrix = builder.add("Where", zero, builder.constant(np.float64(np.nan)), matrix)
        return matrix

    def _mask(self, builder: GraphBuilder, features: Sequence[int]) -> str:
        mask = np.zeros((1, len(self._dump.inputs.features)), dtype=np.bool_)
        mask[0, list(features)] = True
        return builder.constant(mask)

    def native(self, rows: Rows | None) -> Attempt | None:
        """None: there is no engine for it."""
        return None

    def made_up_rows(self) -> Rows | None:
        """Rows around the thresholds of the trees."""
        inputs = self._dump.inputs
        return inputs.rows(rows_of_thresholds(self._dump.forest, len(inputs.features)))

    def probes(self, rows: Rows) -> Sequence[Probe]:
        """Rows next to the thresholds of the trees, and codes that no category has."""
        return tree_probes(self._dump.forest, self._inputs(rows), rows)
