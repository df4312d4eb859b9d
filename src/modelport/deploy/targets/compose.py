"""Docker Compose: the server, nginx with TLS in front, and Prometheus with our rules.

Only the front is published. The server and Prometheus share a network without a way out.

Sources: https://docs.docker.com/reference/compose-file/,
https://docs.docker.com/compose/how-tos/use-secrets/.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.core.options import ServeOptions
from modelport.deploy import documents
from modelport.deploy.base import Plan, PlannedFile, Settings
from modelport.deploy.containers import dockerfile, monitoring, nginx
from modelport.deploy.images.config import (
    HEALTH_CHECK,
    INTERVAL,
    PORT,
    RETRIES,
    START_PERIOD,
    TIMEOUT,
    USER,
)
from modelport.deploy.kubernetes import manifests
from modelport.deploy.kubernetes.manifests import MAX_BODY
from modelport.deploy.limits import check_limits
from modelport.deploy.service import Service
from modelport.deploy.settings import mebibytes, setting

_SERVER: Final = f"model:{PORT}"
_SECRETS: Final = "/run/secrets"
_KEY, _CERTIFICATE, _CERTIFICATE_KEY = "api-key", "tls.crt", "tls.key"
_MOST_PORT: Final = 65535
_DURATION: Final = re.compile(r"(?:[1-9]\d*(?:y|w|d|h|m|s))+")
#: What the images of nginx-unprivileged and Prometheus run as.
_FRONT_USER: Final = "101:101"
_PROMETHEUS_USER: Final = "65534:65534"

_COMMENT: Final = """\
The model {model} with TLS in front and Prometheus beside it; written by modelport.
Before 'docker compose up', in this folder:
  secrets/api-key            the key that clients show, at least 16 characters
  secrets/tls.crt, tls.key   the certificate and its key, PEM
