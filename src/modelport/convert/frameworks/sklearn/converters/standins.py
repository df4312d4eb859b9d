"""Estimators that stand for parts of others, so that skl2onnx sees a plain pipeline."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin


class ChosenColumns(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Some columns of a matrix, as a feature selector leaves them.

    Parameters
    ----------
    indices : list of int or None
        None for all of them.
    """

    def __init__(self, indices: list[int] | None) -> None:
        self.indices = indices


class Inverse(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The inverse of a fitted transformer, as a regressor of transformed targets applies it.

    Parameters
    ----------
    transformer : BaseEstimator
    """

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer


class Joined(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Columns and vectors side by side."""


class BoostedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Histogram gradient boosting as skl2onnx cannot export it.

    Parameters
    ----------
    model : HistGradientBoostingClassifier
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def classes_(self) -> Any:
        """The model's."""
        return self.model.classes_


class BoostedRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Histogram gradient boosting as skl2onnx cannot export it.

    Parameters
    ----------
    model : HistGradientBoostingRegressor
    """

    def __init__(self, model: Any) -> None:
        self.model = model


def is_beyond_skl2onnx(model: Any) -> bool:
    """Whether a histogram gradient boosting splits categories, or has a logarithmic link.

    skl2onnx refuses the first, and gives wrong answers for the second.
    """
    link = type(model._loss.link).__name__
    return (
        getattr(model, "_preprocessor", None) is not None
        or link == "LogLink"
        or any(tree.nodes["is_categorical"].any() for step in model._predictors for tree in step)
    )
