"""A session with one repository of a registry: login, redirects, errors in its own words.

Sources: https://distribution.github.io/distribution/spec/auth/token/ and ``…/auth/oauth/`` (the
two ways to a Bearer token), RFC 9110 §11 (challenges),
https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#error-codes.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any, Final
from urllib.parse import urlencode, urljoin

from modelport.core.errors import PlatformError
from modelport.deploy.images.credentials import Credential, config_path, find_credential
from modelport.deploy.images.exchange import (
    Body,
    TransientError,
    bare_url,
    exchange,
    split_url,
    words,
)
from modelport.deploy.images.reference import Reference

_MOST_HOPS: Final = 5
_MOST_JSON: Final = 16 << 20
_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_SCHEME: Final = re.compile(r"(?:^|,)\s*(Basic|Bearer)(?=\s|,|$)", re.IGNORECASE)
_PARAMETER: Final = re.compile(r'([a-zA-Z]+)="((?:[^"\\]|\\.)*)"')
#: Registries other than those on this machine that may be asked without TLS.
INSECURE: Final = "MODELPORT_INSECURE_REGISTRIES"


class Session:
    """Requests to one repository.

    Parameters
    ----------
    reference : Reference
    actions : str
        What a token is asked for: ``pull`` or ``pull,push``.
    insecure : bool
        Plain HTTP; registries on this machine, and those that `INSECURE` names, always are.
    others : collection of str
        Repositories of the same registry that blobs are mounted from.
    pause : callable
        Waits between attempts.
    """

    def __init__(
        self,
        reference: Reference,
        actions: str,
        *,
        insecure: bool = False,
        others: Collection[str] = (),
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        named = {name.strip() for name in os.environ.get(INSECURE, "").split(",")}
        self.plain = insecure or reference.loopback or reference.registry in named
        self.reference = reference
        self.pause = pause
        self._scopes = [f"repository:{reference.repository}:{actions}"]
        self._scopes += [f"repository:{other}:pull" for other in sorted(others)]
        self._origin = f"{'http' if self.plain else 'https'}://{reference.host}"
        self._authorization = ""
        self._user = ""

    def url(self, path: str) -> str:
        """Below the repository: ``/manifests/latest``."""
        return f"{self._origin}/v2/{self.reference.repository}{path}"

    @contextmanager
    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Iterator[HTTPResponse]:
        """Send a request, logged in where that is asked for, wherever redirects lead.

        Our credentials go to the registry only: storage that it redirects to has signed URLs.
        """
        asked = False
        for _ in range(_MOST_HOPS + 1):
            own = self._is_ours(url)
            sent = dict(headers or {})
            if own and self._authorization:
                sent["Authorization"] = self._authorization
            with exchange(method, url, sent, body) as response:
                if response.status == 401 and own and not asked:
                    asked = True
                    self._log_in(response)
                    continue
                if response.status in _REDIRECTS and response.headers.get("Location"):
                    url = self.resolve(url, response.headers["Location"])
                    continue
                yield response
                return
        raise PlatformError(f"{self.reference.registry} redirects without end", where=bare_url(url))

    def resolve(self, url: str, location: str) -> str:
        """The URL in a ``Location``, which must not lead away from TLS."""
        try:
            target = urljoin(url, location)
        except ValueError:
            raise PlatformError(f"{self.reference.registry} redirects to nowhere") from None
        scheme = split_url(target).scheme
        if scheme != "https" and not (self.plain and scheme == "http"):
            raise PlatformError(
                f"{self.reference.registry} redirects from TLS to {scheme}",
                where=bare_url(target),
                hint="a proxy in front of the registry has to send X-Forwarded-Proto: https",
            )
        return target

    def refuse(self, response: HTTPResponse, doing: str) -> PlatformError:
        """The error of an answer that was not expected, with the registry's own words."""
        told = f"{self.reference.registry} refused to {doing}: {response.status} {words(response)}"
        if response.status not in (401, 403):
            return PlatformError(told, hint=_HINTS.get(response.status, ""))
        if self._user:
            return PlatformError(
                told, hint=f"{self._user} was logged in, from {config_path()}: is the password "
                "right, and may this user do it?",
            )  # fmt: skip
        return PlatformError(
            told, hint=f"{config_path()} has nothing for it: docker login {self.reference.registry}"
        )

    def _is_ours(self, url: str) -> bool:
        return _origin(url) == _origin(self._origin)

    def _log_in(self, response: HTTPResponse) -> None:
        """Find what the registry's challenge asks for; later requests carry it."""
        challenges = _challenges(", ".join(response.headers.get_all("WWW-Authenticate", [])))
        credential = find_credential(self.reference.registry)
        self._user = (credential.user or "a token") if credential else ""
        if "bearer" in challenges:
            self._authorization = f"Bearer {self._any_token(challenges['bearer'], credential)}"
        elif "basic" in challenges and credential is not None and not credential.refresh:
            self._authorization = credential.basic

    def _any_token(self, challenge: Mapping[str, str], credential: Credential | None) -> str:
        """A token, with the right to read other repositories if that is given."""
        if len(self._scopes) > 1:
            try:
                return self._token(challenge, credential)
            except TransientError:
                raise
            except PlatformError:
                del self._scopes[1:]
        return self._token(challenge, credential)

    def _token(self, challenge: Mapping[str, str], credential: Credential | None) -> str:
        realm = challenge.get("realm", "")
        parts = split_url(realm)
        host = parts.netloc
        if parts.scheme != "https" and not (self.plain and parts.scheme == "http"):
            raise PlatformError(
                f"{self.reference.registry} asks for a login at {realm!r}, which has no TLS"
            )
        query: dict[str, Any] = {"service": challenge.get("service", "")}
        headers: dict[str, str] = {}
        if credential and credential.refresh:
            query |= {"grant_type": "refresh_token", "client_id": "modelport"}
            query |= {"refresh_token": credential.refresh, "scope": " ".join(self._scopes)}
            form = urlencode(query).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            request = exchange("POST", realm, headers, (lambda: [form], len(form)))
        else:
            if credential:
                headers["Authorization"] = credential.basic
            separator = "&" if "?" in realm else "?"
            asked = urlencode({**query, "scope": self._scopes}, doseq=True)
            request = exchange("GET", f"{realm}{separator}{asked}", headers)
        with request as response:
            if response.status != 200:
                raise self.refuse(response, f"log in at {host}")
            answer = read_json(response)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token or not token.isprintable():
            raise PlatformError(f"{host} answered without a token")
        return token


