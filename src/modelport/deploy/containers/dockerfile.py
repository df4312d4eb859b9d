"""The image for those who build with Docker or Podman: the same parts, at the same places.

``modelport image`` writes the image without either. This one differs in its bytes, and has the
health check that only Docker's own image format knows.

Sources: https://docs.docker.com/reference/dockerfile/,
https://pip.pypa.io/en/stable/topics/secure-installs/ (``--require-hashes``).
"""

from __future__ import annotations

import re
from typing import Final

from modelport import __version__
from modelport.core.digest import canonical_json
from modelport.core.errors import InputError
from modelport.core.options import ImageOptions
from modelport.deploy.base import PlannedFile
from modelport.deploy.images.config import (
    ENTRYPOINT,
    HEALTH_CHECK,
    INTERVAL,
    PORT,
    RETRIES,
    START_PERIOD,
    TIMEOUT,
    USER,
)
from modelport.deploy.images.reference import parse_reference
from modelport.deploy.images.requirements import requirements
from modelport.deploy.images.server import HEALTH_CHECK_SCRIPT, LAUNCHER
from modelport.deploy.service import Service

#: The same base as that of ``modelport image``.
BASE: Final = ImageOptions.base
_FOLDER: Final = "image"

#: Where Python looks for modules, whatever its version.
_INSTALL: Final = (
    "import compileall, py_compile, shutil, sysconfig; "
    "place = sysconfig.get_path('purelib') + '/modelport'; "
    "shutil.copytree('/build/modelport', place, ignore=shutil.ignore_patterns('__pycache__')); "
    "compileall.compile_dir(place, quiet=1, "
    "invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
)

_TEXT: Final = """\
# Builds the image of the model {model}. Run it as:
#   {command}
FROM {base} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN ["python3", "-m", "venv", "/opt/modelport"]
COPY requirements.lock /build/requirements.lock
RUN ["/opt/modelport/bin/python", "-m", "pip", "install", "--require-hashes", \
"--only-binary=:all:", "-r", "/build/requirements.lock"]
# All that is fetched is above, each with its hash.
RUN ["/opt/modelport/bin/python", "-m", "pip", "uninstall", "--yes", "pip", "setuptools"]
# The server itself comes from where it is installed: no index is asked for it.
COPY --from=server / /build/modelport
RUN ["/opt/modelport/bin/python", "-c", "{install}"]
COPY --chmod=0755 modelport healthcheck /opt/modelport/bin/
# Every user can read it, and only root could change it.
COPY --from=model / /build/package
RUN ["chmod", "-R", "u=rwX,go=rX", "/opt/modelport", "/build/package"]

FROM {base}
LABEL org.opencontainers.image.title="{model}" \\
      org.opencontainers.image.version="{tag}" \\
      io.modelport.version="{version}" \\
      io.modelport.package.digest="{digest}" \\
      io.modelport.signature="{signature}" \\
      com.amazonaws.sagemaker.capabilities.multi-models="true" \\
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"
ENV HOME=/tmp \\
    MODELPORT_HOST=0.0.0.0 \\
    PATH=/opt/modelport/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    PYTHONDONTWRITEBYTECODE=1 \\
    PYTHONUNBUFFERED=1
COPY --from=build /opt/modelport /opt/modelport
# A layer of its own, and the last: another model changes nothing below it.
COPY --from=build /build/package /models/{model}
USER {user}
WORKDIR /
EXPOSE {port}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval={interval}s --timeout={timeout}s --start-period={start}s \
--retries={retries} CMD {health}
ENTRYPOINT {entrypoint}
"""


#: Prints the folder of the modelport that is installed.
INSTALLED: Final = "python -c 'import modelport; print(*modelport.__path__)'"


def build_command(engine: str, service: Service) -> str:
    """What builds it, in the folder with the plan's files."""
    contexts = f'--build-context model=PACKAGE-FOLDER --build-context server="$({INSTALLED})"'
    return f"{engine} build {contexts} --tag {service.name}:{service.tag} {_FOLDER}"


def dockerfile(service: Service, base: str, engine: str = "docker") -> tuple[PlannedFile, ...]:
    """The Dockerfile and what it copies; the package and modelport are contexts of their own.

    Parameters
    ----------
    service : Service
    base : str
        With Python 3.11 or newer and glibc.
    engine : str
        ``docker`` or ``podman``; Docker needs 23 or newer, Podman 4.2 (``--build-context``).

    Raises
    ------
    InputError
        When the base is not the name of an image.
    UnsupportedError
        When the package needs what our lock file does not have.
    """
    base = check_image(base, "base")
    pins = requirements(service.package, "")
    signature = canonical_json(service.package.manifest.signature.to_json()).decode()
    text = _TEXT.format(
        model=service.model,
        command=f"{build_command(engine, service)[: -len(_FOLDER)]}.",
        base=base,
        version=__version__,
        tag=service.tag,
        digest=service.package.digest,
        signature=re.sub(r'([\\"$])', r"\\\1", signature),
        install=_INSTALL,
        user=USER,
        port=PORT,
        interval=INTERVAL,
        timeout=TIMEOUT,
        start=START_PERIOD,
        retries=RETRIES,
        health=_exec(HEALTH_CHECK),
        entrypoint=_exec(ENTRYPOINT),
    )
    lock = "# What the server of this model needs; pip takes nothing without its hash.\n"
    lock += "".join(" \\\n    ".join(pin.text.split()) + "\n" for pin in pins)
    return (
        PlannedFile(f"{_FOLDER}/Dockerfile", text, "builds the image with Docker or Podman"),
        PlannedFile(f"{_FOLDER}/requirements.lock", lock, "what it installs, with hashes"),
        PlannedFile(f"{_FOLDER}/modelport", LAUNCHER, "starts the server", True),
        PlannedFile(f"{_FOLDER}/healthcheck", HEALTH_CHECK_SCRIPT, "asks the server", True),
    )


def check_image(text: str, key: str) -> str:
    """An image's name as it was set: it becomes part of files.

    Raises
    ------
    InputError
        When it is none, with the setting's key.
    """
    try:
        parse_reference(text)
    except InputError as error:
        raise InputError(error.message, where=f"--set {key}={text}", hint=error.hint) from None
    return text


def _exec(words: tuple[str, ...]) -> str:
    """The exec form, which needs no shell: signals reach the server itself."""
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
