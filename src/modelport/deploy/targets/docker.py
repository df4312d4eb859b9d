"""Docker or Podman on one machine: a container is verified beside the old one, then takes over.

The new version runs on a port that the engine chooses until it has been verified. Then the old
container is stopped and kept, the new one gets its name and port, and the old one goes. Between
the two are about as many seconds without an answer as the server takes to start; the target
``kubernetes`` has none.

Sources: https://docs.docker.com/reference/cli/docker/container/run/,
https://docs.podman.io/en/latest/markdown/podman-run.1.html,
https://cheatsheetseries.owasp.org/cheatsheets/Docker_Security_Cheat_Sheet.html.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.deploy.base import Call, Plan, Result, Settings
from modelport.deploy.containers import dockerfile
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
from modelport.deploy.settings import setting

_KEYS: Final = "/run/secrets/api-key"
#: What stands where `apply` puts the archive that it has built.
ARCHIVE: Final = "<the archive that --yes builds>"
_ANYBODY: Final = "0.0.0.0"  # noqa: S104 - only where --set public=true asks for it
_HERE: Final = "127.0.0.1"
_MOST_PORT: Final = 65535
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
#: Files that are written to /tmp, in MiB.
_TEMPORARY: Final = 64
_MOST_PROCESSES: Final = 512


@dataclass(frozen=True, kw_only=True)
class DockerSettings(Settings):
    """What can be set; the texts are in the fields."""

    archive: str = setting("", "archive to load, instead of a registry (default: --yes builds it)")
    engine: str = setting("docker", "which command line", choices=("docker", "podman"))
    port: int = setting(8080, "port of this machine")
    public: bool = setting(False, "on all its addresses (default: 127.0.0.1 only); needs a key")
    key_file: str = setting("", "file of this machine with the keys that clients show")
    env_file: str = setting("", "file with MODELPORT_API_KEY=…, instead of key-file")
    memory: str = setting("", "limit, as 512Mi (default: from the measured memory)")
    max_body: str = setting(MAX_BODY, "largest request body; memory grows by four of it")
    cpus: str = setting("", "limit, as 1 or 500m (default: from the measured time and rps)")
    rps: float = setting(10.0, "requests a second at the peak, for the processor's share")
    network: str = setting("", "network of the engine (default: its own default)")
    restart: str = setting(
        "unless-stopped", "when it ends", choices=("unless-stopped", "always", "on-failure", "no")
    )
    base: str = setting(dockerfile.BASE, "base of the Dockerfile, best with @sha256:…")


class DockerTarget:
    """Plans for one machine."""

    name = "docker"
    settings = DockerSettings
    cold_start = "none (always running)"

    def plan(self, service: Service, settings: DockerSettings) -> Plan:
        """Say what has to be written and called.

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
        image, unpinned = _image(service, settings)
        flags = _flags(service, settings, sizing)
        return Plan(
            target=self.name,
            service=service,
            image=image,
            loads_image=not settings.image,
            applier="command",
            connection={"engine": settings.engine},
            files=dockerfile.dockerfile(service, settings.base, settings.engine),
            calls=_calls(service, settings, flags, image),
            status=Call(
                "status", settings.engine, "inspect", {"name": service.name},
                "read the container's state",
            ),
            endpoint=f"http://{_HERE}:{settings.port}",
            verify_at=Result("candidate", "url"),
            checks=check_limits(
                self.name, {"memory": sizing.memory, "name": len(service.name)}
            ),
            notes=_notes(service, settings, sizing, unpinned),
            commands=(
                *_load_commands(service, settings),
                _shell([settings.engine, "run", *_final(service, settings, flags), image]),
                "# an image of your own:",
                dockerfile.build_command(settings.engine, service),
            ),
        )  # fmt: skip


def _image(service: Service, settings: DockerSettings) -> tuple[str, str]:
    """What the image is called here, and a note where it is not pinned."""
    if not settings.image:
        return f"{service.model}:{service.tag}", ""
    image = service.image(settings.image)
    return image, manifests.unpinned_note(image)


def _load_commands(service: Service, settings: DockerSettings) -> tuple[str, ...]:
    if settings.image:
        return ()
    archive = settings.archive or f"{service.model}.oci.tar"
    build = () if settings.archive else (f"modelport image PACKAGE-FOLDER --out {archive}",)
    return (*build, _shell([settings.engine, "load", "--input", archive]))


def _check(settings: DockerSettings) -> None:
    if settings.image:
        dockerfile.check_image(settings.image, "image")
    if settings.image and settings.archive:
        raise InputError("both image and archive are set", hint="one of the two has the model")
    if not 1 <= settings.port <= _MOST_PORT:
        raise InputError(f"not a port: {settings.port}", where=f"--set port={settings.port}")
    if settings.network and not _NAME.fullmatch(settings.network):
        raise InputError("not a network's name", where=f"--set network={settings.network}")
    for key, path in (("key-file", settings.key_file), ("env-file", settings.env_file)):
        if path and (not path.startswith("/") or "," in path):
            raise InputError(
                f"not an absolute path without commas: {path!r}", where=f"--set {key}={path}"
            )
    if settings.key_file and settings.env_file:
        raise InputError("both key-file and env-file are set", hint="one of the two has the key")
    if settings.public and not _has_key(settings):
        raise InputError(
            "everybody in the network could ask the model",
            where="--set public=true",
            hint="--set key-file=/etc/modelport/keys: the keys that clients show, one a line",
        )


def _has_key(settings: DockerSettings) -> bool:
    return bool(settings.key_file or settings.env_file)


