"""Requests over HTTP, and what answers that are none of the protocol's mean."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

from modelport.core.errors import (
    DeadlineError,
    EngineError,
    InputError,
    LimitError,
    ModelportError,
    UnauthenticatedError,
    UnavailableError,
)
from modelport.deploy.verify.address import read_server
from modelport.deploy.verify.base import TIMEOUT_SECONDS, Answer, Ask

#: Most bytes of an answer that are read: far more than any platform lets through.
_LONGEST: Final = 256 << 20
_PART: Final = 1 << 16
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
        Seconds after which an answer is given up.

    Raises
    ------
    InputError
        When `url` is no address of a server.
    UnauthenticatedError
        When a header holds what no header can carry.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        parts = read_server(url)
        self.url = url
        self.timeout = timeout
        self._headers = _sendable(headers or {})
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout)
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
        try:
            response = self._asked(
                {"accept-encoding": "identity", **self._headers, **ask.headers}, ask
            )
            body = self._read(response, start + self.timeout)
        except BaseException:
            self.close()  # half a request or half an answer: the connection is of no more use
            raise
        seconds = time.perf_counter() - start
        if response.status >= 400:  # the rest of the request may not have been read
            self.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, body, seconds)

    def _asked(self, headers: Mapping[str, str], ask: Ask) -> http.client.HTTPResponse:
        try:
            self._connection.request(ask.method, ask.path, ask.body or None, headers)
        except (BrokenPipeError, ConnectionResetError):
            # Who takes no request of this size may say so, and hang up, while it is being sent.
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self._connection.getresponse()
            raise
        return self._connection.getresponse()

    def _read(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        """The body; who sends a byte now and then does not hold us for ever."""
        parts, size, left = [], 0, response.length  # None: to the end, or in chunks
        while left is None or size < left:
            part = response.read1(_PART if left is None else min(_PART, left - size))
            if not part and left is not None:
                raise http.client.IncompleteRead(b"", left - size)
            if not part:
                break
            parts.append(part)
            size += len(part)
            if size > _LONGEST:
                raise EngineError(f"{self.url} answered more than {_LONGEST} bytes")
            if time.perf_counter() > deadline:
                raise TimeoutError
        response.close()
        return b"".join(parts)

    def close(self) -> None:
        """See `modelport.deploy.verify.base.Carrier.close`."""
        self._connection.close()


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """`headers`; their values are keys and tokens, which no message may hold."""
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise UnauthenticatedError(
                f"the key holds a character that no header can carry ({name})",
                hint="look at MODELPORT_API_KEY for a line break, a blank or a letter beyond ASCII",
            )
    return dict(headers)


def own_key() -> str:
    """The key to show: that of the variable alone.

    A settings file here is the server's, and whoever is asked has no business with its key.
    """
    return os.environ.get("MODELPORT_API_KEY", "")


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
            f"no answer from {url} within {getattr(carrier, 'timeout', TIMEOUT_SECONDS):g} s",
            hint=_doctor(url),
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
        message += f" (the container itself: {shown(' '.join(inner))})"
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
        message += f"; it points to {shown(answer.headers.get('location', 'nowhere'))}"
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
        kind = shown(answer.headers.get("content-type", "no content type"))
        raise EngineError(
            f"{url} answered {answer.status} with {kind}, which is no JSON: {said(answer)}",
            hint=_doctor(url),
        ) from error


def said(answer: Answer) -> str:
    """What an answer says, in one short line."""
    return shown(answer.body[: 4 * _SHOWN].decode("utf-8", "replace")) or "nothing"


def shown(text: object) -> str:
    """What a stranger sent, in one short line that does nothing to a terminal."""
    line = " ".join(str(text).split())
    plain = "".join(c if c.isprintable() else "?" for c in line[:_SHOWN])
    return plain + "…" if len(line) > _SHOWN else plain


def _doctor(url: str) -> str:
    return f"modelport doctor {url} looks for the cause"
