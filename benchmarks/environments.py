"""A virtual environment for each peer, made once and kept."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from models import CACHE
from peers.base import Peer
from server import BenchmarkError

_INSTALL_LIMIT: Final = 900


def interpreter(peer: Peer) -> Path:
    """The interpreter that runs a peer; its environment is made if it is missing or outdated.

    Raises
    ------
    BenchmarkError
        When the packages cannot be installed, with what pip said.
    """
    if not peer.requirements:
        return Path(sys.executable)
    folder = CACHE / (getattr(peer, "shares", "") or peer.name)
    python = folder / "bin" / "python"
    wanted = "\n".join([sys.version, *peer.requirements])
    stamp = folder / hashlib.sha256(wanted.encode()).hexdigest()[:16]
    if stamp.exists():
        return python
    print(f"{peer.name}: installing {' '.join(peer.requirements)}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", *peer.requirements],
        check=False,
        capture_output=True,
        text=True,
        timeout=_INSTALL_LIMIT,
    )
    if done.returncode:
        raise BenchmarkError(f"{peer.name} cannot be installed:\n{done.stderr[-3000:]}")
    stamp.touch()
    return python
