"""What a server may use, and which status says what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelport.core import errors
from modelport.core.errors import ModelportError, NotFoundError
from modelport.serve.limits import usable_cores
from modelport.serve.statuses import status_of

CORES = len(os.sched_getaffinity(0))


def group(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000\n", CORES),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("199999 100000\n", 1),
        (f"{CORES * 100_000} 100000\n", CORES),
        ("99900000 100000\n", CORES),
        ("\n", CORES),
    ],
)
def test_the_quota_of_the_control_group(tmp_path: Path, quota: str, cores: int) -> None:
    assert usable_cores(group(tmp_path, cpu_dot_max=quota)) == cores


@pytest.mark.parametrize(
    ("quota", "cores"), [("-1", CORES), ("100000", 1), ("20000", 1), ("99900000", CORES)]
)
def test_version_1_of_control_groups(tmp_path: Path, quota: str, cores: int) -> None:
    files = {"cpu__cpu_dot_cfs_quota_us": quota, "cpu__cpu_dot_cfs_period_us": "100000"}
    assert usable_cores(group(tmp_path, **files)) == cores


def test_without_a_control_group(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "nothing") == CORES
    assert 1 <= usable_cores() <= CORES


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("InputError", 400),
        ("SignatureError", 400),
        ("MissingPackageError", 400),
        ("NotFoundError", 404),
        ("ConflictError", 409),
        ("LimitError", 413),
        ("EngineError", 500),
        ("ModelportError", 500),
        ("UnsupportedError", 501),
        ("RefusedError", 503),
        ("UnsafeError", 503),
        ("IntegrityError", 503),
        ("ParityError", 503),
        ("UnavailableError", 503),
    ],
)
def test_every_error_has_a_status(name: str, status: int) -> None:
    kind: type[ModelportError] = getattr(errors, name)
    error = NotFoundError("model", "x") if kind is NotFoundError else kind("message")
    assert status_of(error) == status
