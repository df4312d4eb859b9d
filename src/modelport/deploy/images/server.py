"""The server as files of an image: a virtual environment at ``/opt/modelport``.

It has a place of its own, so that it fits upon every base: whatever Python packages the base
has are neither seen nor changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import modelport
from modelport import __version__
from modelport.core.digest import canonical_json, sha256_bytes, sha256_file
from modelport.core.errors import InputError
from modelport.deploy.images.layers import Entry
from modelport.deploy.images.wheels import Wheel, unpack

HOME: Final = "opt/modelport"
BINARIES: Final = f"/{HOME}/bin"
SBOM: Final = "usr/share/modelport/sbom.json"

LAUNCHER: Final = f"""\
#!{BINARIES}/python
import sys

from modelport.cli.main import main

sys.exit(main())
"""

#: Waits for nothing and imports little: it runs every few seconds.
HEALTH_CHECK_SCRIPT: Final = f"""\
#!{BINARIES}/python -S
import os
import socket
import sys

variables = ("MODELPORT_PORT", "AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT", "PORT")
port = next((int(os.environ[name]) for name in variables if os.environ.get(name)), 8080)
try:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        if os.environ.get("MODELPORT_TLS_CERT"):
            sys.exit(0)  # it listens: the certificate is not for this name
        connection.sendall(b"GET /v2/health/ready HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
        # With guarded health routes the answer is 401, of a server that is well.
        sys.exit(0 if connection.recv(64).split()[1:2] in ([b"200"], [b"401"]) else 1)
except OSError:
    sys.exit(1)
"""

#: One process, in a fixed order and with fixed hashes: the same bytes each time. The hash of the
#: source is in the file and never looked at, as layers have no times that could tell.
_COMPILE: Final = """\
import compileall, sys
from py_compile import PycInvalidationMode
compileall.compile_dir(sys.argv[1], maxlevels=99, quiet=2, force=True, workers=1,
    stripdir=sys.argv[1], prependdir=sys.argv[2],
    invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
"""
_PACKAGE: Final = Path(modelport.__file__).parent
_VERSION: Final = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
_SECONDS: Final = 900


def site_packages(python: str) -> str:
    """Where modules are, for a version of Python: ``3.11``."""
    return f"{HOME}/lib/python{python}/site-packages"


def dependency_entries(
    wheels: Collection[Wheel], folder: Path, python: str, compiler: str, *, tests: bool
) -> Iterator[Entry]:
    """The files of the wheels, unpacked into a folder.

    Parameters
    ----------
    wheels : collection of Wheel
    folder : Path
        Empty; has to stay until the entries have been packed.
    python : str
        The image's: ``3.11``.
    compiler : str
        A Python of that version, or empty: modules stay uncompiled.
    tests : bool
        Also the packages' own tests.
    """
    unpack(wheels, folder, tests=tests)
    if compiler:
        _compile(folder, python, compiler)
    for path in folder.rglob("*"):
        if path.is_file():
            relative = path.relative_to(folder).as_posix()
            executable = bool(path.stat().st_mode & 0o100)
            yield Entry(f"{site_packages(python)}/{relative}", path, executable)


def server_entries(folder: Path, interpreter: str, python: str, compiler: str) -> Iterator[Entry]:
    """Modelport itself, as it is installed here, and the environment around it.

    Parameters
    ----------
    folder : Path
        Empty; has to stay until the entries have been packed.
    interpreter : str
        The base's Python: ``/usr/bin/python3.11``.
    python : str
        Its version: ``3.11``.
    compiler : str
        A Python of that version, or empty: modules stay uncompiled.
    """
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(_PACKAGE, folder / "modelport", ignore=ignored)
    if compiler:
        _compile(folder, python, compiler)
    site = site_packages(python)
    for path in folder.rglob("*"):
        if path.is_file():
            yield Entry(f"{site}/{path.relative_to(folder).as_posix()}", path)
    metadata = f"Metadata-Version: 2.1\nName: modelport\nVersion: {__version__}\n"
    yield Entry(f"{site}/modelport-{__version__}.dist-info/METADATA", metadata.encode())
    home = interpreter.rpartition("/")[0]
    settings = f"home = {home}\ninclude-system-site-packages = false\nversion = {python}\n"
    yield Entry(f"{HOME}/pyvenv.cfg", settings.encode())
    for name in ("python", "python3", f"python{python}"):
        yield Entry(f"{HOME}/bin/{name}", link=interpreter)
    yield Entry(f"{HOME}/bin/modelport", LAUNCHER.encode(), executable=True)
    yield Entry(f"{HOME}/bin/healthcheck", HEALTH_CHECK_SCRIPT.encode(), executable=True)


@dataclass(frozen=True)
class Compiler:
    """A Python that compiles modules.

    Parameters
    ----------
    path : str
        Empty: there is none.
    version : str
        Exact: ``3.11.7``.
    """

    path: str = ""
    version: str = ""


def own_digest() -> str:
    """Of modelport's files as they are here."""
    listed = [
        [path.relative_to(_PACKAGE).as_posix(), sha256_file(path)]
        for path in sorted(_PACKAGE.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    ]
    return sha256_bytes(canonical_json([__version__, listed]))


def find_compiler(python: str) -> Compiler:
    """A Python of a version (``3.11``) on this machine."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    candidates = [sys.executable] if here == python else [shutil.which(f"python{python}")]
    for candidate in filter(None, candidates):
        try:
            done = subprocess.run(  # noqa: S603 - a Python, with our own arguments
                [candidate, "-I", "-c", _VERSION],
                capture_output=True, text=True, timeout=60, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            continue
        if done.stdout.startswith(f"{python}."):
            return Compiler(candidate, done.stdout.strip())
    return Compiler()


def _compile(folder: Path, python: str, compiler: str) -> None:
    try:
        subprocess.run(  # noqa: S603 - a Python, with our own arguments
            [compiler, "-P", "-s", "-S", "-W", "ignore", "-c", _COMPILE, str(folder),
             f"/{site_packages(python)}"],
            env={"PATH": os.defpath, "PYTHONHASHSEED": "0"}, capture_output=True, text=True,
            timeout=_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(
            f"the modules cannot be compiled with {compiler}: {error}",
            hint="--no-bytecode leaves them as they are",
        ) from error
