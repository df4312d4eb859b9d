"""The image for those who build with Docker or Podman: the same parts, at the same places.

``modelport image`` writes the image without either. This one differs in its bytes, and has the
health check that only Docker's own image format knows.

Sources: https://docs.docker.com/reference/dockerfile/,
https://pip.pypa.io/en/stable/topics/secure-installs/ (``--require-hashes``).
"""

from __future__ import annotations

from typing import Final

from modelport import __version__
from modelport.core.options import ImageOptions
from modelport.deploy.base import PlannedFile, Service
from modelport.deploy.images.config import ENTRYPOINT, HEALTH_CHECK, PORT, USER
from modelport.deploy.images.requirements import requirements
from modelport.deploy.images.server import _HEALTH_CHECK as HEALTH_CHECK_SCRIPT

#: The same base as that of ``modelport image``.
BASE: Final = ImageOptions.base
#: Seconds between health checks, for one, and until failures count.
INTERVAL: Final = 10
TIMEOUT: Final = 6
START_PERIOD: Final = 60
RETRIES: Final = 3

_FOLDER: Final = "image"

_TEXT: Final = """\
# Builds the image of the model {model}. Run it as:
#   {command}
FROM {base} AS build
# The server: a version in a package index, or a wheel in this folder: /context/NAME.whl.
ARG MODELPORT=modelport=={version}
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN ["python3", "-m", "venv", "/opt/modelport"]
COPY requirements.lock /build/requirements.lock
RUN ["/opt/modelport/bin/python", "-m", "pip", "install", "--require-hashes", \
"--only-binary=:all:", "-r", "/build/requirements.lock"]
# Its dependencies are above, each with its hash; nothing else is fetched.
RUN --mount=type=bind,target=/context \\
    /opt/modelport/bin/python -m pip install --no-deps "${{MODELPORT}}" && \\
    /opt/modelport/bin/python -m pip uninstall --yes pip setuptools
COPY --chmod=0755 healthcheck /opt/modelport/bin/healthcheck

FROM {base}
LABEL org.opencontainers.image.title="{model}" \\
      org.opencontainers.image.version="{tag}" \\
      io.modelport.version="{version}" \\
      io.modelport.package.digest="{digest}" \\
      com.amazonaws.sagemaker.capabilities.multi-models="true" \\
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"
ENV HOME=/tmp \\
    MODELPORT_HOST=0.0.0.0 \\
    PATH=/opt/modelport/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    PYTHONDONTWRITEBYTECODE=1 \\
    PYTHONUNBUFFERED=1
COPY --from=build /opt/modelport /opt/modelport
# A layer of its own, and the last: another model changes nothing below it.
COPY --from=model --chown={user} / /models/{model}
USER {user}
WORKDIR /
EXPOSE {port}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval={interval}s --timeout={timeout}s --start-period={start}s \
--retries={retries} CMD {health}
ENTRYPOINT {entrypoint}
"""


def build_command(engine: str, service: Service) -> str:
    """What builds it, in the folder with the plan's files."""
    return (
        f"{engine} build --build-context model=PACKAGE-FOLDER "
        f"--tag {service.name}:{service.tag} {_FOLDER}"
    )


def dockerfile(service: Service, base: str, engine: str = "docker") -> tuple[PlannedFile, ...]:
    """The Dockerfile and what it copies; the package itself is a build context of its own.

    Parameters
    ----------
    service : Service
    base : str
        With Python 3.11 or newer and glibc.
    engine : str
        ``docker`` or ``podman``; Docker needs 23 or newer, Podman 4.2 (``--build-context``).

    Raises
    ------
    UnsupportedError
        When the package needs what our lock file does not have.
    """
    pins = requirements(service.package, "")
    text = _TEXT.format(
        model=service.model,
        command=f"{build_command(engine, service)[: -len(_FOLDER)]}.",
        base=base,
        version=__version__,
        tag=service.tag,
        digest=service.package.digest,
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
        PlannedFile(f"{_FOLDER}/healthcheck", HEALTH_CHECK_SCRIPT, "asks the server", True),
    )


def _exec(words: tuple[str, ...]) -> str:
    """The exec form, which needs no shell: signals reach the server itself."""
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
