"""What a person gets from ``pip install modelport``: small, complete, and honest about the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from modelport.api import pack

ROOT = Path(__file__).parent.parent

#: What a server needs installed, in bytes.
LARGEST = 250_000_000


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, timeout=280
    )


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with the wheel and no extra."""
    folder = tmp_path_factory.mktemp("install")
    built = run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT, cwd=folder
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("modelport-*.whl")
    assert run(sys.executable, "-m", "venv", folder / "venv", cwd=folder).returncode == 0
    scripts = folder / "venv" / "bin"
    done = run(scripts / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    return scripts


@pytest.mark.slow
def test_a_server_is_small(fresh: Path) -> None:
    (site,) = (fresh.parent / "lib").glob("python*/site-packages")
    installers = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
    size = sum(
        path.lstat().st_size
        for path in site.rglob("*")
        if path.is_file() and not path.relative_to(site).parts[0].startswith(installers)
    )
    assert size <= LARGEST, f"{size / 1e6:.0f} MB"


@pytest.mark.slow
def test_it_serves_and_predicts_without_the_training_library(fresh: Path, tmp_path: Path) -> None:
    rows, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(rows, labels)
    pack(model, "iris", sample=rows, out=tmp_path)
    (tmp_path / "rows.json").write_text(json.dumps(rows.tolist()))
    done = run(
        fresh / "modelport", "predict", "iris", "--input", "rows.json", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"]["label"] == model.predict(rows).tolist()


@pytest.mark.slow
def test_it_says_what_is_missing(fresh: Path, tmp_path: Path) -> None:
    done = run(fresh / "modelport", "doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'missing: pip install "modelport[sklearn]"' in done.stdout
    import pickle

    rows, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(rows, labels)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    done = run(fresh / "modelport", "pack", "model.pkl", "--name", "iris", cwd=tmp_path)
    assert done.returncode == 2
    assert 'pip install "modelport[sklearn]"' in done.stderr
    assert "Traceback" not in done.stderr
