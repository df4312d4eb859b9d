"""Azure Resource Manager in a few lines: resources by path, long-running operations, its errors.

What the SDKs really send is answered in the shapes that Microsoft documents for the Resource
Manager: ``Azure-AsyncOperation``, ``{"value": […]}``, ``{"error": {"code", "message"}}``. It knows
no rules of any service beyond that: evidence for our calls, not for Azure's opinion of them.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from azure.core.credentials import AccessToken

from tests.serve.certificates import Certificates


class Token:
    """A credential that always has a token."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes += scopes
        return AccessToken("token-of-" + scopes[0], int(time.time()) + 3600)


@dataclass
class Fake:
    """What Azure holds, and what it was asked."""

    url: str = ""
    things: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    #: ``(METHOD, end of the path)`` to ``(status, code, message)`` of a refusal.
    refuse: dict[tuple[str, str], tuple[int, str, str]] = field(default_factory=dict)
    #: End of a path to ``(code, message)``: accepted, and then the operation fails.
    fails: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: ``POST`` answers by the end of the path.
    answers: dict[str, Any] = field(default_factory=dict)
    polls: int = 1
    operations: dict[str, list[Any]] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        self.asked.append(f"{method} {path}")
        if body:
            self.bodies.append((f"{method} {path}", body))
        if method == "GET" and path in self.operations:
            return 200, self._polled(path), {"retry-after-ms": "10"}
        for (verb, end), (status, code, message) in self.refuse.items():
            if verb == method and path.endswith(end):
                return status, _error(code, message), {}
        handler = {"GET": self._get, "PUT": self._put, "DELETE": self._delete, "POST": self._post}
        return handler[method](path, body)

    def _get(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        found = self._key(path)
        if found:
            return 200, self.things[found], {}
        if len(path.strip("/").split("/")) % 2:  # a collection: …/deployments
            inside = [
                value for key, value in self.things.items()
                if key.lower().startswith(path.lower() + "/")
                and "/" not in key[len(path) + 1 :]
            ]  # fmt: skip
            return 200, {"value": inside}, {}
        name = path.rpartition("/")[2]
        return 404, _error("ResourceNotFound", f"The Resource '{name}' was not found."), {}

    def _put(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        found = self._key(path)
        thing = json.loads(body)
        thing |= {"id": path, "name": path.rpartition("/")[2], "type": "fake"}
        thing.setdefault("properties", {})["provisioningState"] = "Succeeded"
        self.things[found or path] = thing
        shown = {**thing, "properties": {**thing["properties"], "provisioningState": "Updating"}}
        return (200 if found else 201), shown, self._operation(path)

    def _delete(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        found = self._key(path)
        if not found:
            return 204, None, {}
        for key in [key for key in self.things if key == found or key.startswith(found + "/")]:
            del self.things[key]
        return 202, None, self._operation(path, deleted=True)

    def _post(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        for end, answer in self.answers.items():
            if path.endswith(end):
                return 200, answer, {}
        return 404, _error("NotFound", path), {}

    def _operation(self, path: str, deleted: bool = False) -> dict[str, str]:
        key = f"/operations/{len(self.operations)}"
        end: Any = {"status": "Succeeded"}
        for tail, (code, message) in self.fails.items():
            if path.endswith(tail) and not deleted:
                end = {"status": "Failed", **_error(code, message)}
                self.things[self._key(path)]["properties"]["provisioningState"] = "Failed"
        self.operations[key] = [{"status": "InProgress"}] * self.polls + [end]
        return {"azure-asyncoperation": self.url + key, "retry-after-ms": "10"}

    def _polled(self, path: str) -> Any:
        states = self.operations[path]
        return states.pop(0) if len(states) > 1 else states[0]

    def _key(self, path: str) -> str:
        return next((key for key in self.things if key.lower() == path.lower()), "")


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Fake

    def _answer(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(size)
        status, document, headers = self.fake.answer(
            self.command, urlsplit(self.path).path, body
        )  # fmt: skip
        data = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_DELETE = do_POST = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""


@contextmanager
def azure(certificates: Certificates) -> Iterator[Fake]:
    """A fake that answers on loopback with TLS until the block ends: no SDK sends tokens without.

    Clients find the authority through ``REQUESTS_CA_BUNDLE``.
    """
    fake = Fake()
    handler = type("Handler", (_Handler,), {"fake": fake})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates["server"], certificates["server.key"])
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        fake.url = f"https://127.0.0.1:{server.server_address[1]}"
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
