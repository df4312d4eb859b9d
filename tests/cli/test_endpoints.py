"""`verify`, `doctor` of endpoints and targets, and `deploy --compare` as a person runs them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from modelport.api.compare import compare_targets
from modelport.cli import verify
from modelport.cli.comparison import print_comparison
from modelport.core.package import Package
from modelport.deploy.verify import AUTO, PROTOCOLS
from tests.serve import onnx_models
from tests.serve.packages import build_package
from tests.serve.running import RunningServer, free_port

Run = Callable[..., subprocess.CompletedProcess[str]]

ROWS = {"x": np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Package]]:
    folder = tmp_path_factory.mktemp("endpoints")
    package = build_package(folder / "churn", "churn", onnx_models.dense(), ROWS)
    with RunningServer(folder / "server", [package.path]) as server:
        yield f"http://127.0.0.1:{server.port}", package


def test_verify_prints_a_table(run: Run, served: tuple[str, Package]) -> None:
    url, package = served
    done = run("verify", url, str(package.path))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^OUTPUT +RECORDS +LARGEST DIFFERENCE +TOLERANCE", done.stdout)
    assert re.search(r"^y +4 +0 absolute, 0 relative +.*0 of 4 +0 +same$", done.stdout, re.M)
    assert "\nsame: the answers to all 4 records are within the tolerance\n" in done.stdout
    assert re.search(r"v2 at http://\S+: 4 requests; latency .* ms median", done.stdout)
    assert "speaks v2" in done.stderr


def test_verify_says_the_same_to_programs(run: Run, served: tuple[str, Package]) -> None:
    url, package = served
    done = run("verify", url, str(package.path), "--protocol", "tfserving", "--json")
    found = json.loads(done.stdout)
    assert (found["agrees"], found["protocol"], found["records"]) == (True, "tfserving", 4)
    assert found["outputs"][0]["name"] == "y"
    assert found["seconds"]["median"] > 0


def test_verify_exits_with_3_when_an_answer_differs(
    run: Run, served: tuple[str, Package], tmp_path: Path
) -> None:
    url, _ = served
    other = build_package(tmp_path / "o", "churn", onnx_models.dense(), ROWS, wrong_output="y")
    done = run("verify", url, str(other.path))
    assert done.returncode == 3
    assert "DIFFERENT: the answers to 4 of 4 records are not the package's" in done.stdout
    assert "different records: 0, 1, 2, 3" in done.stderr
    found = json.loads(run("verify", url, str(other.path), "--json").stdout)
    assert (found["agrees"], found["differing_records"]) == (False, [0, 1, 2, 3])


def test_verify_exits_with_1_when_nobody_answers(run: Run, served: tuple[str, Package]) -> None:
    _, package = served
    done = run("verify", f"http://127.0.0.1:{free_port()}", str(package.path))
    assert done.returncode == 1
    assert "no answer from" in done.stderr
    assert "modelport doctor" in done.stderr
    assert "Traceback" not in done.stderr


def test_verify_exits_with_2_when_it_is_refused(run: Run, served: tuple[str, Package]) -> None:
    url, package = served
    assert run("verify", url, str(package.path), "--protocol", "soap").returncode == 2
    assert run("verify", "nonsense", str(package.path)).returncode == 2
    done = run("verify", f"{url}/v2/models/nobody", str(package.path))
    assert done.returncode == 2
    assert "404" in done.stderr


def test_verify_says_what_comes_first(run: Run, served: tuple[str, Package]) -> None:
    url, package = served
    done = run("verify", str(package.path), url)
    assert done.returncode == 2
    assert f"modelport verify {url}" in done.stderr


def test_every_protocol_is_in_the_help() -> None:
    assert verify._PROTOCOLS.split(", ") == [AUTO, *PROTOCOLS]


def test_verify_claims_nothing_without_golden_records(
    run: Run, served: tuple[str, Package], tmp_path: Path
) -> None:
    url, _ = served
    bare = build_package(tmp_path / "bare", "churn", onnx_models.dense(), None)
    done = run("verify", url, str(bare.path))
    assert done.returncode == 2
    assert "nothing can be compared" in done.stderr


def test_a_registered_model_can_be_verified(run: Run, served: tuple[str, Package]) -> None:
    url, package = served
    assert run("push", str(package.path)).returncode == 0
    assert run("verify", url, "churn").returncode == 0


def test_doctor_finds_nothing_wrong(run: Run, served: tuple[str, Package]) -> None:
    url, package = served
    done = run("doctor", url, str(package.path))
    assert (done.returncode, done.stdout) == (0, "nothing wrong was found\n")
    assert json.loads(run("doctor", url, "--json").stdout) == []


def test_doctor_tells_cause_and_remedy(run: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run("doctor", url)
    assert done.returncode == 1
    assert re.search(r"fault: nothing listens.*\n  cause:  .*\n  remedy: .*", done.stdout)
    (found,) = json.loads(run("doctor", url, "--json").stdout)
    assert found["weight"] == "fault"


def test_doctor_knows_what_platforms_say(run: Run) -> None:
    message = "AllTraffic did not pass the ping health check"
    done = run("doctor", "--target", "sagemaker", "--message", message)
    assert done.returncode == 1
    assert "within 2 seconds" in done.stdout
    assert "source: https://docs.aws.amazon.com" in done.stdout


def test_doctor_looks_at_a_deployment(run: Run, served: tuple[str, Package]) -> None:
    _, package = served
    done = run("doctor", "--target", "lambda", str(package.path), "--set", "timeout=901")
    assert done.returncode == 1
    assert "fault:" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"], ["http://127.0.0.1:1", "a", "b"], ["--message", "x"], ["--set", "a=b"],
        ["--image", "x"], ["http://127.0.0.1:1", "--target", "docker"],
        ["--target", "mainframe"],
    ],
)  # fmt: skip
def test_doctor_refuses_what_it_does_not_understand(run: Run, words: list[str]) -> None:
    done = run("doctor", *words)
    assert done.returncode == 2
    assert "error:" in done.stderr
    assert not done.stdout


def test_compare_prints_every_target(run: Run, served: tuple[str, Package]) -> None:
    _, package = served
    done = run("deploy", "--compare", str(package.path), "--load", "50 rps, 8h/day")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^TARGET +FITS +COLD START +MONTHLY COST +WHY", done.stdout)
    assert re.search(r"^lambda +yes +seconds.*\$ \d+", done.stdout, re.M)
    found = json.loads(
        run("deploy", "--compare", str(package.path), "--load", "1/s", "--json").stdout
    )
    assert {row["target"] for row in found} >= {"docker", "kubernetes", "lambda", "vertex"}
    assert all(row["limits"] for row in found)


@pytest.mark.parametrize("load", ["50 rps, 8h/day", "100000 rps", ""])
def test_the_comparison_fits_a_hundred_columns(
    served: tuple[str, Package],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    load: str,
) -> None:
    _, package = served
    monkeypatch.setenv("HOME", str(tmp_path))  # nothing was measured there
    rows = compare_targets(str(package.path), ["timeout=901"], load=load)
    print_comparison(rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert re.search(r"^TARGET +FITS +COLD START +MONTHLY COST +WHY$", lines[0])
    text = " ".join(" ".join(lines).split())
    assert "901 s of at most 900 s" in text
    assert re.search(r"lambda +no +seconds ", "\n".join(lines))
    assert ("list prices" in text) == bool(load)
    assert ("as remembered" in text) == bool(load)
    assert "estimated from the package's size" in text


def test_compare_refuses_what_is_no_load(run: Run, served: tuple[str, Package]) -> None:
    _, package = served
    done = run("deploy", "--compare", str(package.path), "--load", "plenty")
    assert done.returncode == 2
    assert "50 rps, 8h/day" in done.stderr