_HINTS: Final = {
    404: "does the repository exist? Some registries want it to be created first",
    413: "a proxy in front of the registry limits request bodies: nginx's client_max_body_size",
    429: "the registry limits how often it is asked: log in, or wait",
}


def read_all(response: HTTPResponse, most: int = _MOST_JSON) -> bytes:
    """A whole body, which must not be longer than `most`."""
    content = response.read(most + 1)
    if len(content) > most:
        raise PlatformError(f"an answer of more than {most >> 20} MiB")
    if response.length:  # a body that ended early, which read(n) does not tell
        raise TransientError("the answer ended early")
    return content


def read_json(response: HTTPResponse) -> dict[str, Any]:
    """A body that has to be a JSON object."""
    try:
        document = json.loads(read_all(response))
    except ValueError:
        raise PlatformError("an answer that is not JSON: is it a registry?") from None
    if not isinstance(document, dict):
        raise PlatformError("an answer that is no JSON object: is it a registry?")
    return document


def _challenges(text: str) -> dict[str, dict[str, str]]:
    """Challenges by scheme in lower case, with their parameters."""
    found: dict[str, dict[str, str]] = {}
    matches = list(_SCHEME.finditer(text))
    for index, match in enumerate(matches):
        end = matches[index + 1].start() if index + 1 < len(matches) else len(text)
        pairs = _PARAMETER.findall(text[match.end() : end])
        found.setdefault(match[1].lower(), {key.lower(): value for key, value in pairs})
    return found


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Who is asked: a port that goes without saying is often not said."""
    parts = split_url(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