The containers' users read them, so: chmod 711 secrets; chmod 444 secrets/*; and the folder
around it for you alone: chmod 700 .
"""

_GITIGNORE: Final = "# Secrets are made where they are used.\nsecrets/\n"


@dataclass(frozen=True, kw_only=True)
class ComposeSettings(Settings):
    """What can be set; the texts are in the fields."""

    engine: str = setting(
        "docker", "docker compose or podman-compose", choices=("docker", "podman")
    )
    listen: str = setting("", "address of this machine that is published (default: all)")
    port: int = setting(443, "port of this machine, with TLS")
    memory: str = setting("", "limit, as 512Mi (default: from the measured memory)")
    max_body: str = setting(MAX_BODY, "largest request body; memory grows by four of it")
    cpus: str = setting("", "limit, as 1 or 500m (default: from the measured time and rps)")
    rps: float = setting(10.0, "requests a second at the peak, for the processor's share")
    front_image: str = setting(
        "docker.io/nginxinc/nginx-unprivileged:1.28-alpine", "nginx, best with @sha256:…"
    )
    prometheus_image: str = setting("docker.io/prom/prometheus:v3.5.0", "best with @sha256:…")
    prometheus_port: int = setting(0, "Prometheus at this port of 127.0.0.1 (0: inside only)")
    retention: str = setting("15d", "how long Prometheus keeps what it has measured")
    base: str = setting(dockerfile.BASE, "base of the Dockerfile, best with @sha256:…")


class ComposeTarget:
    """Plans for one machine with Docker Compose or podman-compose."""

    name = "compose"
    settings = ComposeSettings
    cold_start = "none (always running)"

    def plan(self, service: Service, settings: ComposeSettings) -> Plan:
        """Say what has to be written; the commands are for people to run.

        Raises
        ------
        InputError
            When a setting is missing or cannot be used, with the key.
        """
        _check(settings)
        sizing = manifests.size(
            service.footprint, rps=settings.rps, replicas=1,
            memory=settings.memory, cpu=settings.cpus, max_body=settings.max_body,
        )  # fmt: skip
        if settings.image:
            image = service.image(settings.image)
            unpinned = manifests.unpinned_note(image)
        else:
            image = f"{service.name}:{service.tag}"
            unpinned = (
                "the image is built from image/Dockerfile, here; --set image=registry/repository "
                "takes one from a registry, which 'modelport image --push' writes without Docker"
            )
        port = "" if settings.port == 443 else f":{settings.port}"
        command = "docker compose" if settings.engine == "docker" else "podman-compose"
        return Plan(
            target=self.name,
            service=service,
            image=image,
            files=(*_files(service, settings, sizing, image),
                   *dockerfile.dockerfile(service, settings.base, settings.engine)),
            endpoint=f"https://localhost{port}",
            checks=check_limits(self.name, {"memory": sizing.memory, "name": len(service.name)}),
            notes=_notes(service, settings, sizing, unpinned),
            commands=(
                "mkdir -p secrets && openssl rand -hex 32 > secrets/api-key",
                "cp CERTIFICATE secrets/tls.crt && cp KEY secrets/tls.key",
                "chmod 711 secrets && chmod 444 secrets/* && chmod 700 .",
                *([] if settings.image else [f"export MODELPORT=$({dockerfile.INSTALLED})"]),
                f"{'' if settings.image else 'PACKAGE=PACKAGE-FOLDER '}{command} up --detach",
                "export MODELPORT_API_KEY=$(cat secrets/api-key)",
                f"modelport verify https://HOST{port} PACKAGE",
            ),
        )  # fmt: skip


def _check(settings: ComposeSettings) -> None:
    for key, port, least in (
        ("port", settings.port, 1), ("prometheus-port", settings.prometheus_port, 0),
    ):  # fmt: skip
        if not least <= port <= _MOST_PORT:
            raise InputError(f"not a port: {port}", where=f"--set {key}={port}")
    for key, image in (
        ("front-image", settings.front_image), ("prometheus-image", settings.prometheus_image),
    ):  # fmt: skip
        dockerfile.check_image(image, key)
    if settings.image:
        dockerfile.check_image(settings.image, "image")
    if settings.listen:
        try:
            ipaddress.ip_address(settings.listen)
        except ValueError:
            raise InputError(
                f"not an address of a machine: {settings.listen!r}",
                where=f"--set listen={settings.listen}",
                hint="--set listen=127.0.0.1",
            ) from None
    if not _DURATION.fullmatch(settings.retention):
        raise InputError(
            f"not how long: {settings.retention!r}",
            where=f"--set retention={settings.retention}",
            hint="--set retention=15d; h, d, w and y are units",
        )


def _files(
    service: Service, settings: ComposeSettings, sizing: manifests.Sizing, image: str
) -> list[PlannedFile]:
    serve = ServeOptions()
    front = nginx.nginx_conf(
        _SERVER, f"{_SECRETS}/{_CERTIFICATE}", f"{_SECRETS}/{_CERTIFICATE_KEY}",
        max_body=sizing.max_body, timeout=serve.timeout, body_timeout=serve.body_timeout,
    )  # fmt: skip
    compose = documents.to_yaml(
        _compose(service, settings, sizing, image), comment=_COMMENT.format(model=service.model)
    )
    scrape = documents.to_yaml(monitoring.scrape_config(_SERVER, f"{_SECRETS}/{_KEY}"))
    rules = documents.to_yaml(monitoring.rules(service.footprint, sizing.memory))
    return [
        PlannedFile("compose.yaml", compose, "the three services, their networks and secrets"),
        PlannedFile("front/nginx.conf", front, "TLS, limits and times of the front"),
        PlannedFile("prometheus/prometheus.yml", scrape, "what Prometheus asks"),
        PlannedFile("prometheus/rules.yml", rules, "recorded series and alerts"),
        PlannedFile(".gitignore", _GITIGNORE, "keeps the secrets out of git"),
    ]


def _compose(
    service: Service, settings: ComposeSettings, sizing: manifests.Sizing, image: str
) -> dict[str, Any]:
    return {
        "name": service.name,
        "services": {
            "model": _model(service, settings, sizing, image),
            "front": _front(settings),
            "prometheus": _prometheus(settings),
        },
        "networks": {
            # Without a way out: a server needs none.
            "inside": {"internal": True},
            "outside": {},
        },
        "volumes": {"prometheus": {}},
        "secrets": {
            name: {"file": f"./secrets/{name}"} for name in (_KEY, _CERTIFICATE, _CERTIFICATE_KEY)
        },
    }


def _hardened(user: str, memory: str, cpus: str, temporary: str = "64m") -> dict[str, Any]:
    """What all containers have."""
    return {
        "user": user,
        "read_only": True,
        "tmpfs": [f"/tmp:rw,noexec,nosuid,nodev,mode=1777,size={temporary}"],  # noqa: S108
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": 512,
        "mem_limit": memory,
        "cpus": cpus,
        "restart": "unless-stopped",
    }


def _health(test: list[str], start: int) -> dict[str, Any]:
    return {
        "test": ["CMD", *test],
        "interval": f"{INTERVAL}s",
        "timeout": f"{TIMEOUT}s",
        "retries": RETRIES,
        "start_period": f"{start}s",
    }


def _model(
    service: Service, settings: ComposeSettings, sizing: manifests.Sizing, image: str
) -> dict[str, Any]:
    cores = f"{sizing.cores:g}" if settings.cpus else str(sizing.most_cores)
    return {
        **_source(settings, image),
        **_hardened(USER, mebibytes(sizing.memory).removesuffix("i").lower(), cores),
        "stop_grace_period": f"{manifests.GRACE + 10}s",
        "environment": {
            "MODELPORT_API_KEY_FILE": f"{_SECRETS}/{_KEY}",
            **sizing.environment(),
        },
        "secrets": [_KEY],
        "networks": ["inside"],
        "healthcheck": _health(
            list(HEALTH_CHECK), max(START_PERIOD, int(20 * service.footprint.start))
        ),
        "labels": {
            "io.modelport.service": service.name,
            "io.modelport.package": service.package.digest,
        },
    }


def _source(settings: ComposeSettings, image: str) -> dict[str, Any]:
    """The image; without one in a registry, the Dockerfile beside builds it."""
    if settings.image:
        return {"image": image}
    # Compose puts the variable in; without it, it says what is missing.
    contexts = {
        "model": "${PACKAGE:?the folder of the package}",
        "server": "${MODELPORT:?the folder of the installed modelport}",
    }
    return {"image": image, "build": {"context": "./image", "additional_contexts": contexts}}


def _front(settings: ComposeSettings) -> dict[str, Any]:
    address = f"[{settings.listen}]:" if ":" in settings.listen else f"{settings.listen}:"
    address = address if settings.listen else ""
    return {
        "image": settings.front_image,
        # Bodies that come in are kept in /tmp, which is memory of the container.
        **_hardened(_FRONT_USER, "384m", "1", "256m"),
        # Without -e it writes to a file before it has read its configuration.
        "command": [
            "nginx", "-e", "/dev/stderr", "-c", "/etc/front/nginx.conf", "-g", "daemon off;",
        ],
        "volumes": ["./front:/etc/front:ro"],
        "secrets": [_CERTIFICATE, _CERTIFICATE_KEY],
        "networks": ["inside", "outside"],
        "ports": [f"{address}{settings.port}:{nginx.HTTPS_PORT}"],
        "healthcheck": _health(["wget", "-q", "-O", "/dev/null", nginx.HEALTH_URL], 10),
        # nginx looks the server's address up once: it starts again with it.
        "depends_on": {"model": {"condition": "service_healthy", "restart": True}},
    }  # fmt: skip


def _prometheus(settings: ComposeSettings) -> dict[str, Any]:
    prometheus: dict[str, Any] = {
        "image": settings.prometheus_image,
        **_hardened(_PROMETHEUS_USER, "512m", "1"),
        "entrypoint": ["prometheus"],
        "command": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            f"--storage.tsdb.retention.time={settings.retention}",
            "--web.listen-address=0.0.0.0:9090",
        ],
        "volumes": ["./prometheus:/etc/prometheus:ro", "prometheus:/prometheus"],
        "secrets": [_KEY],
        "networks": ["inside"],
        "healthcheck": _health(
            ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:9090/-/ready"], 30
        ),
    }
    if settings.prometheus_port:
        # A network without a way out has no way in, either.
        prometheus["networks"] = ["inside", "outside"]
        prometheus["ports"] = [f"127.0.0.1:{settings.prometheus_port}:9090"]
    return prometheus


def _notes(
    service: Service, settings: ComposeSettings, sizing: manifests.Sizing, unpinned: str
) -> tuple[str, ...]:
    notes = [unpinned] if unpinned else []
    notes.append(manifests.sizing_note(service.footprint, sizing, settings.rps))
    notes.append(
        "the key is one line of secrets/api-key, without comments: Prometheus shows it, too"
    )
    notes.append("with a renewed certificate: restart the service front")
    notes.append(
        "gRPC is not behind the front: nginx would need a second port for it; see kubernetes"
    )
    for key, image in (
        ("front-image", settings.front_image),
        ("prometheus-image", settings.prometheus_image),
        ("base", settings.base),
    ):
        if "@sha256:" not in image:
            notes.append(f"{image} is named by a tag: --set {key}=…@sha256:… pins it")
    return tuple(notes)
