"""A trained model on disk, and the command line as a person runs it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``modelport …`` in an empty folder with a registry of its own."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("MODELPORT_")},
        "MODELPORT_REGISTRY": str(tmp_path / "registry"),
        "MODELPORT_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }

    def call(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "modelport", *words],
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call


@pytest.fixture(scope="session")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model.pkl``, ``sample.npy``, ``sample.csv`` and ``expected.npy``."""
    folder = tmp_path_factory.mktemp("iris")
    data = load_iris()
    model = LogisticRegression(max_iter=1000).fit(data.data, data.target)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    better = LogisticRegression(C=10, max_iter=5000).fit(data.data, data.target)
    (folder / "better.pkl").write_bytes(pickle.dumps(better))
    np.save(folder / "sample.npy", data.data)
    header = "sepal_length,sepal_width,petal_length,petal_width"
    np.savetxt(folder / "sample.csv", data.data, delimiter=",", header=header, comments="")
    np.save(folder / "expected.npy", model.predict(data.data))
    return folder
