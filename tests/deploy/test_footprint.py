"""What a server needs: measured on a real one, recorded, read again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modelport.core.errors import EngineError
from modelport.core.package import Package
from modelport.deploy import footprint as module
from modelport.deploy.footprint import estimated_footprint, measured_footprint, read_footprint
from modelport.deploy.processes import usage_of_tree
from tests.serve import onnx_models
from tests.serve.packages import build_package

MIB = 1 << 20


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def records(home: Path) -> list[Path]:
    return sorted((home / ".modelport" / "footprints").glob("*"))


def test_an_estimate_is_said_to_be_one_and_needs_no_process(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    found = read_footprint(package)
    assert not found.measured
    assert found == read_footprint(package)
    assert 64 * MIB < found.memory < 256 * MIB


def test_an_estimate_grows_with_the_package(package: Package, tmp_path: Path) -> None:
    big = onnx_models.model(
        [onnx_models.helper.make_node("MatMul", ["x", "w"], ["y"])],
        [onnx_models.tensor("x", "float32", ["N", 1024])],
        [onnx_models.tensor("y", "float32", ["N", 4096])],
        [onnx_models.constant("w", np.ones((1024, 4096), np.float32))],
    )
    rows = {"x": np.zeros((2, 1024), np.float32)}
    large, small = build_package(tmp_path / "big", "big", big, rows), package
    assert estimated_footprint(large).memory - estimated_footprint(small).memory > 2 * (16 * MIB)
    assert estimated_footprint(large).latency > estimated_footprint(small).latency


def test_a_real_server_is_measured_once(package: Package, home: Path) -> None:
    lines: list[str] = []
    found = measured_footprint(package, lines.append)
    assert found.measured
    assert 30 * MIB < found.memory < 500 * MIB
    assert 0 < found.processor < 1
    assert 0 < found.latency < 1
    assert 0 < found.start < 60
    assert "starting churn" in lines[0]
    assert read_footprint(package) == found
    assert len(records(home)) == 1
    lines.clear()
    assert measured_footprint(package, lines.append) == found
    assert lines == []


def test_the_estimate_covers_what_is_measured(package: Package) -> None:
    """Or a plan made from it would be killed for its memory."""
    estimate = estimated_footprint(package)
    assert estimate.memory >= 0.8 * measured_footprint(package, print).memory


def test_models_whose_rows_belong_together_are_measured(tmp_path: Path) -> None:
    rows = {"x": np.ones((3, 2), np.float32)}
    package = build_package(tmp_path / "c", "c", onnx_models.centred(), rows, row_independent=False)
    assert measured_footprint(package, print).measured


def test_models_without_golden_records_are_asked_a_made_up_row(tmp_path: Path) -> None:
    package = build_package(tmp_path / "two", "two", onnx_models.sum_of_two(), None)
    found = measured_footprint(package, print)
    assert found.measured
    assert found.latency != estimated_footprint(package).latency


def test_settings_of_other_servers_do_not_reach_the_measured_one(
    package: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "modelport.toml").write_text('host = "nowhere.invalid"\n')
    monkeypatch.setenv("MODELPORT_API_KEY", "correct-horse-battery-staple")
    monkeypatch.setenv("MODELPORT_TLS_CERT", "missing.pem")
    monkeypatch.setenv("AIP_MODE", "PREDICTION")
    monkeypatch.setenv("AIP_HTTP_PORT", "1")
    assert measured_footprint(package, print).measured


def test_a_server_that_does_not_start_says_why(tmp_path: Path, home: Path) -> None:
    rows = {"x": np.ones((3, 8), np.float32)}
    broken = build_package(tmp_path / "b", "b", onnx_models.dense(), rows, wrong_output="y")
    with pytest.raises(EngineError, match="does not become ready"):
        measured_footprint(broken, print)
    assert records(home) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"memory": 0, "latency": 1, "processor": 1, "start": 1}',
        b'{"memory": 1, "latency": NaN, "processor": 1, "start": 1}',
        b'{"memory": 1, "latency": Infinity, "processor": 1, "start": 1}',
        b'{"memory": "many", "latency": 1, "processor": 1, "start": 1}',
        b'{"memory": 1e999, "latency": 1, "processor": 1, "start": 1}',
        b"\xff",
    ],
)
def test_a_damaged_record_is_no_record(package: Package, home: Path, content: bytes) -> None:
    place = home / ".modelport" / "footprints" / f"{package.digest.removeprefix('sha256:')}.json"
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    assert not read_footprint(package).measured


def test_a_record_that_cannot_be_written_is_no_error(package: Package, home: Path) -> None:
    (home / ".modelport").write_text("in the way")
    assert measured_footprint(package, print).measured


def test_a_system_that_tells_nothing_gets_an_estimate(
    package: Package, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "usage_of_tree", lambda pid: None)
    lines: list[str] = []
    assert not measured_footprint(package, lines.append).measured
    assert "cannot be measured" in lines[0]
    assert records(home) == []


def test_a_tree_of_processes_counts_whole() -> None:
    child = (
        "import subprocess, sys; block = bytearray(64 << 20);"
        "inner = subprocess.Popen([sys.executable, '-c',"
        " 'block = bytearray(64 << 20); print(1, flush=True); input()'],"
        " stdin=subprocess.PIPE);"
        "input(); inner.communicate()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # both have their memory
        usage = usage_of_tree(process.pid)
        process.communicate(b"\n")
    assert usage is not None
    assert 128 * MIB < usage.memory < 400 * MIB
    assert usage.seconds > 0
    assert usage_of_tree(process.pid) is None


def test_the_record_is_plain_json(package: Package, home: Path) -> None:
    found = measured_footprint(package, print)
    (record,) = records(home)
    assert json.loads(record.read_bytes())["memory"] == found.memory
    assert os.fspath(record).endswith(f"{package.digest.removeprefix('sha256:')}.json")


def test_who_has_no_home_plans_with_an_estimate(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(_: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", classmethod(homeless))
    assert not read_footprint(package).measured
    module._record(package, read_footprint(package))
