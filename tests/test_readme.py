"""Every command in the README runs, in order, as a reader would run it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh-CN.md")

#: Commands that a test runs in another way, or that are this very test run.
ELSEWHERE = {
    "make demo": "tests/test_demo.py",
    "make test": "this is it",
    "make check": "the first half of .ci/run",
    "pip install 'modelport[sklearn]'": "tests/test_install.py",
}


def blocks(readme: str, language: str) -> list[str]:
    text = (ROOT / readme).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(readme: str) -> list[str]:
    lines = [line for block in blocks(readme, "console") for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [line.removeprefix("$ ") for line in lines]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_the_commands_run(tmp_path: Path) -> None:
    (train,) = blocks("README.md", "python")
    (tmp_path / "train.py").write_text(train)
    runnable = [command for command in commands("README.md") if command not in ELSEWHERE]
    script = "\n".join(["set -euo pipefail", "trap 'kill $(jobs -p)' EXIT", *runnable])
    script = script.replace("8080", str(free_port()))
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("MODELPORT_")},
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 label flips" in done.stdout
    assert '"predictions":[{"label":0' in done.stdout
    assert '"model_name":"wine"' in done.stdout
    assert 'modelport_requests_total{model="wine",version="1",code="200"} 4' in done.stdout


def test_nothing_is_left_out() -> None:
    known = set(ELSEWHERE)
    missing = known - set(commands("README.md"))
    assert not missing, "the list of exceptions is stale"


def test_both_languages_have_the_same_commands_and_code() -> None:
    assert commands(READMES[0]) == commands(READMES[1])
    assert blocks(READMES[0], "python") == blocks(READMES[1], "python")


@pytest.mark.parametrize("readme", READMES)
def test_short_enough_to_read(readme: str) -> None:
    assert len((ROOT / readme).read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_somewhere(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (ROOT / target).exists(), target


#: The file, and the section of it that benchmarks write.
MEASURED = [
    *((readme, section) for readme in READMES for section in ("benchmark", "optimization")),
    ("docs/20-convert.md", "conversion"),
    ("docs/30-optimize.md", "optimization-runs"),
    ("docs/40-serve.md", "payloads"),
]


@pytest.mark.parametrize(("document", "section"), MEASURED)
def test_the_figures_are_the_benchmarks(document: str, section: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    shown = text.partition(f"<!-- {section} -->\n")[2].partition(f"<!-- /{section} -->")[0]
    program = f"import readme; print(readme.sections()[{section!r}], end='')"
    rendered = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "benchmarks",
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert shown == rendered, "run: python benchmarks/readme.py"
