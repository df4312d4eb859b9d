"""`optimize` and `compare` as a person runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from modelport import api
from modelport.adapters import adapters_of
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
    in_the_way = run(*words)
    assert in_the_way.returncode == 2
    assert "another package exists: optimized/net" in in_the_way.stderr
    assert "asking the original" not in in_the_way.stderr  # before the work


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "nobody"], "no column and no file 'nobody'"),
        (["--metric", "auc"], "not a metric: 'auc'"),
        (["--budget", "soon"], "not a time: 'soon'"),
        (["--passes", "magic"], "pass not found: magic; there is: "),
        (["--passes", "-magic"], "pass not found: magic"),
        (["--max-drop", "-0.01"], "--max-drop is -0.01"),
        (["--max-drop", "nan"], "--max-drop is nan"),
        (["--max-drop", "1"], "cannot lose more than all"),
        (["--threads", "0"], "not a number of threads: 0"),
        (["--metric", "nowhere:f"], "cannot import the metric 'nowhere:f'"),
    ],
)
def test_mistakes_are_named(
    run: Run, trained: tuple[Package, Path], words: list[str], said: str
) -> None:
    package, rows = trained
    done = run("optimize", str(package.path), "--data", str(rows), *words, "--json")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]["message"] in done.stderr


def test_passes_are_told_in_the_help(run: Run) -> None:
    shown = run("optimize", "--help").stdout
    for adapter in adapters_of("pass"):
        assert f"  {adapter.name}  " in shown
        assert adapter.summary.split()[0] in shown
    assert "in its own unit" in shown


def test_what_had_no_time_is_named_and_json_is_all_there_is_on_stdout(
    run: Run, trained: tuple[Package, Path]
) -> None:
    package, rows = trained
    done = run("optimize", str(package.path), "--data", str(rows), "--budget", "0s", "--json",
               "--passes", "-channels,-student")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["package"] is None
    whys = {item["pass"]: item["why"] for item in report["passes_without_effect"]}
    assert whys["load"] == "the time was up (--budget)"
    assert not {"channels", "student"} & set(whys)
    assert set(report) == {
        "did_not_hold", "held_out", "held_out_error", "max_drop", "metric", "package",
        "passes_without_effect", "picked", "rows", "sentence", "variants",
    }  # fmt: skip


def test_an_interrupted_run_says_how_it_goes_on(
    trained: tuple[Package, Path], tmp_path: Path
) -> None:
    package, rows = trained
    command = [sys.executable, "-m", "modelport", "optimize", str(package.path), "--data",
               str(rows), "--passes", "float16,load"]  # fmt: skip
    environment = {**os.environ, "MODELPORT_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, interruptions are ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("load of "):  # the pass before has ended
                process.send_signal(signal.SIGINT)
                break
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on with what was made" in said
    assert "Traceback" not in said
    assert list((tmp_path / "cache").rglob("*.onnx"))
    again = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert again.returncode == 0, again.stderr
    assert "of float16 are there from an earlier run" in again.stderr
    assert not list((tmp_path / "cache").rglob("*.onnx"))


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
