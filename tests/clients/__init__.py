"""Real clients, in an environment of their own: their pins collide with the frameworks'.

Every other file here is a script that runs there against a running server, and ends with 0 when
every assertion held.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
#: ``make setup`` makes it; see ``requirements.txt``.
CLIENT_PYTHON = _HERE.parent.parent / ".venv" / "clients" / "bin" / "python"
_LIMIT = 240.0


def run_client(script: str, *arguments: object) -> str:
    """Run a script of this folder to its end, and return what it printed."""
    if not CLIENT_PYTHON.exists():
        assert "CI" not in os.environ, "the environment of the clients is missing: make setup"
        pytest.skip("the environment of the clients is missing: make setup")
    done = subprocess.run(
        [str(CLIENT_PYTHON), str(_HERE / f"{script}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )
    assert done.returncode == 0, (
        f"{script} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done.stdout
