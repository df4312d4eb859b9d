"""A trained model and its data, for everything that optimizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from modelport import api
from modelport.core.package import Package
from modelport.core.tensors import Array


@pytest.fixture(scope="session")
def digits() -> tuple[Array, Array]:
    """Rows and labels, shuffled."""
    rows, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[order].astype(np.float32), labels[order]


@pytest.fixture(scope="session")
def perceptron(digits: tuple[Array, Array], tmp_path_factory: pytest.TempPathFactory) -> Package:
    """64→256→10, trained on half of the rows."""
    rows, labels = digits
    model = MLPClassifier((256,), max_iter=40, random_state=0, early_stopping=True)
    model.fit(rows[:900] / 16, labels[:900])
    folder = tmp_path_factory.mktemp("perceptron")
    return api.pack(model, "perceptron", sample=rows[:64] / 16, out=folder)


@pytest.fixture(scope="session")
def rows_file(digits: tuple[Array, Array], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows that it was not trained on, with their labels in a column ``digit``."""
    rows, labels = digits
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    np.savez(path, input=rows[900:] / 16, digit=labels[900:])
    return path
