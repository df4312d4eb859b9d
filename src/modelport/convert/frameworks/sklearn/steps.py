"""What every step of a pipeline answers, to find where an export parts from it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from modelport.core.tensors import Array


def answers_of_steps(model: Any, given: Any) -> list[tuple[str, Array]]:
    """The output of every step, by its name, in the order of the pipeline.

    Parameters
    ----------
    model : BaseEstimator
    given : ndarray or DataFrame
        What the model takes.

    Returns
    -------
    list of (str, ndarray)
        Of an estimator that is no pipeline, what it computes before its label: its
        ``decision_function``, its ``predict_proba``.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return [
            (name, np.asarray(value.toarray() if hasattr(value, "toarray") else value))
            for name, value in _walk(model, given, "")
        ]


def _walk(model: Any, given: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(model, Pipeline):
        value = given
        for name, step in model.steps:
            if step is None or step == "passthrough":
                continue
            last = step is model.steps[-1][1]
            yield from _walk(step, value, f"{prefix}{name}")
            if not last:
                value = step.transform(value)
        return
    if isinstance(model, ColumnTransformer):
        for name, step, columns in model.transformers_:
            if hasattr(step, "transform") and hasattr(given, "loc"):
                part = given.loc[:, columns] if not callable(columns) else given
                yield f"{prefix}.{name}".lstrip("."), step.transform(part)
    for method in ("transform", "decision_function", "predict_proba"):
        if hasattr(model, method) and not (method == "transform" and hasattr(model, "predict")):
            name = prefix if method == "transform" else f"{prefix}.{method}"
            yield name.lstrip(".") or type(model).__name__.lower(), getattr(model, method)(given)
