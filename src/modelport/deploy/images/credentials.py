"""Credentials of registries, from where ``docker login`` keeps them.

Sources: https://docs.docker.com/reference/cli/docker/login/#credential-stores and the protocol of
https://github.com/docker/docker-credential-helpers (the server on stdin, JSON on stdout).
Nothing here is ever logged or part of a message, except the user's name.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from modelport.core.errors import InputError, PlatformError
from modelport.deploy.images.reference import DOCKER_HUB

#: Under this key Docker keeps what belongs to Docker Hub.
_HUB_KEY: Final = "https://index.docker.io/v1/"
#: A helper answers so when it knows nothing of a server.
_UNKNOWN: Final = "credentials not found"
#: The user's name where the secret is a refresh token.
_TOKEN_USER: Final = "<token>"  # noqa: S105 - a fixed word of the protocol, no password
_HELPER: Final = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_SECONDS: Final = 30


@dataclass(frozen=True)
class Credential:
    """Who we are to a registry.

    Parameters
    ----------
    user : str
    secret : str
        Its password.
    refresh : str
        A token to be exchanged for another; then the other two are not used.
    """

    user: str
    secret: str = field(repr=False)
    refresh: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """As the value of ``Authorization``."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()


def config_path(environment: Mapping[str, str] | None = None) -> Path:
    """Where Docker's configuration is: in ``DOCKER_CONFIG``, else in ``~/.docker``."""
    environment = os.environ if environment is None else environment
    folder = environment.get("DOCKER_CONFIG", "")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def find_credential(registry: str) -> Credential | None:
    """What the Docker configuration has for a registry; None: nothing.

    Its own helper comes first, then the helper for all, then what the file itself holds.

    Raises
    ------
    InputError
        When the file cannot be read.
    PlatformError
        When a helper fails.
    """
    path = config_path()
    config = _read(path)
    key = _HUB_KEY if registry == DOCKER_HUB else registry
    names = (registry, _HUB_KEY, "index.docker.io") if registry == DOCKER_HUB else (registry,)
    helpers = _at(config, "credHelpers")
    own = next((helpers[name] for name in names if helpers.get(name)), None)
    helper = own or config.get("credsStore")
    if isinstance(helper, str) and helper:
        found = _ask_helper(helper, key, path)
        if found is not None:
            return found
    wanted = {registry, "index.docker.io"} if registry == DOCKER_HUB else {registry}
    for name, entry in _at(config, "auths").items():
        if _host(name) in wanted and isinstance(entry, dict):
            found = _from_entry(entry, path)
            if found is not None:
                return found
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        # The text of a JSON error shows none of the file's content.
        raise InputError(f"cannot read Docker's configuration: {error}", where=str(path)) from None
    return config if isinstance(config, dict) else {}


def _at(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _host(name: str) -> str:
    """The host in a key: ``registry.example`` of ``https://registry.example/v1/``."""
    return re.sub(r"^https?://", "", name).partition("/")[0].lower()


def _from_entry(entry: dict[str, Any], path: Path) -> Credential | None:
    user, secret = str(entry.get("username", "")), str(entry.get("password", ""))
    if entry.get("auth"):
        try:
            pair = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, ValueError):
            raise InputError("an 'auth' is not base64", where=str(path)) from None
        user, _, secret = pair.partition(":")
    refresh = str(entry.get("identitytoken", ""))
    if not refresh and not user:
        return None
    return Credential(user, secret.rstrip("\0"), refresh)


def _ask_helper(helper: str, server: str, path: Path) -> Credential | None:
    program = f"docker-credential-{helper}"
    if not _HELPER.fullmatch(helper):
        raise InputError(f"not the name of a credential helper: {helper!r}", where=str(path))
    try:
        done = subprocess.run(  # noqa: S603 - a helper that the user's own configuration names
            [program, "get"], input=server, capture_output=True, text=True,
            timeout=_HELPER_SECONDS, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise InputError(
            f"{program} is not installed", where=str(path), hint="install it, or docker login again"
        ) from None
    except (OSError, subprocess.SubprocessError) as error:
        late = isinstance(error, subprocess.TimeoutExpired)
        why = f"gave no answer in {_HELPER_SECONDS} s" if late else type(error).__name__
        raise PlatformError(f"{program} failed: {why}", where=str(path)) from None
    if done.returncode != 0:
        # On failure a helper writes its reason, never a secret.
        said = (done.stdout or done.stderr).strip().splitlines()[:1]
        if said and _UNKNOWN in said[0].lower():
            return None
        raise PlatformError(
            f"{program} failed: {said[0] if said else done.returncode}", where=str(path)
        )
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise PlatformError(f"{program} gave an answer that is none", where=str(path)) from None
    return Credential("", "", secret) if user == _TOKEN_USER else Credential(user, secret)
