"""A real registry for tests, a token server, a front that misbehaves, and small images."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.serve.running import LIMIT, free_port

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def needed(program: str) -> str:
    """The path of a program; without it the test is skipped, except in CI, where it fails."""
    path = shutil.which(program)
    if path is None:
        reason = f"{program} is not installed: `make system` installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@contextlib.contextmanager
def running_registry(
    folder: Path, *, tls: tuple[Path, Path] | None = None, **parts: Any
) -> Iterator[str]:
    """Debian's docker-registry on a free port; its ``127.0.0.1:PORT``."""
    program = needed("docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    http: dict[str, Any] = {"addr": address}
    if tls:
        http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    config = folder / "config.yml"
    config.write_text(
        yaml.safe_dump(
            {
                "version": "0.1",
                "log": {"level": "error"},
                "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
                "http": http,
                **parts,
            }
        )
    )
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(config)], stdout=log, stderr=log, env=environment
        )
        try:
            _wait_for(address, process, folder / "log")
            yield address
        finally:
            process.kill()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + LIMIT
    host, _, port = address.partition(":")
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            http.client.socket.create_connection((host, int(port)), 1).close()  # type: ignore[attr-defined]
            return
        time.sleep(0.02)
    raise AssertionError(log.read_text())


#: Handles a request itself (True), or lets it pass to the registry.
Rule = Callable[["Front"], bool]


class Front(BaseHTTPRequestHandler):
    """Passes requests on to a registry, unless the rule takes them."""

    protocol_version = "HTTP/1.1"
    registry = ""
    rule: Rule
    #: Whether the registry's answer gets lost.
    lost: Rule

    def handle_one(self) -> None:
        self.seen.append((self.command, self.path, dict(self.headers)))  # type: ignore[attr-defined]
        if type(self).rule(self):
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length", 0))
        upstream = http.client.HTTPConnection(self.registry, timeout=LIMIT)
        upstream.request(self.command, self.path, self.rfile.read(length), dict(self.headers))
        answer = upstream.getresponse()
        body = answer.read()
        upstream.close()
        if type(self).lost(self):
            self.connection.close()
            self.close_connection = True
            return
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            if key.lower() not in ("transfer-encoding", "connection", "date"):
                self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = handle_one  # noqa: N815

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer instead of the registry."""
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def running_front(
    registry: str, rule: Rule, lost: Rule = lambda _: False
) -> Iterator[tuple[str, list[tuple[str, str, dict[str, str]]]]]:
    """A front with a rule; its address, and the requests that it has seen."""
    seen: list[tuple[str, str, dict[str, str]]] = []
    parts = {"rule": staticmethod(rule), "lost": staticmethod(lost), "seen": seen}
    handler = type("H", (Front,), {"registry": registry, **parts})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


class TokenServer:
    """Gives the tokens that docker-registry verifies: signed, for the scope that was asked."""

    def __init__(self, folder: Path, user: str, password: str) -> None:
        from cryptography.hazmat.primitives import serialization

        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, key = folder / "token.pem", folder / "token.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens",
             "-days", "2", "-keyout", str(key), "-out", str(self.certificate)],
            check=True, capture_output=True, timeout=LIMIT,
        )  # fmt: skip
        self._key: Any = serialization.load_pem_private_key(key.read_bytes(), None)
        self._basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.refresh = uuid.uuid4().hex
        self.most_scopes = 9
        self.asked: list[tuple[str, dict[str, list[str]]]] = []

    def settings(self, address: str) -> dict[str, Any]:
        """What the registry has to know."""
        return {
            "token": {
                "realm": f"http://{address}/token?kind=x",
                "service": "tests",
                "issuer": "tests",
                "rootcertbundle": str(self.certificate),
            }
        }

    def rule(self, front: Front) -> bool:
        query = parse_qs(urlsplit(front.path).query)
        if len(query.get("scope", ())) > self.most_scopes:
            front.answer(403, b'{"errors":[{"code":"DENIED","message":"too much"}]}')
            return True
        if front.command == "POST":
            query = parse_qs(front.rfile.read(int(front.headers["Content-Length"])).decode())
        self.asked.append((front.command, query))
        known = (
            front.headers.get("Authorization") == self._basic
            or query.get("refresh_token") == [self.refresh]
        )  # fmt: skip
        if not known and "push" in query["scope"][0]:
            front.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}')
            return True
        key = "access_token" if front.command == "POST" else "token"
        front.answer(200, json.dumps({key: self._token(query["scope"])}).encode())
        return True

    def _token(self, scopes: list[str]) -> str:
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding
        from cryptography.x509 import load_pem_x509_certificate

        certificate = load_pem_x509_certificate(self.certificate.read_bytes())
        chain = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
        now = int(time.time())
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (scope.split(":") for scope in scopes)
        ]
        parts = [
            {"typ": "JWT", "alg": "RS256", "x5c": [chain]},
            {"iss": "tests", "sub": "u", "aud": "tests", "exp": now + 300, "nbf": now - 10,
             "iat": now, "jti": uuid.uuid4().hex, "access": access},
        ]  # fmt: skip
        text = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), SHA256())
        return f"{text}.{_base64url(signature)}"


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class Layout:
    """An OCI image layout with whatever a test puts into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, content: bytes, kind: str) -> dict[str, Any]:
        """Add a blob; its descriptor."""
        name = hashlib.sha256(content).hexdigest()
        (self.folder / "blobs" / "sha256" / name).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(content)}

    def image(self, text: str, architecture: str = "amd64", size: int = 0) -> dict[str, Any]:
        """Add a runnable image with one file; its descriptor with its platform."""
        content = text.encode() + os.urandom(size)
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as tar:
            entry = tarfile.TarInfo("text")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"],
            },
        }
        layer = gzip.compress(plain.getvalue(), mtime=0)
        kind = "application/vnd.oci.image"
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(config).encode(), f"{kind}.config.v1+json"),
            "layers": [self.blob(layer, f"{kind}.layer.v1.tar+gzip")],
        }
        platform = {"architecture": architecture, "os": "linux"}
        return {**self.document(document), "platform": platform}

    def artifact(self, subject: dict[str, Any]) -> dict[str, Any]:
        """Add an SBOM of an image; its descriptor."""
        kind = "application/vnd.cyclonedx+json"
        plain = {key: subject[key] for key in ("mediaType", "digest", "size")}
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": self.blob(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [self.blob(b'{"bomFormat":"CycloneDX"}', kind)],
            "subject": plain,
        }
        return {**self.document(document), "artifactType": kind}

    def index(self, *descriptors: dict[str, Any]) -> dict[str, Any]:
        """Add an index; its descriptor."""
        return self.document(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(descriptors)}
        )

    def document(self, value: dict[str, Any]) -> dict[str, Any]:
        return self.blob(json.dumps(value).encode(), value["mediaType"])

    def finish(self, *descriptors: dict[str, Any]) -> Path:
        """Write ``index.json``."""
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(descriptors)}
        (self.folder / "index.json").write_text(json.dumps(document))
        return self.folder
