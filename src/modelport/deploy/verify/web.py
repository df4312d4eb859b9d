"""Requests over HTTP, and what answers that are none of the protocol's mean."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from modelport.core.errors import (
    DeadlineError,
    EngineError,
    InputError,
    LimitError,
    ModelportError,
    UnauthenticatedError,
    UnavailableError,
)
from modelport.deploy.verify.base import TIMEOUT_SECONDS, Answer, Ask

#: Most bytes of an answer that are read: far more than any platform lets through.
_LONGEST: Final = 256 << 20
#: Characters of a foreign answer that are shown.
_SHOWN: Final = 200
#: Not now: what is starting, overloaded or shutting down answers one of these.
_LATER: Final = (429, 502, 503, 504)

#: Headers in which front ends tell what the container itself answered: Azure ML's.
_INNER: Final = ("ms-azureml-model-error-statuscode", "ms-azureml-model-error-reason")


class WebCarrier:
    """One connection to one server, opened again when the server has closed it.

    Redirects are not followed: the key is for this server alone.

    Parameters
    ----------
    url : str
    headers : mapping of str to str
        Sent with every request: the key.
    timeout : float
        Seconds without a byte after which it is given up.

    Raises
    ------
    InputError
        When `url` is no address of a server.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise InputError(f"the address has a wrong port: {url}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"not the address of a server: {url!r}", hint="http://host:port/…")
        if parts.username or parts.password:
            raise InputError(
                "the address holds a password, which others may see",
                hint="set MODELPORT_API_KEY instead",
            )
        self.url = url
        self._headers = dict(headers or {})
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname, port, timeout=timeout)
        self._used = False

    def send(self, ask: Ask) -> Answer:
        """See `modelport.deploy.verify.base.Carrier.send`."""
        try:
            return self._send(ask)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # A kept connection may have been closed meanwhile; a fresh one may not.
            if not self._used:
                raise
        finally:
            self._used = True
        self.close()
        return self._send(ask)

    def _send(self, ask: Ask) -> Answer:
        start = time.perf_counter()
        headers = {"accept-encoding": "identity", **self._headers, **ask.headers}
        self._connection.request(ask.method, ask.path, ask.body or None, headers)
        response = self._connection.getresponse()
        body = response.read(_LONGEST + 1)
        if len(body) > _LONGEST:
            self.close()
            raise EngineError(f"{self.url} answered more than {_LONGEST} bytes")
        seconds = time.perf_counter() - start
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, body, seconds)

    def close(self) -> None:
        """See `modelport.deploy.verify.base.Carrier.close`."""
        self._connection.close()


def send(carrier: Any, ask: Ask, url: str) -> Answer:
    """Ask, with every failure of the network as one of ours.

    Raises
    ------
    UnavailableError
        When nobody answers.
    DeadlineError
        When the answer takes too long.
    """
    try:
        answer: Answer = carrier.send(ask)
    except TimeoutError as error:
        raise DeadlineError(
            f"no answer from {url} within {TIMEOUT_SECONDS:g} s", hint=_doctor(url)
        ) from error
    except ssl.SSLError as error:
        raise UnavailableError(
            f"TLS fails with {url}: {error.reason or error}", hint=_doctor(url)
        ) from error
    except (OSError, http.client.HTTPException) as error:
        text = str(error) or type(error).__name__
        raise UnavailableError(f"no answer from {url}: {text}", hint=_doctor(url)) from error
    return answer


def check_status(answer: Answer, url: str) -> None:
    """Raise what an answer's status means, unless it is 200.

    Raises
    ------
    ModelportError
        `UnauthenticatedError` for 401 and 403, `LimitError` for 413, `UnavailableError` for what
        may be over soon, `EngineError` for other failures of the server, else `InputError`.
    """
    if answer.status == 200:
        return
    message = f"{url} answered {answer.status}: {said(answer)}"
    inner = [answer.headers[name] for name in _INNER if name in answer.headers]
    if inner:
        message += f" (the container itself: {' '.join(inner)})"
    status = answer.status
    if status in (401, 403):
        raise UnauthenticatedError(
            message, hint="set MODELPORT_API_KEY to a key or token that this endpoint takes"
        )
    kind: type[ModelportError] = InputError
    if status == 413:
        kind = LimitError
    elif status in _LATER:
        kind = UnavailableError
    elif status >= 500 or status == 424:  # SageMaker and Azure ML: the container failed
        kind = EngineError
    if 300 <= status < 400:
        message += f"; it points to {answer.headers.get('location', 'nowhere')}"
    raise kind(message, hint=_doctor(url))


def read_json(answer: Answer, url: str) -> Any:
    """The JSON of an answer; NaN and infinities may be bare tokens.

    Raises
    ------
    EngineError
        When it is none.
    """
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        kind = answer.headers.get("content-type", "no content type")
        raise EngineError(
            f"{url} answered {answer.status} with {kind}, which is no JSON: {said(answer)}",
            hint=_doctor(url),
        ) from error


def said(answer: Answer) -> str:
    """What an answer says, in one short line."""
    text = " ".join(answer.body[: 4 * _SHOWN].decode("utf-8", "replace").split())
    shown = "".join(c if c.isprintable() else "?" for c in text[:_SHOWN])
    return (shown + "…" if len(text) > _SHOWN else shown) or "nothing"


def _doctor(url: str) -> str:
    return f"modelport doctor {url} looks for the cause"
