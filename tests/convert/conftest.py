"""Real data, and ways to ask a converted model without modelport's own comparison."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from modelport.convert.stage import convert
from modelport.core.artifact import Artifact
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source

MODEL_FILE = "model/model.onnx"

DATA = {
    "digits": load_digits,
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "diabetes": load_diabetes,
}


def load_data(name: str) -> tuple[np.ndarray, np.ndarray]:
    return DATA[name](return_X_y=True)


def fit(model: Any, *data: Any) -> Any:
    """Fit without the advice that scikit-learn gives to people who train."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(*data)


def audit(model: Any) -> AuditedSource:
    return AuditedSource(Source.of(model), "object")


def convert_model(model: Any, sample: np.ndarray | Rows | None) -> Artifact:
    rows = Rows({"": sample}, "sample") if isinstance(sample, np.ndarray) else sample
    return convert(audit(model), rows)


def rows_of(frame: pd.DataFrame) -> Rows:
    return Rows(
        {
            str(name): column.to_numpy()
            if column.dtype.kind in "biuf"
            else column.to_numpy(dtype=object)
            for name, column in frame.items()
        },
        "frame",
    )


def runner(artifact: Artifact) -> Callable[..., dict[str, np.ndarray]]:
    """ONNX Runtime itself on the artifact's file, in batches of any size."""
    session = onnxruntime.InferenceSession(
        artifact.files[MODEL_FILE], providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, np.ndarray], batch: int = 0) -> dict[str, np.ndarray]:
        count = len(next(iter(inputs.values())))
        pieces = [
            session.run(names, {n: a[start : start + (batch or count)] for n, a in inputs.items()})
            for start in range(0, count, batch or count)
        ]
        return {n: np.concatenate([p[i] for p in pieces]) for i, n in enumerate(names)}

    return run


@pytest.fixture(scope="session")
def wine() -> tuple[np.ndarray, np.ndarray]:
    return load_data("wine")


@pytest.fixture(scope="session")
def cancer() -> tuple[np.ndarray, np.ndarray]:
    return load_data("breast_cancer")


@pytest.fixture(scope="session")
def diabetes() -> tuple[np.ndarray, np.ndarray]:
    return load_data("diabetes")
