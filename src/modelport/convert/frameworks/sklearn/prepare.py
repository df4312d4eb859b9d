"""A copy of the model with equivalents for what skl2onnx gets wrong.

Each equivalent gives the same answers in scikit-learn itself; parity is measured against the
original all the same.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    VotingClassifier,
)
from sklearn.feature_selection import RFE
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from modelport.convert.frameworks.sklearn.converters.standins import (
    BoostedClassifier,
    BoostedRegressor,
    ChosenColumns,
    is_beyond_skl2onnx,
)
from modelport.convert.frameworks.sklearn.layout import Layout
from modelport.convert.frameworks.sklearn.nested import estimators_in, last_step, replaced
from modelport.core.tensors import Array


def prepare(estimator: Any, layout: Layout) -> Any:
    """The model to export: a copy where something had to change, else the model itself."""
    textual = any(column.knows_missing for column in layout.columns)
    final = last_step(estimator)
    binary = isinstance(final, LinearDiscriminantAnalysis) and len(final.classes_) == 2
    parts = list(estimators_in(estimator))
    if not (textual or binary or any(_needs_change(part) for part in parts)):
        return estimator
    model = copy.deepcopy(estimator)
    for part in estimators_in(model):
        if isinstance(part, VotingClassifier):
            # Only `transform` reads it, and skl2onnx refuses its default.
            part.flatten_transform = False
        if textual:
            _take_empty_for_missing(part)
    model = replaced(model, _stand_in)
    return _replace_last(model, _as_logistic(last_step(model))) if binary else model


def _needs_change(part: Any) -> bool:
    return isinstance(part, VotingClassifier | RFE) or _is_beyond(part)


def _is_beyond(part: Any) -> bool:
    boosting = isinstance(part, HistGradientBoostingClassifier | HistGradientBoostingRegressor)
    return boosting and hasattr(part, "_predictors") and is_beyond_skl2onnx(part)


def _stand_in(part: Any) -> Any:
    """What skl2onnx shall see in place of `part`."""
    if _is_beyond(part):
        return BoostedClassifier(part) if is_classifier(part) else BoostedRegressor(part)
    if isinstance(part, Pipeline) and any(isinstance(s, RFE) for _, s in part.steps[:-1]):
        last = len(part.steps) - 1
        part.steps = [
            (name, _selection(step) if isinstance(step, RFE) and i < last else step)
            for i, (name, step) in enumerate(part.steps)
        ]
    return part


def _selection(selector: RFE) -> ChosenColumns:
    """A selector in the middle of a pipeline chooses columns, and predicts nothing."""
    return ChosenColumns(np.flatnonzero(selector.support_).tolist())


def _take_empty_for_missing(part: Any) -> None:
    """Missing text is served as the empty text."""
    if isinstance(part, OneHotEncoder | OrdinalEncoder) and hasattr(part, "categories_"):
        part.categories_ = [_empty_for_missing(values) for values in part.categories_]
    # Unfitted ones stand in the model too, as parameters.
    fitted = isinstance(part, SimpleImputer) and hasattr(part, "statistics_")
    if fitted and np.asarray(part.statistics_).dtype == object:
        part.missing_values = ""


def _empty_for_missing(categories: Array) -> Array:
    if categories.dtype != object:
        return categories
    return np.asarray(["" if c is None or c != c else c for c in categories], dtype=object)


def _as_logistic(discriminant: Any) -> LogisticRegression:
    """Two classes: the logistic function of the decision, which skl2onnx takes for a softmax."""
    logistic = LogisticRegression()
    for name in ("coef_", "intercept_", "classes_", "n_features_in_"):
        setattr(logistic, name, getattr(discriminant, name))
    return logistic


def _replace_last(model: Any, step: Any) -> Any:
    if not isinstance(model, Pipeline):
        return step
    name, last = model.steps[-1]
    model.steps[-1] = (name, _replace_last(last, step))
    return model
