"""The XGBoost framework adapter."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import xgboost

from modelport.convert.base import Attempt, Export, Probe
from modelport.convert.forests.ensemble import add_forest
from modelport.convert.forests.forest import rows_of_thresholds
from modelport.convert.forests.graph import GraphBuilder, add_link
from modelport.convert.forests.outputs import add_outputs, output_specs
from modelport.convert.forests.probes import tree_probes
from modelport.convert.frameworks.xgboost.dump import read_booster
from modelport.convert.frameworks.xgboost.loading import load_model
from modelport.core.errors import InputError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.source import AuditedSource
from modelport.core.tensors import Array

_PICKLES: Final = ("pickle", "joblib")
_REAL: Final = "float32"


class XgboostFramework:
    """Loads XGBoost models and writes their trees as an ONNX graph."""

    def recognises(self, audited: AuditedSource) -> bool:
        """See `modelport.convert.base.Framework.recognises`."""
        if audited.format == "object":
            return isinstance(audited.source.model, xgboost.XGBModel | xgboost.Booster)
        if audited.format in _PICKLES:
            return next(iter(audited.globals), "").startswith("xgboost.")
        return audited.format == "xgboost"

    def load(self, audited: AuditedSource) -> XgboostModel:
        """See `modelport.convert.base.Framework.load`."""
        return XgboostModel(load_model(audited))


class XgboostModel:
    """A booster, or a wrapper and its booster.

    Parameters
    ----------
    model : xgboost.Booster or xgboost.XGBModel
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        wrapped = isinstance(model, xgboost.XGBModel)
        self._booster = model.get_booster() if wrapped else model
        best = self._booster.attr("best_iteration")
        rounds = int(best) + 1 if wrapped and best is not None else 0
        self._dump = read_booster(self._booster, rounds)
        self._missing = float(model.missing) if wrapped else math.nan
        self._kind = self._find_kind()
        self._notes = self._find_notes(best, wrapped)

    def _find_kind(self) -> str:
        """See `modelport.convert.forests.outputs`."""
        dump, wrapped = self._dump, isinstance(self._model, xgboost.XGBModel)
        if wrapped and not isinstance(self._model, xgboost.XGBClassifier):
            return "values"
        if dump.objective == "multi:softmax" and not wrapped:
            return "labels"
        if dump.link == "softmax":
            return "multiclass"
        if dump.objective in ("binary:logistic", "binary:hinge"):
            return "binary" if dump.groups == 1 else "multilabel"
        return "values"

    def _find_notes(self, best: str | None, wrapped: bool) -> tuple[str, ...]:
        if best is None or int(best) + 1 >= self._dump.rounds:
            return ()
        if wrapped:
            return (f"early stopping: the first {int(best) + 1} rounds are used, as predict does",)
        return (
            f"early stopping found {int(best) + 1} rounds best, and Booster.predict uses all "
            f"{self._dump.rounds}; pack booster[: booster.best_iteration + 1] to use those",
        )

    @property
    def task(self) -> str:
        """See `modelport.convert.base.SourceModel.task`."""
        return "regression" if self._kind == "values" else "classification"

    @property
    def framework_version(self) -> str:
        """See `modelport.convert.base.SourceModel.framework_version`."""
        return f"XGBoost {xgboost.__version__}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `modelport.convert.base.SourceModel.notes`."""
        return self._notes

    def predict(self, rows: Rows) -> dict[str, Array]:
        """See `modelport.convert.base.SourceModel.predict`."""
        matrix = self._dump.inputs.matrix(rows)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                if isinstance(self._model, xgboost.XGBClassifier) and self._kind != "values":
                    return {
                        "label": np.asarray(self._model.predict(matrix)).astype(np.int64),
                        "probabilities": np.asarray(self._model.predict_proba(matrix)),
                    }
                if isinstance(self._model, xgboost.XGBModel):
                    return {"prediction": np.asarray(self._model.predict(matrix))}
                return self._predict_booster(matrix)
            except (xgboost.core.XGBoostError, ValueError) as error:
                said = str(error).partition("Stack trace")[0].strip().rpartition(": ")[2]
                # Reports quote the cause; XGBoost's own begins with the time of day.
                raise InputError(f"the source model refuses the rows: {said}") from type(error)(
                    said
                )

    def _predict_booster(self, matrix: Array) -> dict[str, Array]:
        booster = self._booster
        data = xgboost.DMatrix(
            matrix,
            feature_names=booster.feature_names,
            feature_types=booster.feature_types,
            enable_categorical=True,
        )
        answer = np.asarray(booster.predict(data))
        if self._kind == "labels":
            scores = np.asarray(booster.predict(data, output_margin=True))
            return {"label": answer.astype(np.int64), "scores": scores}
        if self._kind == "multiclass":
            return {"label": answer.argmax(axis=1), "probabilities": answer}
        if self._kind == "binary":
            return {
                "label": (answer > 0.5).astype(np.int64),
                "probabilities": np.stack([1 - answer, answer], axis=1),
            }
        if self._kind == "multilabel":
            return {"label": (answer > 0.5).astype(np.int64), "probabilities": answer}
        return {"prediction": answer}

    def attempts(self, rows: Rows | None) -> Sequence[Attempt]:
        """In float32: XGBoost itself rounds rows to float32, and adds up in float32.

        Of a linear model with several classes XGBoost 3.2 adds the first one's base score to all
        of them; other versions add each its own. Which it is, parity tells.
        """
        dump = self._dump
        if dump.forest is not None:
            return [Attempt("tree graph float32", partial(self._export, dump.base))]
        attempts = [Attempt("linear graph float32", partial(self._export, dump.base))]
        if (dump.base != dump.base[0]).any():
            same = np.full_like(dump.base, dump.base[0])
            name = "linear graph float32, the first base score for all"
            attempts.append(Attempt(name, partial(self._export, same)))
        return attempts

    def _export(self, base: Array) -> Export:
        dump, builder = self._dump, GraphBuilder()
        matrix = self._add_matrix(builder)
        if dump.forest is not None:
            sums = add_forest(builder, dump.forest, matrix, _REAL, version_3=True)
        else:
            present = builder.add(
                "Where", builder.add("IsNaN", matrix), builder.constant(np.float32(0)), matrix
            )
            linear = builder.add("MatMul", present, builder.constant(dump.weights[:-1]))
            sums = builder.add("Add", linear, builder.constant(dump.weights[-1]))
        if base.any():
            sums = builder.add("Add", sums, builder.constant(base))
        link = "identity" if self._kind == "labels" else dump.link
        answers = add_link(builder, link, sums, _REAL)
        tensors = add_outputs(builder, self._kind, answers, dump.groups, _REAL)
        signature = Signature(
            dump.inputs.specs(_REAL), output_specs(self._kind, dump.groups, _REAL)
        )
        return builder.finish(signature, tensors, "modelport")

    def _add_matrix(self, builder: GraphBuilder) -> str:
        dump = self._dump
        matrix = dump.inputs.add_to(builder, _REAL)
        if not math.isnan(self._missing):
            missing = builder.constant(np.float32(self._missing))
            nan = builder.constant(np.float32(np.nan))
            matrix = builder.add("Where", builder.add("Equal", matrix, missing), nan, matrix)
        if dump.categorical:
            # XGBoost takes the whole part of a code.
            mask = np.zeros((1, len(dump.inputs.features)), dtype=np.bool_)
            mask[0, list(dump.categorical)] = True
            whole = builder.add("Floor", matrix)
            matrix = builder.add("Where", builder.constant(mask), whole, matrix)
        return matrix

    def native(self, rows: Rows | None) -> Attempt | None:
        """None: there is no engine for it."""
        return None

    def made_up_rows(self) -> Rows | None:
        """Rows around the thresholds of the trees."""
        dump = self._dump
        width = len(dump.inputs.features)
        if dump.forest is None:
            generator = np.random.default_rng(20261121)
            return dump.inputs.rows(generator.normal(size=(64, width)).astype(np.float32))
        return dump.inputs.rows(rows_of_thresholds(dump.forest, width))

    def probes(self, rows: Rows) -> Sequence[Probe]:
        """Rows next to the thresholds of the trees, and codes that no category has."""
        if self._dump.forest is None:
            return []
        return tree_probes(self._dump.forest, self._dump.inputs, rows)
