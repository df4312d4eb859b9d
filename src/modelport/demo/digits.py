"""Two classifiers of scikit-learn's handwritten digits, one better than the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelport.core.tensors import Array


@dataclass(frozen=True)
class TrainedModels:
    """What the demo starts from.

    Parameters
    ----------
    models : mapping of str to estimator
        By what they are, worse first.
    rows : ndarray of float64, shape (n, 64)
        Held out from training.
    labels : ndarray of int64, shape (n,)
        The digit that each row really is.
    """

    models: Mapping[str, Any]
    rows: Array
    labels: Array


class DigitsDemo:
    """1,797 images of 8×8 pixels; a third is held out."""

    def train(self) -> TrainedModels:
        """Train both models; takes a few seconds."""
        images, digits = load_digits(return_X_y=True)
        train_rows, rows, train_labels, labels = train_test_split(
            images, digits, test_size=1 / 3, random_state=0, stratify=digits
        )
        linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.001))
        network = make_pipeline(
            StandardScaler(),
            MLPClassifier((128, 64), alpha=1.0, tol=1e-3, max_iter=300, random_state=0),
        )
        models = {"logistic regression": linear, "neural network 64→128→64→10": network}
        for model in models.values():
            model.fit(train_rows, train_labels)
        return TrainedModels(models, rows, labels)
