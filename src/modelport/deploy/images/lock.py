"""Writes ``requirements.lock``: ``python -m modelport.deploy.images.lock``.

For maintainers, in a checkout and with network. pip resolves what a server needs, once for every
Python and processor that images are made for; the lock has the wheels' hashes of all of them.
Each requirement says what it is for: ``server``, or the extra that a package's processing needs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modelport.deploy.images.wheels import MACHINES, PYTHONS, SERVER, platform_flags

FILE: Final = Path(__file__).with_name("requirements.lock")
_PROJECT: Final = Path(__file__).parents[4] / "pyproject.toml"

#: The server's own, and those of the adapters in every image.
_SERVER_EXTRAS: Final = ("grpc", "zstd")
#: AWS Lambda's runtime interface client: the same image runs there.
#: Protobuf as in the tests, where exporters keep it below 7.
_SERVER_MORE: Final = ("awslambdaric>=3", "protobuf<7")
#: What a package's processing may need.
_EXTRAS: Final = ("forest", "image", "text")

_HEADER: Final = """\
# Written by 'python -m modelport.deploy.images.lock'; do not edit.
# Wheels for CPython {pythons} on Linux (glibc 2.28 or newer), {machines}.
"""

Resolved = dict[str, dict[str, Any]]


def main() -> int:
    """Resolve and write."""
    wanted = {SERVER: [*_declared(""), *_SERVER_MORE]}
    for extra in _SERVER_EXTRAS:
        wanted[SERVER] += _declared(extra)
    wanted |= {extra: _declared(extra) for extra in _EXTRAS}
    every: dict[str, dict[str, Any]] = {}
    for python in PYTHONS:
        for machine in MACHINES:
            print(f"resolving for CPython {python} on {machine}", file=sys.stderr)
            found = _resolve([r for group in wanted.values() for r in group], python, machine)
            for name, item in found.items():
                entry = every.setdefault(name, {"versions": set(), "hashes": set(), "via": set()})
                entry["versions"].add(item["metadata"]["version"])
                entry["hashes"].add(item["download_info"]["archive_info"]["hashes"]["sha256"])
            for group, requirements in wanted.items():
                for name in _closure(requirements, found, python, machine):
                    every[name]["via"].add(group)
    FILE.write_text(_render(every), encoding="utf-8")
    print(f"wrote {FILE}: {len(every)} packages", file=sys.stderr)
    return 0


def _declared(extra: str) -> list[str]:
    """Modelport's own requirements, or those of one of its extras."""
    project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
    listed = project["optional-dependencies"][extra] if extra else project["dependencies"]
    # Their markers leave out Windows, which no image is for.
    return [text.partition(";")[0].strip() for text in listed]


def _resolve(requirements: list[str], python: str, machine: str) -> Resolved:
    """What pip would install, by canonical name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        # From PyPI alone, whatever is set for pip here: the lock is for everybody.
        ours = {k: v for k, v in os.environ.items() if k not in _PIP_SETTINGS}
        subprocess.run(  # noqa: S603 - pip, with our own arguments
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"),
                *("--ignore-installed", "--only-binary", ":all:", "--report", str(report)),
                *("--index-url", "https://pypi.org/simple", "--target", folder),
                *platform_flags(python, machine),
                *requirements,
            ],
            check=True,
            env=ours | {"PIP_CONFIG_FILE": os.devnull},
        )
        installed = json.loads(report.read_bytes())["install"]
    return {canonicalize_name(item["metadata"]["name"]): item for item in installed}


_PIP_SETTINGS: Final = {"PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"}


def _closure(requirements: Iterable[str], found: Resolved, python: str, machine: str) -> set[str]:
    """Requirements and all that they require."""
    environment = _environment(python, machine)
    names: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        contexts = [{**environment, "extra": extra} for extra in (requirement.extras or {""})]
        if name in names:
            continue
        names.add(name)
        for text in found[name]["metadata"].get("requires_dist", []):
            child = Requirement(text)
            if child.marker is None or any(child.marker.evaluate(c) for c in contexts):
                waiting.append(child)
    return names


def _environment(python: str, machine: str) -> dict[str, str]:
    told = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    return {**{key: str(value) for key, value in default_environment().items()}, **told}


def _render(every: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [_HEADER.format(pythons=", ".join(PYTHONS), machines=", ".join(MACHINES))]
    for name, entry in sorted(every.items()):
        versions = sorted(entry["versions"])
        if len(versions) > 1:
            # One version for all keeps the images of all platforms alike.
            raise SystemExit(f"{name} resolves to several versions: {', '.join(versions)}")
        hashes = [f"    --hash=sha256:{digest}" for digest in sorted(entry["hashes"])]
        requirement = " \\\n".join([f"{name}=={versions[0]}", *hashes])
        lines.append(f"{requirement}\n    # via {', '.join(sorted(entry['via']))}\n")
    return re.sub(r"\n{2,}", "\n", "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(main())
