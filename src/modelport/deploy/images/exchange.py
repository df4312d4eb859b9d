"""One HTTP request and its answer, on a connection of its own; and when to try again.

The standard library's client, used directly: an answer that comes while the body is still being
sent (413 of a proxy, 401) is read, which ``urllib`` loses.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from functools import cache
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from modelport.core.errors import PlatformError

Value = TypeVar("Value")

#: A body that can be sent again, and its length.
Body = tuple[Callable[[], Iterable[bytes]], int]

_SECONDS: Final = 60.0
_ATTEMPTS: Final = 5
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_TRANSIENT: Final = (408, 425, 429, 500, 502, 503, 504)
_MOST_ERROR: Final = 64 << 10
_MOST_PLAIN: Final = 200
_USER_AGENT: Final = "modelport"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class TransientError(PlatformError):
    """Worth another attempt.

    Parameters
    ----------
    message : str
    after : float
        Seconds that the server asks to wait.
    """

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


def again(action: Callable[[], Value], pause: Callable[[float], None] = time.sleep) -> Value:
    """The value of `action`, which is tried five times when it raises `TransientError`."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return action()
        except TransientError as error:
            wait = max(_FIRST_PAUSE * 2**attempt, error.after)
            pause(min(wait, _LONGEST_PAUSE))
    try:
        return action()
    except TransientError as error:
        raise PlatformError(f"{error.message} ({_ATTEMPTS} attempts)") from error


@contextmanager
def exchange(
    method: str, url: str, headers: Mapping[str, str], body: Body | None = None
) -> Iterator[http.client.HTTPResponse]:
    """Send a request, and close the connection when its answer has been used.

    Raises
    ------
    TransientError
        When the connection breaks, also while the answer is read, or for the statuses that
        ask to come back.
    PlatformError
        When there is no way to the server.
    """
    parts = urlsplit(url)
    connection, target = _connect(parts)
    sent = {"User-Agent": _USER_AGENT, "Host": parts.netloc, **headers}
    try:
        chunks = None
        if body is not None:
            chunks, sent["Content-Length"] = body[0](), str(body[1])
        try:
            connection.request(method, target, body=chunks, headers=sent)
        except (BrokenPipeError, ConnectionResetError):
            if connection.sock is None:
                raise
        response = connection.getresponse()
        if response.status in _TRANSIENT:
            raise TransientError(
                f"{parts.netloc} answered {response.status} {words(response)}".rstrip(),
                _after(response.headers),
            )
        yield response
    except ssl.SSLCertVerificationError as error:
        raise PlatformError(
            f"the certificate of {parts.netloc} is not trusted: {error.verify_message}",
            hint="SSL_CERT_FILE=… names the certificates of your own authority",
        ) from None
    except (ConnectionRefusedError, OSError, http.client.HTTPException) as error:
        raise _broken(parts, error) from error
    finally:
        connection.close()


def words(response: http.client.HTTPResponse) -> str:
    """What an error's body says: ``DENIED: requested access to the resource is denied``."""
    body = response.read(_MOST_ERROR)
    try:
        errors = json.loads(body)["errors"]
        said = [f"{error['code']}: {error.get('message', '')}".strip(": ") for error in errors]
    except (ValueError, KeyError, TypeError, AttributeError):
        plain = body[:_MOST_PLAIN].decode("utf-8", "replace").strip()
        said = [response.reason if "<" in plain or not plain else plain]
    return "; ".join(said)


def _broken(parts: SplitResult, error: Exception) -> PlatformError:
    lost = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError, TimeoutError)
    early = (http.client.IncompleteRead, http.client.BadStatusLine, ssl.SSLEOFError)
    if isinstance(error, lost + early):
        why = "timed out" if isinstance(error, TimeoutError) else "broke the connection"
        return TransientError(f"{parts.netloc} {why}")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    hint = ""
    if isinstance(error, ssl.SSLError):
        hint = "is it a registry without TLS? MODELPORT_INSECURE_REGISTRIES=HOST[,HOST] allows it"
    return PlatformError(f"cannot reach {parts.netloc}: {reason}", hint=hint)


def _connect(parts: SplitResult) -> tuple[http.client.HTTPConnection, str]:
    """A connection, through the proxy of the environment if there is one, and the request line."""
    host, port = parts.hostname or "", parts.port
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    proxy = _proxy(parts)
    if proxy is None:
        if parts.scheme == "https":
            return http.client.HTTPSConnection(
                host, port, timeout=_SECONDS, context=_context()
            ), target
        return http.client.HTTPConnection(host, port, timeout=_SECONDS), target
    way = proxy.hostname or "", proxy.port or 3128
    if parts.scheme == "https":
        tunnel = http.client.HTTPSConnection(*way, timeout=_SECONDS, context=_context())
        tunnel.set_tunnel(host, port or 443)
        return tunnel, target
    return http.client.HTTPConnection(*way, timeout=_SECONDS), parts.geturl()


def _proxy(parts: SplitResult) -> SplitResult | None:
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all", "")
    if not proxy or host in _LOOPBACK or urllib.request.proxy_bypass(parts.netloc):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


@cache
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _after(headers: Message) -> float:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0
