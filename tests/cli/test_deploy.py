"""`deploy` as a person runs it; the calls of each platform have their own tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelport.core.package import Package
from tests.serve import onnx_models
from tests.serve.packages import build_package

Run = Callable[..., subprocess.CompletedProcess[str]]

ROWS = {"x": np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)}
IMAGE = "image=registry.example/churn"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("deploy")
    return build_package(folder / "churn", "churn", onnx_models.dense(), ROWS)


def test_a_plan_is_printed_the_same_twice(run: Run, package: Package) -> None:
    words = ("deploy", str(package.path), "--to", "docker", "--set", IMAGE, "--plan")
    first, second = run(*words), run(*words)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    for part in ("calls, in order:", "limits:", "notes:", package.digest):
        assert part in first.stdout
    plan = json.loads(run(*words, "--json").stdout)
    assert plan["package"] == package.digest
    assert [call["call"] for call in plan["calls"]][:2] == ["docker.pull", "docker.run"]


def test_files_are_written_and_nothing_is_called(
    run: Run, package: Package, tmp_path: Path
) -> None:
    done = run(
        "deploy", str(package.path), "--to", "kubernetes", "--set", "anonymous=true",
        "--set", IMAGE, "--out", "written",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "written/manifests/deployment.yaml").is_file()
    assert done.stderr.count("wrote ") == len(list((tmp_path / "written").rglob("*.*")))


def test_without_somebody_to_ask_nothing_is_done(run: Run, package: Package) -> None:
    done = run("deploy", str(package.path), "--to", "docker", "--set", IMAGE)
    assert done.returncode == 2
    assert "nobody is there to be asked" in done.stderr
    assert "--yes" in done.stderr


def test_destroy_says_what_it_takes_away(run: Run, package: Package) -> None:
    words = ("deploy", "destroy", str(package.path), "--to", "docker", "--plan")
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "destroy churn on docker:"
    assert "  remove the container churn" in done.stdout
    assert "remove the container churn" in json.loads(run(*words, "--json").stdout)["steps"]
    assert run("deploy", "destroy", str(package.path), "--to", "docker").returncode == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--plan"], "no target was chosen"),
        (["--to", "lamda", "--plan"], "target not found: lamda"),
        (["--to", "kserve", "--plan", "--set", "foo=1"], "setting not found: foo"),
        (["--to", "docker", "--plan", "--set", "port"], "not a setting: 'port'"),
        (["--to", "docker", "--plan", "--set", "port=x"], "not a whole number: 'x'"),
        (["--to", "docker", "--plan", "--set", "engine=lxc"], "value not found: lxc"),
        (["--to", "docker", "--plan", "--set", "name=Churn!"], "not a service name"),
        (["--to", "kubernetes", "--set", "anonymous=true", "--yes"], "no place for it is set"),
        (["--to", "lambda", "--plan", "--set", "image=x.example/y"], "takes images from ECR alone"),
        (["--compare", "--load", "many"], "many"),
    ],
)
def test_mistakes_are_named(run: Run, package: Package, words: list[str], said: str) -> None:
    done = run("deploy", str(package.path), *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_platform_does_not_take_is_refused_before_anything_is_sent(
    run: Run, package: Package
) -> None:
    done = run(
        "deploy", str(package.path), "--to", "lambda", "--set", "region=eu-west-1",
        "--set", "memory=20000", "--yes",
        "--set", "image=123456789012.dkr.ecr.eu-west-1.amazonaws.com/churn",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "of at most 10 GiB (https://" in done.stderr
    assert "--set memory=" in done.stderr


def test_settings_are_listed(run: Run) -> None:
    done = run("deploy", "--settings", "kubernetes")
    assert done.returncode == 0, done.stderr
    assert "key-secret" in done.stdout
    every = json.loads(run("deploy", "--settings", "all", "--json").stdout)
    assert len(every) >= 10
    assert all(setting["help"] for settings in every.values() for setting in settings)


def test_planning_loads_no_sdk_and_no_engine(package: Package) -> None:
    """What makes `--plan` take long is importing; so nothing heavy is."""
    code = (
        "import sys; from modelport.cli.main import main\n"
        f"main(['deploy', {str(package.path)!r}, '--to', 'kubernetes', '--set', 'anonymous=true', "
        "'--plan'])\n"
        "heavy = {'boto3', 'kubernetes', 'google.auth', 'grpc', 'onnxruntime', 'granian'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
