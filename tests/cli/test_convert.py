"""``modelport convert``: one file, proven, whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

from .conftest import Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wine")
    rows, labels = load_wine(return_X_y=True)
    model = RandomForestClassifier(5, random_state=0).fit(rows, labels)
    joblib.dump(model, folder / "wine.joblib")
    np.save(folder / "rows.npy", rows)
    np.save(folder / "expected.npy", model.predict(rows))
    return folder


def convert(run: Run, trained: Path, out: Path, *flags: str):
    sample = str(trained / "rows.npy")
    return run("convert", str(trained / "wine.joblib"), "--out", str(out), "--sample", sample,
               *flags)  # fmt: skip


def test_the_file_answers_as_the_model(run: Run, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "wine.onnx"
    done = convert(run, trained, out)
    assert done.returncode == 0, done.stderr
    assert "0 label flips" in done.stdout
    assert f"wrote {out}" in done.stdout
    assert "exporting:" in done.stderr
    session = onnxruntime.InferenceSession(out.read_bytes())
    rows = np.load(trained / "rows.npy").astype(np.float32)
    labels = session.run(["label"], {session.get_inputs()[0].name: rows})[0]
    assert np.array_equal(labels, np.load(trained / "expected.npy"))
    assert [path.name for path in tmp_path.iterdir()] == ["wine.onnx"]


def test_json_has_the_whole_report(run: Run, trained: Path, tmp_path: Path) -> None:
    done = convert(run, trained, tmp_path / "wine.onnx", "--json")
    report = json.loads(done.stdout)
    assert report["size"] == (tmp_path / "wine.onnx").stat().st_size
    assert report["parity"]["label_flips"] == 0
    assert report["provenance"]["source"] == "wine.joblib"


def test_another_file_is_replaced_only_by_force(run: Run, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "wine.onnx"
    out.write_bytes(b"something else")
    done = convert(run, trained, out)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert out.read_bytes() == b"something else"
    assert convert(run, trained, out, "--force").returncode == 0
    content = out.read_bytes()
    assert convert(run, trained, out).returncode == 0, "the same file may be written again"
    assert out.read_bytes() == content


def test_other_endings_and_folders_are_refused(run: Run, trained: Path, tmp_path: Path) -> None:
    done = convert(run, trained, tmp_path / "wine.pkl")
    assert done.returncode == 2
    assert "one .onnx file" in done.stderr
    (tmp_path / "folder.onnx").mkdir()
    assert convert(run, trained, tmp_path / "folder.onnx").returncode == 2


def test_nothing_is_written_for_a_source_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.joblib").write_bytes(b"\x80\x04broken")
    done = run("convert", str(tmp_path / "broken.joblib"), "--out", str(tmp_path / "x.onnx"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("choice", [("--factory", "nets:make"), ("--signature", "scores")])
def test_choices_that_mean_nothing_are_refused(
    run: Run, trained: Path, tmp_path: Path, choice: tuple[str, str]
) -> None:
    done = convert(run, trained, tmp_path / "wine.onnx", *choice)
    assert done.returncode == 2
    assert f"the {choice[0][2:]} {choice[1]!r} means nothing to a joblib source" in done.stderr
    assert not (tmp_path / "wine.onnx").exists()
