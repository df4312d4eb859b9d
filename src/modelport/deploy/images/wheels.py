"""The server's wheels, for the image's Python and processor, not for this machine's.

pip downloads them by the hashes of a lock file; a cache keeps them.
"""

from __future__ import annotations

import email.parser
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from modelport.core.digest import canonical_json, sha256_bytes, sha256_file
from modelport.core.errors import InputError, IntegrityError, NotFoundError, PlatformError
from modelport.core.package import check_relative
from modelport.deploy.base import Progress

LOCK: Final = "requirements.lock"
PYTHONS: Final = ("3.11", "3.12", "3.13")
MACHINES: Final = ("x86_64", "aarch64")

#: What our lock file calls the requirements of every image.
SERVER: Final = "server"

_GLIBC: Final = range(28, 4, -1)
_LEGACY: Final = ("manylinux2014", "manylinux2010", "manylinux1")
_PIN: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==(\S+)")
#: Options that stand for further requirements: left out, they would be missed at run time.
_OTHER_FILES: Final = ("-r", "--requirement", "-e", "--editable")
_SECONDS: Final = 900
_LONGEST_LICENSE: Final = 80


@dataclass(frozen=True)
class Pin:
    """One requirement of a lock file.

    Parameters
    ----------
    name : str
        In its normalised form: ``python-multipart``.
    version : str
    text : str
        As pip reads it, with its hashes.
    via : tuple of str
        What our lock file says that it is for.
    """

    name: str
    version: str
    text: str
    via: tuple[str, ...]


@dataclass(frozen=True)
class Wheel:
    """A wheel on disk, verified.

    Parameters
    ----------
    path : Path
    sha256 : str
    name : str
        In its normalised form.
    version : str
    license : str
        Its metadata's SPDX expression; empty: it has none.
    license_name : str
        What older metadata calls it, where that is short.
    """

    path: Path
    sha256: str
    name: str
    version: str
    license: str = ""
    license_name: str = ""


def read_lock(path: str) -> list[Pin]:
    """Read a lock file; an empty path: modelport's own.

    Raises
    ------
    NotFoundError
        When it does not exist.
    InputError
        When a requirement has no version or no hash.
    """
    if not path:
        text = files("modelport.deploy.images").joinpath(LOCK).read_text(encoding="utf-8")
    elif Path(path).is_file():
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    else:
        raise NotFoundError("lock file", path, where="--lock")
    pins: list[Pin] = []
    for line in text.replace("\\\n", " ").splitlines():
        body, _, comment = line.partition("#")
        words = body.split()
        if not words:
            if pins and comment.strip().startswith("via "):
                last, groups = pins[-1], comment.strip().removeprefix("via ").split(", ")
                pins[-1] = Pin(last.name, last.version, last.text, tuple(groups))
            continue
        found = _PIN.fullmatch(words[0].partition(";")[0])
        if words[0].startswith("-") and not words[0].startswith(_OTHER_FILES):
            continue  # pip's options, such as an index: pip's own settings count
        if not found or not any(word.startswith("--hash=sha256:") for word in words):
            raise InputError(
                f"not locked: {words[0]}",
                where=path or LOCK,
                hint="each line is NAME==VERSION with --hash=sha256:…: pip-compile "
                "--generate-hashes, or uv pip compile --generate-hashes, writes such files",
            )
        pins.append(Pin(normalise(found[1]), found[2], " ".join(words), ()))
    return pins


