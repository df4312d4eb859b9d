"""``make demo``: the main job from end to end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parent.parent


def run_demo(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelport", "demo", *words],
        env={**os.environ, "HOME": str(home), "TMPDIR": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
def test_the_demo_tells_the_whole_story(tmp_path: Path) -> None:
    done = run_demo(home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    served = re.findall(r"^   (served, .*?)  +([\d.]+)% +(\d+)$", done.stdout, re.MULTILINE)
    trained = re.findall(r"^   (the trained model) +([\d.]+)% +(\d+)$", done.stdout, re.MULTILINE)
    assert [name for name, _, _ in served] == [
        "served, TF Serving REST",
        "served, Open Inference V2",
    ]
    assert {(accuracy, flips) for _, accuracy, flips in (*served, *trained)} == {
        (trained[0][1], "0")
    }
    assert "0 label flips" in done.stdout
    assert "digits@champion is version 1 again" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_keep_leaves_a_server_and_commands_that_work(tmp_path: Path) -> None:
    done = run_demo("--keep", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    pid = int(re.search(r"kill (\d+)", done.stdout)[1])  # type: ignore[index]
    try:
        commands = re.findall(r"^curl .*$", done.stdout, re.MULTILINE)
        assert len(commands) == 3
        for command in commands:
            answer = subprocess.run(
                ["bash", "-c", f"{command} --fail --silent"],
                check=True,
                capture_output=True,
                text=True,
                timeout=30,
            ).stdout
            assert "label" in answer or "modelport_requests_total" in answer
        base = re.search(r"ready: (http://\S+)", done.stdout)[1]  # type: ignore[index]
        with urlopen(f"{base}/v2/health/ready", timeout=10) as ready:
            assert ready.status == 200
    finally:
        os.kill(pid, signal.SIGTERM)


def test_make_demo_runs_it() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(
        r"^demo: setup\n\t@\$\(BIN\)/modelport demo \$\(ARGS\)$", makefile, re.MULTILINE
    )
