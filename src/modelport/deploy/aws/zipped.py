"""Lambda without an image: what a zip file is built from, by us or by hand.

Sources: Lambda developer guide, "Working with .zip file archives for Python Lambda functions" and
"Improving startup performance with Lambda SnapStart"; pip's user guide, "Hash-checking Mode".
"""

from __future__ import annotations

import shlex
from typing import Final

from modelport.deploy.aws import archive
from modelport.deploy.aws.archive import function_pins
from modelport.deploy.aws.function import Function
from modelport.deploy.base import PlannedFile
from modelport.deploy.images.wheels import platform_flags

#: Bytes of modelport and the libraries of a server without processing, for CPython 3.12 on x86_64.
UNPACKED: Final = 160_000_000

_BUILD: Final = """\
#!/bin/sh
# Makes build/, which template.yaml takes: sh build.sh PACKAGE
set -eu
package=$(cd "${{1:?the folder of the package}}" && pwd)
cd "$(dirname "$0")"
mkdir build
python3 -m pip install --quiet --target build --no-deps --require-hashes --only-binary :all: \\
  {flags} --requirement requirements.txt
cp -R "$(python3 -c 'import modelport; print(modelport.__path__[0])')" build/modelport
mkdir build/models
cp -R "$package" build/models/{model}
find build -name __pycache__ -prune -exec rm -r {{}} +
"""


def zip_files(function: Function) -> tuple[PlannedFile, ...]:
    """What `zip_commands` needs beside the template."""
    flags = shlex.join(platform_flags(archive.PYTHON, function.machine))
    build = _BUILD.format(flags=flags, model=shlex.quote(function.service.model))
    pins = function_pins(function.service.package)
    locked = "".join(" \\\n    ".join(pin.text.split()) + "\n" for pin in pins)
    return (
        PlannedFile("requirements.txt", locked, "what the server needs, by hashes"),
        PlannedFile("build.sh", build, "makes the folder that is zipped", executable=True),
    )


def zip_commands(deploy: str) -> tuple[str, ...]:
    """Build the folder, then let SAM zip, upload and deploy it."""
    return ("sh build.sh PACKAGE", f"{deploy} --resolve-s3")


def zip_notes(function: Function) -> list[str]:
    """What is to be known about a function without an image."""
    bucket = function.settings.bucket
    if bucket:
        by = f"--yes builds the zip file, puts it into {bucket} and deletes it there afterwards; " \
             "each update leaves its version, which counts as code storage"  # fmt: skip
    else:
        by = "only SAM can deploy this plan; with --set bucket=… --yes builds, uploads and " \
             "deploys the zip file"  # fmt: skip
    return [
        f"the zip file is the locked wheels for CPython {archive.PYTHON}, modelport as it is "
        "installed "
        "here, and the package: the same inputs, the same bytes",
        by,
        "SnapStart restores a snapshot in which the model is loaded already",
    ]
