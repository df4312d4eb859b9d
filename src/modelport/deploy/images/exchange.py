"""One HTTP request and its answer, on a connection of its own; and when to try again.

The standard library's client, used directly: an answer that comes while the body is still being
sent (413 of a proxy, 401) is read, which ``urllib`` loses.
"""

from __future__ import annotations

import base64
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
from urllib.parse import SplitResult, unquote, urlsplit

from modelport.core.errors import PlatformError

Value = TypeVar("Value")

#: A body that can be sent again, and its length.
Body = tuple[Callable[[], Iterable[bytes]], int]

_CONNECT_SECONDS: Final = 15.0
_SECONDS: Final = 60.0
#: Bytes a second: so fast at least does a registry look through a blob before it answers.
_SLOWEST: Final = 8 << 20
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
    parts = split_url(url)
    connection, target, more = _open(parts)
    sent = {"User-Agent": _USER_AGENT, **more, **headers}
    try:
        connection.connect()
        chunks, size = None, 0
        if body is not None:
            chunks, size = body[0](), body[1]
            sent["Content-Length"] = str(size)
        connection.sock.settimeout(_SECONDS + size / _SLOWEST)
        try:
            connection.request(method, target, body=chunks, headers=sent)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
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


def split_url(url: str) -> SplitResult:
    """The parts of a URL, whose port is one, too.

    Raises
    ------
    PlatformError
        When it is none.
    """
    try:
        parts = urlsplit(url)
        if parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise PlatformError(f"not an address: {bare_url(url)!r}")


def bare_url(url: str) -> str:
    """Without the query, which may be signed."""
    return url.partition("?")[0].partition("#")[0]


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


def _open(parts: SplitResult) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """A connection, through the environment's proxy if there is one; what to ask, and how."""
    host, port = parts.hostname or "", parts.port
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    proxy = _proxy(parts)
    way = (host, port) if proxy is None else (proxy.hostname or "", proxy.port or 80)
    login = _proxy_login(proxy)
    if parts.scheme == "https":
        secure = http.client.HTTPSConnection(*way, timeout=_CONNECT_SECONDS, context=_context())
        if proxy is not None:
            secure.set_tunnel(host, port or 443, login)
        return secure, target, {}
    plain = http.client.HTTPConnection(*way, timeout=_CONNECT_SECONDS)
    return (plain, target, {}) if proxy is None else (plain, parts.geturl(), login)


def _proxy(parts: SplitResult) -> SplitResult | None:
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all", "")
    if not proxy or host in _LOOPBACK or urllib.request.proxy_bypass(parts.netloc):
        return None
    found = split_url(proxy if "://" in proxy else f"http://{proxy}")
    if found.scheme != "http":
        raise PlatformError(
            f"a proxy that modelport cannot use: {found.scheme}://{found.hostname}",
            hint="HTTPS_PROXY=http://HOST:PORT, or NO_PROXY=HOST for this registry",
        )
    return found


def _proxy_login(proxy: SplitResult | None) -> dict[str, str]:
    if proxy is None or proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


@cache
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _after(headers: Message) -> float:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0
