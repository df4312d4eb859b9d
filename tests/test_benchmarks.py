"""The benchmark harness measures a real server, and notices wrong answers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def cache_home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def run_python(cache_home, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=BENCHMARKS,
        env={**os.environ, "HOME": str(cache_home)},
    )


def test_models_are_the_same_every_time(cache_home):
    program = (
        "import sys, hashlib; sys.path.insert(0, '.')\n"
        "import models\n"
        "print(hashlib.sha256(models._BUILDERS['m8']().SerializeToString()).hexdigest())"
    )
    first = run_python(cache_home, "-c", program)
    second = run_python(cache_home, "-c", program)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout


def test_a_wrong_answer_is_noticed(cache_home):
    program = (
        "import sys, json; sys.path.insert(0, '.')\n"
        "import models, payloads\n"
        "model = models.build('m8')\n"
        "def answer(value):\n"
        "    output = {'name': 'output', 'shape': [1, 1], 'datatype': 'FP32', 'data': [value]}\n"
        "    return json.dumps({'outputs': [output]}).encode()\n"
        "right = float(model.expected[0, 0])\n"
        "payloads.check('v2-json', model, {}, answer(right))\n"
        "payloads.check('v2-json', model, {}, answer(right + 0.01))\n"
    )
    done = run_python(cache_home, "-c", program)
    assert "wrong answer: differs from raw onnxruntime" in done.stderr


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_one_round(cache_home, tmp_path):
    results = tmp_path / "results.json"
    done = run_python(
        cache_home, "run.py", "--models", "m8", "--peers", "granian_bare", "--connections", "1,32",
        "--seconds", "1", "--rounds", "1", "--markdown", "--json", str(results),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    document = json.loads(results.read_text())
    (raw,) = document["raw"]
    assert [record["connections"] for record in document["servers"]] == [1, 32]
    for record in document["servers"]:
        assert record["requests"] > 100
        assert raw["processor_microseconds"] < record["processor_microseconds"] < 10_000
        assert 0 < record["p50"] <= record["p99"]
        assert 0 < record["pss"] <= record["rss"]
    assert "| granian_bare" in done.stdout
    assert "### m8, v2-json, 32 connections" in done.stdout


def test_every_target_can_be_planned(cache_home, tmp_path):
    results = tmp_path / "results.json"
    done = run_python(cache_home, "deployment.py", "--runs", "1", "--json", str(results))
    assert done.returncode == 0, done.stderr + done.stdout
    plans = json.loads(results.read_text())["plans"]
    assert len(plans) >= 10
    assert all(laps["seconds"][0] > 0 for laps in plans.values())