def normalise(name: str) -> str:
    """A project's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def platform_flags(python: str, machine: str) -> list[str]:
    """Which wheels pip may take: CPython's, for glibc 2.28 and older.

    Sources: PEP 600 (``manylinux_2_28_x86_64``) and the older names that it lists.
    """
    tags = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC]
    tags += [f"{name}_{machine}" for name in _LEGACY]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    return ["--implementation", "cp", "--python-version", python, *platforms]


def get_wheels(
    pins: Sequence[Pin], python: str, machine: str, cache: Path, report: Progress
) -> list[Wheel]:
    """Have the wheels of a lock file, from the cache or an index.

    Parameters
    ----------
    pins : sequence of Pin
    python : str
        ``3.11``.
    machine : str
        ``x86_64``.
    cache : Path
    report : callable

    Returns
    -------
    list of Wheel
        By name.

    Raises
    ------
    PlatformError
        When the index cannot be reached, or has no such wheel, in pip's words.
    IntegrityError
        When a wheel has another hash.
    """
    text = "".join(f"{pin.text}\n" for pin in pins)
    key = sha256_bytes(canonical_json([text, python, machine]))[:32]
    folder = cache / "wheels" / key
    listing = folder / "wheels.json"
    if not listing.is_file():
        _fill(folder, text, python, machine, len(pins), report)
    wheels = []
    for name, digest in sorted(json.loads(listing.read_bytes()).items()):
        path = folder / name
        if not path.is_file() or sha256_file(path) != digest:
            shutil.rmtree(folder)
            raise IntegrityError("a cached wheel was changed", where=str(path), hint="try again")
        wheels.append(_wheel(path, digest))
    return sorted(wheels, key=lambda wheel: wheel.name)


def _fill(
    folder: Path, text: str, python: str, machine: str, number: int, report: Progress
) -> None:
    """Download into a folder of the cache, beside its place first."""
    if find_spec("pip") is None:
        raise InputError(
            "pip is not here, and it is what gets the server's wheels",
            hint="python -m ensurepip",
        )
    report(f"getting {number} wheels for CPython {python} on {machine}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new.", dir=folder.parent) as beside:
        requirements = Path(beside, "requirements.txt")
        requirements.write_text(text, encoding="utf-8")
        into = Path(beside, "wheels")
        _pip_download(requirements, into, python, machine)
        names = {path.name: sha256_file(path) for path in into.glob("*.whl")}
        (into / "wheels.json").write_bytes(canonical_json(names))
        try:
            into.rename(folder)
        except OSError:
            if not (folder / "wheels.json").is_file():  # else another process was faster
                raise


def _pip_download(requirements: Path, into: Path, python: str, machine: str) -> None:
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"),
        *("--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"),
        *("--dest", str(into), "--requirement", str(requirements)),
        *platform_flags(python, machine),
    ]
    try:
        done = subprocess.run(  # noqa: S603 - pip, with our own arguments
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PlatformError(f"pip took more than {_SECONDS} s to get the wheels") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        words = "; ".join(line.removeprefix("ERROR:").strip() for line in said)[:2000]
        if "DO NOT MATCH THE HASHES" in done.stderr:
            raise IntegrityError(f"a wheel differs from its hash in the lock file: {words}")
        raise PlatformError(
            f"pip cannot get the wheels for CPython {python} on {machine}: {words}",
            hint="wheels come from the index that pip is set to; all are needed for that platform",
        )


def _wheel(path: Path, digest: str) -> Wheel:
    with zipfile.ZipFile(path) as archive:
        [name] = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
        text = archive.read(name).decode("utf-8", "replace")
    fields = email.parser.HeaderParser().parsestr(text)
    name, version = normalise(fields["Name"]), fields["Version"]
    told = fields["License"] or ""
    short = told if "\n" not in told and len(told) < _LONGEST_LICENSE else ""
    return Wheel(path, digest, name, version, fields["License-Expression"] or "", short)


def unpack(wheels: Collection[Wheel], site: Path, *, tests: bool = True) -> None:
    """Unpack wheels into a site-packages folder; their scripts are left out.

    Parameters
    ----------
    wheels : collection of Wheel
    site : Path
    tests : bool
        Also what is in folders called ``tests``.

    Source: https://packaging.python.org/specifications/binary-distribution-format/.

    Raises
    ------
    IntegrityError
        When a name leaves the folder.
    """
    for wheel in wheels:
        with zipfile.ZipFile(wheel.path) as archive:
            for member, relative in _members(archive):
                if not tests and "/tests/" in relative:
                    continue
                target = site / check_relative(relative, where=str(wheel.path))
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                target.chmod(0o755 if member.external_attr >> 16 & 0o100 else 0o644)


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    for member in archive.infolist():
        if member.is_dir():
            continue
        first, _, rest = member.filename.partition("/")
        if not first.endswith(".data"):
            yield member, member.filename
            continue
        scheme, _, inner = rest.partition("/")
        if scheme in ("purelib", "platlib"):
            yield member, inner
