"""The command line of Docker or Podman, whose own words errors have.

Only containers that carry our label are stopped or removed: another one of the same name is
somebody else's.

Sources: https://docs.docker.com/reference/cli/docker/, https://docs.podman.io/.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelport.core.errors import (
    ConflictError,
    InputError,
    ModelportError,
    NotFoundError,
    PlatformError,
)
from modelport.deploy.base import Call, Progress
from modelport.deploy.images.config import HEALTH_CHECK
from modelport.deploy.images.reference import parse_reference

_ENGINES: Final = ("docker", "podman")
_LABEL: Final = "io.modelport.service"
_SECONDS: Final = 120
_PULL_SECONDS: Final = 1800
_POLL_SECONDS: Final = 0.2
_LAST_LINES: Final = 20
_MISSING: Final = ("no such container", "no such object", "no container with name", "no such image")
_CONFLICT: Final = "is already in use"


class CommandApplier:
    """Runs the engine's command line, which finds its daemon by itself."""

    name = "command"

    def connect(self, connection: Mapping[str, str]) -> CommandConnection:
        """Find the engine, and ask it whether it works.

        Raises
        ------
        PlatformError
            When it is not installed or does not answer, in its own words.
        """
        engine = connection.get("engine", "")
        if engine not in _ENGINES:
            raise InputError(f"not an engine: {engine!r}", hint=f"of: {', '.join(_ENGINES)}")
        program = shutil.which(engine)
        if program is None:
            other = _ENGINES[1 - _ENGINES.index(engine)]
            hint = f"--set engine={other}" if shutil.which(other) else f"install {engine}"
            raise PlatformError(f"{engine} is not installed", hint=hint)
        opened = CommandConnection(engine, program)
        opened.run("version")
        return opened


