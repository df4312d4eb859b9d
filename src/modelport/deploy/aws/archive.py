"""What goes into a bucket: a package for a multi-model endpoint, a function with its server.

::

    package    its files, as tar.gz                          for SageMaker to unpack
    function   the locked wheels, modelport, models/NAME     for Lambda, as zip

The same inputs give the same bytes. Sources: SageMaker developer guide, "Create a Multi-Model
Endpoint"; Lambda developer guide, "Working with .zip file archives for Python Lambda functions"
(dependencies at the root, 0644 and 0755) and "Lambda quotas" (250 MB unzipped).
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final

from modelport.core.errors import InputError
from modelport.core.options import ImageOptions
from modelport.core.package import Package, open_package
from modelport.core.settings import resolve
from modelport.deploy.images.requirements import requirements
from modelport.deploy.images.wheels import Pin, get_wheels, unpack
from modelport.deploy.limits import check_limits, refuse_exceeded

#: Lambda's Python, which SnapStart and the lock file know.
PYTHON: Final = "3.12"

#: Names of the first entries of a zip file have no earlier date.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o644 << 16
#: Of the server's requirements, what only a server of its own needs, or Lambda's Python has.
_NOT_HERE: Final = {
    "awslambdaric", "granian", "grpcio", "httptools", "simplejson", "snapshot-restore-py", "uvloop",
}  # fmt: skip


def function_pins(package: Package) -> list[Pin]:
    """The function's requirements, with hashes.

    Raises
    ------
    UnsupportedError
        When the package needs what modelport's lock file does not have.
    """
    return [pin for pin in requirements(package, "") if pin.name not in _NOT_HERE]


@contextmanager
def built(what: Mapping[str, str]) -> Iterator[Path]:
    """A file made as a plan says, for as long as it is sent.

    Parameters
    ----------
    what : mapping
        ``kind``: ``package`` or ``function``; ``package``: its folder; of functions also
        ``machine``: ``x86_64`` or ``aarch64``.

    Raises
    ------
    LimitError
        When a function is larger than Lambda takes.
    PlatformError
        When the wheels cannot be had.
    """
    package = open_package(Path(what["package"]))
    with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
        path = Path(folder, "archive")
        try:
            if what["kind"] == "package":
                pack_package(package, path)
            else:
                pack_function(package, what["machine"], path)
        except OSError as error:
            raise InputError(f"the archive cannot be written: {error}") from error
        yield path


def pack_package(package: Package, path: Path) -> None:
    """Write a package as tar.gz, its files at the root."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, source in _files(package.path):
            info = tarfile.TarInfo(name)
            info.size, info.mode = source.stat().st_size, 0o644
            with source.open("rb") as file:
                archive.addfile(info, file)


def pack_function(package: Package, machine: str, path: Path) -> None:
    """Write a function as zip: the server, its libraries, the package.

    Raises
    ------
    LimitError
        When it is larger than Lambda takes, unzipped.
    """
    cache = Path(resolve(ImageOptions).cache).expanduser() / "images"
    wheels = get_wheels(function_pins(package), PYTHON, machine, cache, lambda line: None)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        site = Path(folder)
        unpack(wheels, site, tests=False)
        every = dict(_files(site))
        every |= dict(_files(Path(str(files("modelport"))), "modelport/"))
        model = package.manifest.name
        every |= dict(_files(package.path, f"models/{model}/"))
        size = sum(source.stat().st_size for source in every.values())
        refuse_exceeded(check_limits("lambda", {"image": size}, "zip"))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(every):
                info = zipfile.ZipInfo(name, _EPOCH)
                info.external_attr, info.compress_type = _MODE, zipfile.ZIP_DEFLATED
                with every[name].open("rb") as source, archive.open(info, "w") as target:
                    shutil.copyfileobj(source, target, 1 << 20)


def _files(folder: Path, into: str = "") -> list[tuple[str, Path]]:
    """Files by their names in an archive, in order; nothing compiled here."""
    return [
        (into + path.relative_to(folder).as_posix(), path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
