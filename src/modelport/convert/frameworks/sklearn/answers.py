"""What a fitted estimator answers, under the names that are served."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.mixture._base import BaseMixture

from modelport.core.errors import InputError, UnsupportedError
from modelport.core.tensors import Array

LABEL = "label"
#: Outputs that an export may leave out when only they cannot be made to agree.
SECONDARY = ("scores", "distances")


def task_of(model: Any) -> str:
    """See `modelport.core.artifact.Artifact`.

    Raises
    ------
    UnsupportedError
        For estimators that can neither predict nor transform new rows.
    """
    if is_classifier(model):
        return "classification"
    if is_regressor(model):
        return "regression"
    if is_outlier_detector(model) and hasattr(model, "predict"):
        return "outlier"
    if (is_clusterer(model) or isinstance(model, BaseMixture)) and hasattr(model, "predict"):
        return "clustering"
    if hasattr(model, "transform"):
        return "transform"
    raise UnsupportedError(
        f"a {type(model).__name__} can neither predict nor transform new rows",
        hint="train a model that can, for example KMeans in place of DBSCAN",
    )


def answer(model: Any, task: str, given: Any) -> dict[str, Array]:
    """The estimator's own answers for `given`, by served name.

    Returns
    -------
    dict of str to ndarray
        ``label`` and ``probabilities`` or ``scores`` (classification), ``prediction``
        (regression), ``label`` and ``distances`` (clustering), ``label`` and ``scores``
        (outlier), ``output`` (transform). Labels are int64 or text.

    Raises
    ------
    InputError
        When the estimator refuses the values, with its own words.
    """
    # Warnings about unknown categories or overflows are for who trains; here they are expected.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return _ANSWERS[task](model, given)
        except (ValueError, TypeError, IndexError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"the source model refuses the rows: {first}") from error


def _classification(model: Any, given: Any) -> dict[str, Array]:
    answers = {LABEL: _labels(model.predict(given))}
    if hasattr(model, "predict_proba"):
        probabilities = model.predict_proba(given)
        if isinstance(probabilities, list):
            # Several labels at once: each has its own classes.
            for number, each in enumerate(probabilities):
                answers[f"probabilities_{number}"] = dense(each)
            return answers
        answers["probabilities"] = dense(probabilities)
    elif hasattr(model, "decision_function"):
        answers["scores"] = dense(model.decision_function(given))
    return answers


def _regression(model: Any, given: Any) -> dict[str, Array]:
    return {"prediction": dense(model.predict(given))}


def _outlier(model: Any, given: Any) -> dict[str, Array]:
    answers = {LABEL: _labels(model.predict(given))}
    if hasattr(model, "decision_function"):
        answers["scores"] = dense(model.decision_function(given))
    return answers


def _clustering(model: Any, given: Any) -> dict[str, Array]:
    answers = {LABEL: _labels(model.predict(given))}
    if hasattr(model, "predict_proba"):
        answers["probabilities"] = dense(model.predict_proba(given))
    elif hasattr(model, "transform"):
        answers["distances"] = dense(model.transform(given))
    return answers


def _transform(model: Any, given: Any) -> dict[str, Array]:
    output = dense(model.transform(given))
    return {"output": output.astype(object) if output.dtype.kind in "US" else output}


_ANSWERS = {
    "classification": _classification,
    "regression": _regression,
    "outlier": _outlier,
    "clustering": _clustering,
    "transform": _transform,
}


def dense(values: Any) -> Array:
    """An array, of a sparse matrix too."""
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


def _labels(values: Any) -> Array:
    labels = dense(values)
    if labels.dtype.kind in "OUS":
        if all(isinstance(label, str) for label in labels.ravel()):
            return labels.astype(object)
        if not all(isinstance(label, int | np.integer) for label in labels.ravel()):
            raise UnsupportedError("class labels are neither all text nor all integers")
    whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels):
        raise UnsupportedError(f"class labels are not integers: {labels.ravel()[0]!r}")
    return whole