class CommandConnection:
    """One engine.

    Parameters
    ----------
    engine : str
        What messages call it.
    program : str
        Its path.
    """

    def __init__(self, engine: str, program: str) -> None:
        self._engine, self._program = engine, program

    def call(self, call: Call, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `modelport.deploy.base.Connection.call`."""
        operations = {
            "pull": self._pull,
            "load": self._load,
            "run": self._start,
            "rerun": self._restart,
            "remove": self._remove,
            "retire": self._retire,
            "restore": self._restore,
            "inspect": self._state,
        }
        return operations[call.operation](parameters)

    def wait(
        self, call: Call, parameters: Mapping[str, Any], answer: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """Wait until the container's own health check passes: its golden records are right."""
        name, seconds = str(parameters["name"]), float(call.wait["seconds"])
        report(f"waiting for {name} to be ready")
        end = time.monotonic() + seconds
        while True:
            state = self._inspect(name)["State"]
            # An engine that starts it again and again never shows it as ended.
            if not state.get("Running"):
                raise PlatformError(
                    f"{name} ended with {state.get('ExitCode')}: {self._last_words(name)}"
                )
            if self._run(["exec", name, *HEALTH_CHECK], _SECONDS).returncode == 0:
                return {}
            if time.monotonic() > end:
                raise PlatformError(
                    f"{name} was not ready after {seconds:.0f} s: {self._last_words(name)}"
                )
            time.sleep(_POLL_SECONDS)

    def headers(self) -> Mapping[str, str]:
        """See `modelport.deploy.base.Connection.headers`: the server's own key is all it asks."""
        return {}

    def run(self, *arguments: str, seconds: float = _SECONDS) -> str:
        """What a command of the engine prints.

        Raises
        ------
        ConflictError, NotFoundError, PlatformError
            In its own words.
        """
        done = self._run(arguments, seconds)
        if done.returncode == 0:
            return done.stdout.strip()
        said = _words(done.stderr) or f"exit code {done.returncode}"
        lower = said.lower()
        if "name" in lower and _CONFLICT in lower:  # ports and networks are in use in other words
            raise ConflictError(f"{self._engine}: {said}")
        if any(text in lower for text in _MISSING):
            raise NotFoundError("container", arguments[-1], where=self._engine)
        raise PlatformError(f"{self._engine} {arguments[0]}: {said}")

    def _run(self, arguments: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603 - the engine, with the plan's arguments
                [self._program, *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                text=True, errors="replace", timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PlatformError(
                f"{self._engine} {arguments[0]} gave no answer in {seconds:.0f} s"
            ) from None
        except OSError as error:
            raise PlatformError(f"{self._engine}: {error.strerror}") from error

    def _pull(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        image = str(parameters["image"])
        if self._run(["image", "inspect", image], _SECONDS).returncode != 0:
            # Docker asks registries on this machine without TLS, and so do our pushes.
            plain = self._engine == "podman" and parse_reference(image).loopback
            flags = ["--tls-verify=false"] if plain else []
            self.run("pull", "--quiet", *flags, image, seconds=_PULL_SECONDS)
        return {"image": image}

    def _load(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        archive = str(parameters["archive"])
        said = self.run("load", "--quiet", "--input", archive, seconds=_PULL_SECONDS)
        # "Loaded image: NAME:TAG" or "Loaded image ID: sha256:…"
        return {"image": said.split()[-1]}

    def _start(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        name = str(parameters["name"])
        try:
            identity = self.run("run", *parameters["flags"], str(parameters["image"]))
            ports = self.run("port", name, f"{parameters['port']}/tcp")
        except (PlatformError, NotFoundError):
            # An engine that cannot start a container leaves it created.
            if self._owned(name, str(parameters["service"])):
                self._run(["rm", "--force", name], _SECONDS)
            raise
        # Podman and Docker print one line per address.
        port = ports.splitlines()[0].rpartition(":")[2] if ports else str(parameters["port"])
        return {"id": identity.split()[-1], "url": f"http://127.0.0.1:{port}"}

    def _restart(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        self._remove(parameters)
        return self._start(parameters)

    def _remove(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        name = str(parameters["name"])
        try:
            self._expect_ours(name, str(parameters["service"]))
        except NotFoundError:
            if parameters.get("missing") == "ok":
                return {}
            raise
        self._stop(name)
        self.run("rm", "--force", name)
        return {"removed": name}

    def _retire(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Stop a container and put it aside; without one, one that was put aside counts."""
        name, aside = str(parameters["name"]), str(parameters["as"])
        service = str(parameters["service"])
        try:
            self._expect_ours(name, service)
        except NotFoundError:
            return {"retired": aside if self._owned(aside, service) else ""}
        if self._owned(aside, service):
            self.run("rm", "--force", aside)
        self._stop(name)
        try:
            self.run("rename", name, aside)
        except ModelportError:
            self._run(["start", name], _SECONDS)
            raise
        return {"retired": aside}

    def _restore(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        aside, name = str(parameters["name"]), str(parameters["as"])
        if aside:
            self.run("rename", aside, name)
            self.run("start", name)
        return {"restored": name if aside else ""}

    def _state(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        found = self._inspect(str(parameters["name"]))
        state, config = found["State"], found["Config"]
        healthy = state.get("Health") or state.get("Healthcheck") or {}
        return {
            "name": str(found["Name"]).lstrip("/"),
            "image": config.get("Image", ""),
            "package": (config.get("Labels") or {}).get("io.modelport.package", ""),
            "status": state.get("Status", ""),
            "health": healthy.get("Status", ""),
            "restarts": found.get("RestartCount", 0),
            "started": state.get("StartedAt", ""),
        }

    def _stop(self, name: str) -> None:
        """Let it finish its requests."""
        self.run("stop", name)

    def _inspect(self, name: str) -> dict[str, Any]:
        text = self.run("container", "inspect", name)
        found: dict[str, Any] = json.loads(text)[0]
        return found

    def _expect_ours(self, name: str, service: str) -> None:
        labels = self._inspect(name)["Config"].get("Labels") or {}
        if labels.get(_LABEL) != service:
            raise PlatformError(
                f"the container {name} was not made by modelport for {service}",
                hint="--set name=… takes another name, or remove it yourself",
            )

    def _owned(self, name: str, service: str) -> bool:
        try:
            self._expect_ours(name, service)
        except (NotFoundError, PlatformError):
            return False
        return True

    def _last_words(self, name: str) -> str:
        done = self._run(["logs", "--tail", str(_LAST_LINES), name], _SECONDS)
        return (done.stdout + done.stderr).strip() or "it said nothing"


def _words(text: str) -> str:
    """An engine's message without its usage, its log lines and its prefixes."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("time=", "See '", "Run '", "Usage:"))]
    return " ".join(lines).removeprefix("Error: ").removeprefix("docker: ")