def _flags(service: Service, settings: DockerSettings, sizing: manifests.Sizing) -> list[str]:
    """What both containers have in common."""
    flags = [
        "--detach",
        "--read-only",
        "--tmpfs", f"/tmp:rw,noexec,nosuid,nodev,mode=1777,size={_TEMPORARY}m",  # noqa: S108
        "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges",
        "--user", USER,
        "--memory", f"{-(-sizing.memory // (1 << 20))}m",
        "--cpus", _cores(settings, sizing),
        "--pids-limit", str(_MOST_PROCESSES),
        "--stop-timeout", str(manifests.GRACE + 10),
        "--health-cmd", HEALTH_CHECK[0],
        "--health-interval", f"{INTERVAL}s",
        "--health-timeout", f"{TIMEOUT}s",
        "--health-start-period", f"{START_PERIOD}s",
        "--health-retries", str(RETRIES),
        "--label", f"io.modelport.service={service.name}",
        "--label", f"io.modelport.package={service.package.digest}",
        *(word for k, v in sizing.environment().items() for word in ("--env", f"{k}={v}")),
    ]  # fmt: skip
    if settings.network:
        flags += ["--network", settings.network]
    if settings.key_file:
        mount = f"type=bind,source={settings.key_file},target={_KEYS},readonly"
        flags += ["--mount", mount, "--env", f"MODELPORT_API_KEY_FILE={_KEYS}"]
    elif settings.env_file:
        flags += ["--env-file", settings.env_file]
    else:
        flags += ["--env", "MODELPORT_ALLOW_ANONYMOUS=1"]
    return flags


def _cores(settings: DockerSettings, sizing: manifests.Sizing) -> str:
    return f"{sizing.cores:g}" if settings.cpus else str(sizing.most_cores)


def _final(service: Service, settings: DockerSettings, flags: list[str]) -> list[str]:
    """The flags of the container that stays."""
    address = _ANYBODY if settings.public else _HERE
    published = ["--publish", f"{address}:{settings.port}:{PORT}"]
    return ["--name", service.name, "--restart", settings.restart, *published, *flags]


def _calls(
    service: Service, settings: DockerSettings, flags: list[str], image: str
) -> tuple[Call, ...]:
    engine, name = settings.engine, service.name
    candidate, previous = f"{name}-candidate", f"{name}-previous"
    ready = {"for": "ready", "seconds": int(max(60.0, 20 * service.footprint.start))}

    def call(identity: str, operation: str, parameters: dict[str, Any], purpose: str,
             phase: str, **more: Any) -> Call:  # fmt: skip
        return Call(identity, engine, operation, parameters, purpose, phase=phase, **more)

    def remove(which: str, purpose: str, phase: str = "prepare") -> Call:
        parameters = {"name": which, "service": name}
        return call(f"remove-{which}", "remove", parameters, purpose, phase)

    if settings.image:
        get = call("get", "pull", {"image": image}, "pull the image, unless it is here", "prepare")
    else:
        archive = settings.archive or ARCHIVE
        get = call(
            "get", "load", {"archive": archive}, "load the image from its archive", "prepare"
        )
    found = Result("get", "image")

    trial = ["--name", candidate, "--publish", f"{_HERE}::{PORT}", *flags]
    again = call(
        "candidate-again", "rerun",
        {"name": candidate, "service": name, "flags": trial, "image": found, "port": PORT},
        "start it in place of an earlier one", "serve",
        undo=remove(candidate, "remove the new version's container"), wait=ready,
    )  # fmt: skip
    return (
        get,
        call(
            "candidate", "run",
            {"name": candidate, "service": name, "flags": trial, "image": found, "port": PORT},
            "start the new version beside the old one, on a free port", "serve",
            otherwise=again, wait=ready,
            undo=remove(candidate, "remove the new version's container"),
        ),
        call(
            "candidate-done", "remove", {"name": candidate, "service": name, "missing": "ok"},
            "remove the verified container: its memory is needed", "shift",
        ),
        call(
            "retire", "retire", {"name": name, "as": previous, "service": name},
            "stop the old version, and keep it", "shift",
            undo=call(
                "restore", "restore",
                {"name": Result("retire", "retired"), "as": name, "service": name},
                "start the old version again", "shift",
            ),
        ),
        call(
            "run", "run",
            {
                "name": name, "service": name, "image": found, "port": PORT,
                "flags": _final(service, settings, flags),
            },
            "start the new version under the name and at the port", "shift",
            wait=ready, undo=remove(name, f"remove the container {name}"),
        ),
        call(
            "previous-done", "remove", {"name": previous, "service": name, "missing": "ok"},
            "remove the old version", "shift", undo=remove(previous, "remove what was kept"),
        ),
    )  # fmt: skip


def _notes(
    service: Service, settings: DockerSettings, sizing: manifests.Sizing, unpinned: str
) -> tuple[str, ...]:
    notes = [unpinned] if unpinned else []
    notes.append(manifests.sizing_note(service.footprint, sizing, settings.rps))
    if not _has_key(settings):
        notes.append(
            "without a key: whoever runs programs on this machine, or containers in the same "
            "network, may ask; --set key-file=… closes it"
        )
    if settings.key_file:
        notes.append(
            f"{settings.key_file} has to be readable for the user {USER.partition(':')[0]} of the "
            f"container: chown {USER} and chmod 400"
        )
    if settings.env_file:
        notes.append(f"{settings.engine} inspect shows the key in env-file; key-file hides it")
    if settings.public:
        notes.append("without TLS keys can be read on the way: the target compose has a front")
    notes.append(
        "about as long as the server takes to start nobody answers while versions change; the "
        f"old one is kept as {service.name}-previous until the new one is ready"
    )
    if "@sha256:" not in settings.base:
        notes.append("the Dockerfile's base is named by a tag: --set base=…@sha256:… pins it")
    return tuple(notes)


def _shell(words: list[str]) -> str:
    return shlex.join(words)
