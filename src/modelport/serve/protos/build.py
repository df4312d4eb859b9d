"""Compile the ``.proto`` files beside this one: ``python src/modelport/serve/protos/build.py``.

Needs ``grpcio-tools``. The result is committed, so that an installation needs no compiler.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent


def build(target: Path, python: str = sys.executable) -> None:
    """Write the descriptor set of every ``.proto`` file, with what they import.

    Parameters
    ----------
    target : Path
    python : str
        An interpreter that has ``grpcio-tools``.

    Raises
    ------
    subprocess.CalledProcessError
        When protoc refuses a file; it says why on standard error.
    """
    files = sorted(path.name for path in _HERE.glob("*.proto"))
    subprocess.run(  # noqa: S603 - our own files
        [
            *(python, "-m", "grpc_tools.protoc", f"--proto_path={_HERE}"),
            *("--include_imports", f"--descriptor_set_out={target}", *files),
        ],
        check=True,
    )


if __name__ == "__main__":
    build(_HERE / "descriptors.binpb")
