"""A package: an immutable directory that is written whole and verified when opened.

::

    NAME/
      manifest.json      what it is; its SHA-256 is the package digest
      manifest.sha256    that digest, as ``sha256sum`` writes it
      model/…            what the engine opens
      processing/…       what the processing steps open: a tokenizer
      golden.npz         real inputs and the source model's answers
      baseline.json      statistics of the sample rows
      README.md          the model card

Opening a package reads and hashes; it never executes anything from it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelport.core.digest import sha256_bytes, sha256_file
from modelport.core.errors import ConflictError, IntegrityError, NotFoundError
from modelport.core.golden import GoldenRecords
from modelport.core.manifest import Manifest, read_manifest

MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"
GOLDEN = "golden.npz"
BASELINE = "baseline.json"
CARD = "README.md"


@dataclass(frozen=True)
class Package:
    """A package on disk whose digests have been verified.

    Parameters
    ----------
    path : Path
    manifest : Manifest
    """

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """The package digest, ``sha256:…``."""
        return self.manifest.digest

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(entry.size for entry in self.manifest.files.values())

    @property
    def model_path(self) -> Path:
        """The file that the engine opens."""
        return self.path / self.manifest.model_file

    def processing_files(self) -> dict[str, bytes]:
        """The files that the processing steps need, by name."""
        processing = self.manifest.processing
        names = processing.files if processing is not None else ()
        return {name: (self.path / name).read_bytes() for name in names}

    def golden(self) -> GoldenRecords | None:
        """The golden records, or None when the package has none."""
        if GOLDEN not in self.manifest.files:
            return None
        path = self.path / GOLDEN
        return GoldenRecords.from_bytes(path.read_bytes(), where=str(path))


def is_package(path: Path) -> bool:
    """Whether `path` looks like a package folder."""
    return (path / MANIFEST).is_file()


def open_package(path: Path) -> Package:
    """Read a package's manifest and verify every file against it.

    Raises
    ------
    NotFoundError
        When there is no package at `path`.
    IntegrityError
        When a file is missing, extra, or has other bytes than the manifest says.
    """
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        found = sorted(p.name for p in path.parent.glob("*") if is_package(p))
        raise NotFoundError("package", path.name, found, where=str(path.parent))
    content = manifest_path.read_bytes()
    checksum = path / CHECKSUM
    if not checksum.is_file() or checksum.read_bytes() != _checksum(content):
        raise IntegrityError(
            f"manifest has other bytes than {CHECKSUM} says, or that file is missing",
            where=str(path),
            hint="the package was changed or damaged; pull or pack it again",
        )
    manifest = read_manifest(content, where=str(manifest_path))
    listed = {*manifest.files, MANIFEST, CHECKSUM}
    present = {p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir()}
    if extra := sorted(present - listed):
        raise IntegrityError(
            f"package holds files that its manifest does not list: {', '.join(extra)}",
            where=str(path),
            hint="packages are immutable; remove the files or pack again",
        )
    for relative, entry in manifest.files.items():
        file = path / check_relative(relative, where=str(manifest_path))
        if not file.is_file():
            raise IntegrityError(f"package file is missing: {relative}", where=str(path))
        if file.stat().st_size != entry.size or sha256_file(file) != entry.sha256:
            raise IntegrityError(
                f"package file has other bytes than its manifest says: {relative}",
                where=str(path),
                hint="the file was changed or damaged after packing; pull or pack it again",
            )
    if manifest.model_file not in manifest.files:
        raise IntegrityError(
            f"manifest lists no model file {manifest.model_file}", where=str(manifest_path)
        )
    return Package(path=path, manifest=manifest)


def check_relative(relative: str, *, where: str) -> str:
    """Return `relative` if it stays inside its folder, else raise `IntegrityError`."""
    path = PurePosixPath(relative)
    odd = "\\" in relative or "\0" in relative or relative != str(path)
    if odd or path.is_absolute() or not path.parts or ".." in path.parts:
        raise IntegrityError(f"package file name leaves its folder: {relative!r}", where=where)
    return relative


def check_place(path: Path, *, replace: bool) -> None:
    """Check that a package may be written somewhere.

    Parameters
    ----------
    path : Path
    replace : bool
        Whether another package may be replaced; anything else in the way never is.

    Raises
    ------
    ConflictError
        When something is there that may not be replaced.
    """
    if not path.exists():
        return
    if not is_package(path):
        raise ConflictError(
            f"cannot write a package here, something else exists: {path}",
            hint="choose another --out or --name",
        )
    if not replace:
        raise ConflictError(
            f"another package exists: {path}",
            hint="--force replaces it; packages that were pushed stay in the registry",
        )


def write_package(
    path: Path, manifest: Manifest, files: Mapping[str, bytes], *, replace: bool = False
) -> Package:
    """Write a package beside its place, then rename it there in one step.

    Writing the package that is already there changes nothing.

    Parameters
    ----------
    path : Path
        The package folder to make.
    manifest : Manifest
    files : mapping of str to bytes
        Every file that the manifest lists.
    replace : bool
        Whether another package may be replaced; anything else in the way never is.

    Raises
    ------
    ConflictError
        When `path` exists and may not be replaced.
    """
    same = is_package(path) and (path / MANIFEST).read_bytes() == manifest.to_bytes()
    if same and not replace:
        return open_package(path)
    check_place(path, replace=replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        document = manifest.to_bytes()
        own = {MANIFEST: document, CHECKSUM: _checksum(document)}
        for relative, content in {**files, **own}.items():
            write_durably(staging / check_relative(relative, where=str(path)), content)
        staging.chmod(0o755)
        if replace and path.exists():
            _exchange(staging, path)
        else:
            _rename_if_absent(staging, path, manifest)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Package(path=path, manifest=manifest)


def _checksum(document: bytes) -> bytes:
    return f"{sha256_bytes(document)}  {MANIFEST}\n".encode()


def _exchange(staging: Path, path: Path) -> None:
    """Put the staged package in the place of another, which stays if that fails."""
    retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        path.rename(retired / "old")
        try:
            staging.rename(path)
        except BaseException:
            (retired / "old").rename(path)
            raise
    finally:
        shutil.rmtree(retired)


def _rename_if_absent(staging: Path, path: Path, manifest: Manifest) -> None:
    """Give the staged package its name; another process may do the same at this moment."""
    try:
        staging.rename(path)
    except OSError as error:
        if not is_package(path) or (path / MANIFEST).read_bytes() != manifest.to_bytes():
            raise ConflictError(f"something else was written to {path} meanwhile") from error


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
