"""`optimize` and `compare` as a person runs them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from modelport import api
from modelport.core.package import Package

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, Path]:
    folder = tmp_path_factory.mktemp("trained")
    rows, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    rows, labels = (rows[order] / 16).astype(np.float32), labels[order]
    model = MLPClassifier((256,), max_iter=40, random_state=0, early_stopping=True)
    package = api.pack(model.fit(rows[:600], labels[:600]), "net", sample=rows[:64], out=folder)
    np.savez(folder / "rows.npz", input=rows[600:], digit=labels[600:])
    return package, folder / "rows.npz"


def test_it_prints_a_table_and_a_sentence(run: Run, trained: tuple[Package, Path]) -> None:
    package, rows = trained
    words = ("optimize", str(package.path), "--data", str(rows), "--target", "digit",
             "--max-drop", "0.02", "--passes", "float16,load")  # fmt: skip
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split()[:3] == ["VARIANT", "SIZE", "SMALLER"]
    assert "original" in done.stdout
    assert "holding" in done.stderr
    again = run(*words, "--force", "--json")
    report = json.loads(again.stdout)
    assert report["metric"] == "accuracy"
    assert report["package"] == "optimized/net"
    compared = run("compare", str(package.path), "optimized/net", "--data", str(rows))
    assert compared.returncode == 0, compared.stderr
    assert "agreement (same label) on 1197 rows; 0 labels differ" in compared.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "nobody"], "no column and no file 'nobody'"),
        (["--metric", "auc"], "not a metric: 'auc'"),
        (["--budget", "soon"], "not a time: 'soon'"),
        (["--passes", "magic"], "pass not found: magic"),
    ],
)
def test_mistakes_are_named(
    run: Run, trained: tuple[Package, Path], words: list[str], said: str
) -> None:
    package, rows = trained
    done = run("optimize", str(package.path), "--data", str(rows), *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_models_that_answer_other_questions_are_not_compared(
    run: Run, trained: tuple[Package, Path], tmp_path: Path
) -> None:
    package, rows = trained
    rows_of_three = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    model = LogisticRegression().fit(rows_of_three, np.arange(60) % 2)
    other = api.pack(model, "other", sample=rows_of_three, out=tmp_path)
    done = run("compare", str(package.path), str(other.path), "--data", str(rows))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
