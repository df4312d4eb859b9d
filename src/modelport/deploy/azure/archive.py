"""What a function app is published as: one zip file; the same inputs, the same bytes.

::

    function_app.py host.json requirements.txt   the plan's files
    models/NAME/…                                the package, verified when it was opened
    modelport/…                                  the server as it is installed here, in Python

The server's requirements are not in it: Azure installs them from ``requirements.txt``, by their
hashes. Source: "Package-based deployment for Azure Functions".
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from modelport.core.package import Package
from modelport.deploy.images.requirements import requirements
from modelport.deploy.images.wheels import Pin, read_lock

#: Names of the first entries of a zip file have no earlier date.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o644 << 16

#: Of the server's requirements, what only a server of its own, or AWS, needs.
_NOT_HERE: Final = {
    "awslambdaric", "granian", "grpcio", "httptools", "simplejson", "snapshot-restore-py", "uvloop",
}  # fmt: skip
_LOCK: Final = "functions.lock"


def locked(package: Package) -> str:
    """``requirements.txt`` with hashes: pip refuses whatever is not in it, or differs.

    Raises
    ------
    UnsupportedError
        When the package needs what modelport's lock file does not have.
    """
    ours = [pin for pin in requirements(package, "") if pin.name not in _NOT_HERE]
    workers = read_lock(str(files("modelport.deploy.azure").joinpath(_LOCK)))
    return "".join(f"{_lines(pin)}\n" for pin in sorted([*ours, *workers], key=lambda p: p.name))


def archive(documents: Mapping[str, str], package: Path, model: str) -> bytes:
    """The zip file.

    Parameters
    ----------
    documents : mapping of str to str
        Texts at its root, by path.
    package : Path
        The package's folder.
    model : str
        What its folder below ``models`` is called.
    """
    entries = {name: text.encode() for name, text in documents.items()}
    entries |= dict(_tree(package, f"models/{model}"))
    entries |= dict(_tree(Path(str(files("modelport"))), "modelport"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr, info.compress_type = _MODE, zipfile.ZIP_DEFLATED
            file.writestr(info, entries[name])
    return packed.getvalue()


def _tree(folder: Path, into: str) -> Iterator[tuple[str, bytes]]:
    for path in _inside(folder):
        yield f"{into}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def _inside(folder: Path) -> Iterable[Path]:
    return (
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(
            part == "__pycache__" or part.startswith(".") for part in path.relative_to(folder).parts
        )
    )


def _lines(pin: Pin) -> str:
    return " \\\n    ".join(pin.text.split())
