"""Every hostile file, through the doors that people use: the command line and ``pack``."""

import subprocess
import sys

import pytest

from modelport import api
from modelport.cli.main import main
from modelport.core.errors import InputError, UnsafeError

from . import hostile
from .hostile_files import CASES, LOADERS, write

LIVE = sorted(title for title, case in CASES.items() if case.live)


@pytest.fixture
def bay(tmp_path):
    """A folder for the file, beside the canary."""
    folder = tmp_path / "x"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("title", CASES)
def test_hostile_files_are_refused_and_run_nothing(title, bay, canary, capsys):
    case = CASES[title]
    path = write(bay, case, canary)
    expected = InputError if case.damage else UnsafeError
    with pytest.raises(expected) as caught:
        api.pack(path, "evil", out=bay / "packed")
    assert caught.value.message
    assert main(["scan", str(path)]) == expected.exit_code
    shown = capsys.readouterr()
    assert ("NOT safe" in shown.out) is not case.damage
    assert "Traceback" not in shown.err
    assert not canary.exists()
    assert not (bay / "packed").exists()


def test_corpus_is_large_enough():
    kinds = {title.partition(":")[0] for title in CASES}
    assert kinds >= {"torch", "legacy torch", "torchscript", "pt2", "numpy", "safetensors", "zip"}
    assert len(CASES) >= 100
    assert len(LIVE) >= 40
    assert len(hostile.CASES) >= 300


def test_canaries_sing_when_a_hostile_file_is_loaded(tmp_path):
    """Without this, a canary that is missing would prove nothing."""
    plan = []
    for number, title in enumerate(LIVE):
        folder = tmp_path / str(number) / "x"
        folder.mkdir(parents=True)
        path = write(folder, CASES[title], folder.parent / "canary")
        plan.append((str(path), LOADERS[CASES[title].live]))
    program = (
        "import contextlib, logging, os, pickle, sys, tarfile, warnings, zipfile\n"
        "import numpy as np\n"
        "import torch\n"
        "import torch.fx.graph_module\n"
        "warnings.simplefilter('ignore')\n"
        "logging.disable()\n"
        f"for path, loader in {plan!r}:\n"
        "    try: eval(loader)\n"
        "    except Exception as error: print(path, loader, repr(error)[:300], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300
    )
    silent = [
        title
        for number, title in enumerate(LIVE)
        if not (tmp_path / str(number) / "canary").exists()
    ]
    assert silent == [], done.stderr
