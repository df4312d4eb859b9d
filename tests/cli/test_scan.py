"""``modelport scan``: what people and programs read, and the exit codes."""

from __future__ import annotations

import importlib
import json
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from real_models import real

from modelport import api
from modelport.cli.main import main
from modelport.core.errors import UnsupportedError

Run = Callable[..., subprocess.CompletedProcess[str]]


class Evil:
    """Runs a command when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        import os

        return os.system, (f"touch {self.canary}",)


@pytest.fixture
def downloads(tmp_path: Path, iris: Path) -> Path:
    """A folder with good, bad and unreadable models, and other files."""
    folder = tmp_path / "downloads"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "good.pkl").write_bytes((iris / "model.pkl").read_bytes())
    (folder / "deep" / "evil.bin").write_bytes(pickle.dumps(Evil(tmp_path / "canary")))
    (folder / "deep" / "er" / "cut.onnx").write_bytes(b"\x08\x07\x3a\xff")
    (folder / "README.md").write_text("# models\n<opencv_storage>\n")
    (folder / "notes.json").write_text("{}")
    (folder / "empty.pkl").write_bytes(b"")
    run = folder / "run"
    run.mkdir()
    (run / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: model.pkl\n")
    (run / "model.pkl").write_bytes((iris / "model.pkl").read_bytes())
    return folder


def test_a_safe_model(run: Run, iris: Path) -> None:
    done = run("scan", str(iris / "model.pkl"))
    assert done.returncode == 0, done.stderr
    assert "model.pkl: pickle" in done.stdout
    assert "sklearn.linear_model._logistic.LogisticRegression" in done.stdout
    assert "nothing was found: it is safe to load" in done.stdout
    assert not done.stderr


def test_an_unsafe_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.pkl").write_bytes(pickle.dumps(Evil(tmp_path / "canary")))
    assert main(["scan", "evil.pkl"]) == 3
    shown = capsys.readouterr().out
    assert "posix.system  byte" in shown
    assert "it is NOT safe to load" in shown
    assert "--allow posix.system" in shown
    assert main(["scan", "evil.pkl", "--allow", "posix.system"]) == 0
    assert "allowed: posix.system" in capsys.readouterr().out
    assert not (tmp_path / "canary").exists()


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "canary")))
    assert main(["scan", str(path), "--json"]) == 3
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert model["verdict"] == "unsafe"
    assert model["formats"] == ["pickle"]
    assert model["findings"][0]["what"] == "posix.system"
    assert model["report"]["globals"] == ["posix.system"]


@pytest.mark.parametrize("content", [b"\x80\x04\x95cut", b"hello", b""])
def test_what_cannot_be_read(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    assert main(["scan", str(path), "--json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["message"]
    assert shown.err.startswith("error: ")


def test_a_folder_is_searched(downloads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", str(downloads)]) == 3
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line for line in shown.splitlines() if line}
    assert "deep/evil.bin" in lines["unsafe"]
    assert "posix.system" in lines["unsafe"]
    assert "deep/er/cut.onnx" in lines["unreadable"]
    assert "mlflow/pickle" in shown
    assert "README" not in shown
    assert "notes" not in shown
    assert "4 models: 2 safe, 1 unsafe, 1 unreadable" in shown
    assert not (downloads.parent / "canary").exists()


def test_a_folder_without_findings_but_with_damage(
    downloads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (downloads / "deep" / "evil.bin").unlink()
    assert main(["scan", str(downloads), "--json"]) == 2
    models = json.loads(capsys.readouterr().out)["models"]
    assert sorted(model["verdict"] for model in models) == ["safe", "safe", "unreadable"]


def test_long_searches_report_progress(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelport.scan import sweep

    monkeypatch.setattr(sweep, "SECONDS", -1.0)
    lines: list[str] = []
    api.scan(downloads, progress=lines.append)
    assert any("models; now" in line for line in lines)


def test_a_folder_without_models(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(UnsupportedError, match="there is no model in the folder"):
        api.scan(tmp_path)


def test_a_folder_that_is_a_model(downloads: Path) -> None:
    (verdict,) = api.scan(downloads / "run")
    assert verdict.verdict == "safe"
    assert verdict.formats == ("mlflow", "pickle")


def test_live_models_have_nothing_to_scan() -> None:
    (verdict,) = api.scan(object())
    assert (verdict.verdict, verdict.formats) == ("safe", ("object",))


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("silero-vad", {"onnx", "safetensors", "torchscript"}),
        ("facenet-pytorch", {"torch-legacy"}),
        ("alt-profanity-check", {"joblib"}),
    ],
)
def test_real_packages(name: str, models: set[str]) -> None:
    verdicts = api.scan(real(name))
    assert {verdict.verdict for verdict in verdicts} == {"safe"}
    assert {verdict.formats[-1] for verdict in verdicts} == models


def test_allowed_names_pass_to_the_loader(
    tmp_path: Path,
    iris: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The name that scan shows lets exactly that model be packed."""
    (tmp_path / "mine.py").write_text(
        "from sklearn.linear_model import LogisticRegression\n"
        "class Mine(LogisticRegression):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = importlib.import_module("mine")
    rows, labels = np.load(iris / "sample.npy"), np.load(iris / "expected.npy")
    model = str(tmp_path / "mine.pkl")
    Path(model).write_bytes(pickle.dumps(mine.Mine(max_iter=1000).fit(rows, labels)))
    words = ["pack", model, "--name", "mine", "--sample", str(iris / "sample.npy")]
    words += ["--out", str(tmp_path / "packed")]
    assert main(["scan", model]) == 3
    assert "--allow mine.Mine" in capsys.readouterr().out
    assert main(words) == 3
    assert main([*words, "--allow", "other.Mine"]) == 3
    capsys.readouterr()
    main([*words, "--allow", "mine.Mine"])
    assert "it is not safe" not in capsys.readouterr().err
