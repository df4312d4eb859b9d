"""`doctor` against servers that are really broken, each in its own way."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.core.errors import InputError
from modelport.core.package import Package
from modelport.deploy.diagnosis import (
    connection,
    diagnose_endpoint,
    endpoint,
    routes,
)
from modelport.deploy.verify import stage as verify_stage
from tests.serve import onnx_models
from tests.serve.certificates import Certificates
from tests.serve.packages import build_package
from tests.serve.running import RunningServer, free_port

from .front import forward, front
from .patients import KEY, at, only, quiet, through

ROWS = {"x": np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)}


@pytest.fixture(scope="module")
def server(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("doctor"), [package.path]) as running:
        yield running


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELPORT_API_KEY", raising=False)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for what never answers."""
    monkeypatch.setattr(connection, "_TIMEOUT", 1.0)
    monkeypatch.setattr(connection, "USUAL_PORTS", {})


@pytest.mark.parametrize(
    "path",
    ["", "/", "/v2", "/v2/models/churn", "/v2/models/churn/infer", "/v1/models/churn:predict",
     "/v1/models/churn", "/invocations", "/score", "/churn"],
)  # fmt: skip
def test_a_healthy_server_has_nothing(server: RunningServer, package: Package, path: str) -> None:
    assert diagnose_endpoint(at(server, path), package, quiet) == []
    if path != "/churn":
        assert diagnose_endpoint(at(server, path), None, quiet) == []


def test_a_closed_port() -> None:
    port = free_port()
    found = only(f"http://127.0.0.1:{port}")
    assert f"nothing listens at port {port}" in found.symptom
    assert "MODELPORT_HOST=0.0.0.0" in found.remedy


def test_the_server_is_at_another_port(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "USUAL_PORTS", {server.port: "modelport"})
    found = only(f"http://127.0.0.1:{free_port()}")
    assert f"another port; these answer: {server.port}" in found.cause


def test_a_name_without_an_address() -> None:
    assert "has no address" in only("http://nowhere.invalid/v2").symptom


@pytest.mark.parametrize(
    "url",
    ["ftp://host", "http://", "nonsense", "http://host:99999/", "http://[bad", "http://a..b/",
     "http://user:secret@127.0.0.1:1/"],
)  # fmt: skip
def test_no_address_at_all(url: str) -> None:
    with pytest.raises(InputError):
        diagnose_endpoint(url, None, quiet)


def test_a_port_that_says_nothing() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        found = only(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "says nothing" in found.symptom


@contextmanager
def speaker(words: bytes) -> Iterator[int]:
    """A program that says the same to everybody, and is no HTTP server; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.recv(1000)
                client.sendall(words)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_another_program() -> None:
    with speaker(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        assert "answers no HTTP: b'SSH-2.0-OpenSSH" in only(f"http://127.0.0.1:{port}").symptom


def test_the_grpc_port(package: Package, tmp_path: Path) -> None:
    port = free_port()
    with RunningServer(tmp_path, [package.path], ["--grpc-port", str(port)]):
        found = only(f"http://127.0.0.1:{port}", package)
    assert "gRPC port" in found.cause


def test_a_web_server_of_files(tmp_path: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    files = ThreadingHTTPServer(
        ("127.0.0.1", 0),
        lambda *a: Quiet(*a, directory=str(tmp_path)),  # type: ignore[arg-type]
    )
    thread = threading.Thread(target=files.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        found = only(f"http://127.0.0.1:{files.server_port}")
    finally:
        files.shutdown()
        files.server_close()
        thread.join()
    assert "no route of a model server answers" in found.symptom
    assert "SimpleHTTP" in found.cause


def test_plain_http_where_tls_is_asked(server: RunningServer) -> None:
    found = only(at(server, scheme="https"))
    assert "does not speak TLS" in found.symptom
    assert "http://" in found.remedy


@pytest.fixture
def secure(package: Package, certificates: Certificates, tmp_path: Path) -> Iterator[RunningServer]:
    flags = ["--tls-cert", certificates["server"], "--tls-key", certificates["server.key"]]
    running = RunningServer(tmp_path / "tls", [package.path], flags).start()
    try:
        wait_until_ready(running)
        yield running
    finally:
        running.close()


def wait_until_ready(running: RunningServer) -> None:
    """Through TLS as well, with the key; a server that wants a certificate only has to listen."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def is_ready() -> bool:
        tls = "--tls-cert" in running._flags
        if "--tls-client-ca" in running._flags:
            socket.create_connection(("127.0.0.1", running.port), timeout=1).close()
            return True
        connection = (
            http.client.HTTPSConnection("127.0.0.1", running.port, context=context)
            if tls
            else http.client.HTTPConnection("127.0.0.1", running.port)
        )
        connection.request("GET", "/v2/health/ready", headers={"x-api-key": KEY})
        status = connection.getresponse().status
        connection.close()
        return status == 200

    running.wait_for("readiness", is_ready)


def test_tls_where_plain_http_is_asked(secure: RunningServer) -> None:
    found = only(at(secure))
    assert "speaks TLS" in found.cause
    assert f"https://127.0.0.1:{secure.port}" in found.remedy


def test_a_certificate_of_nobody_known(secure: RunningServer) -> None:
    found = only(at(secure, scheme="https"))
    assert "is not trusted" in found.symptom
    assert "SSL_CERT_FILE" in found.remedy


def test_a_trusted_certificate(
    secure: RunningServer,
    package: Package,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates["ca"]))
    assert diagnose_endpoint(at(secure, scheme="https"), package, quiet) == []


def test_a_client_certificate_is_demanded(
    package: Package,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates["ca"]))
    flags = ["--tls-cert", certificates["server"], "--tls-key", certificates["server.key"]]
    running = RunningServer(
        tmp_path / "mtls", [package.path], [*flags, "--tls-client-ca", certificates["ca"]]
    ).start()
    try:
        wait_until_ready(running)
        found = only(at(running, scheme="https"))
    finally:
        running.close()
    assert "certificate" in found.symptom
    assert "--tls-client-ca" in found.cause


@pytest.fixture(scope="module")
def guarded(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(f"{KEY}\n")
    flags = ["--api-key-file", folder / "keys", "--guard-health"]
    running = RunningServer(folder / "server", [package.path], flags).start()
    try:
        wait_until_ready(running)
        yield running
    finally:
        running.close()


def test_no_key(guarded: RunningServer, package: Package) -> None:
    found = only(at(guarded), package)
    assert "answers 401" in found.symptom
    assert "no key was sent" in found.cause


def test_a_wrong_key(
    guarded: RunningServer, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELPORT_API_KEY", "wrong-horse-battery-staple")
    found = only(at(guarded), package)
    assert "not one of this server's" in found.cause
    assert "wrong-horse" not in json.dumps(found.to_json())


def test_the_right_key(
    guarded: RunningServer, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELPORT_API_KEY", KEY)
    assert diagnose_endpoint(at(guarded), package, quiet) == []


def test_a_key_without_tls_is_a_warning_elsewhere_than_here() -> None:
    (found,) = endpoint._diagnose_place("http://models.example:8080", KEY)
    assert found.weight == "warning"
    assert endpoint._diagnose_place("https://models.example", KEY) == []
    assert endpoint._diagnose_place("http://127.0.0.1:8080", KEY) == []
    assert endpoint._diagnose_place("http://models.example", "") == []


PLATFORMS: dict[str, tuple[int, dict[str, str], bytes, str]] = {
    "a missing stage of API Gateway": (
        403, {}, b'{"message":"Missing Authentication Token"}', "the stage is missing",
    ),
    "IAM": (403, {}, b"Your client does not have permission to get URL", "front end"),
    "no healthy server": (502, {}, b"bad gateway", "no healthy server is behind it"),
    "a login": (302, {"location": "https://login.example/"}, b"", "wants a login"),
    "a page": (200, {"content-type": "text/html"}, b"<html>", "another program"),
    "nothing": (404, {"server": "nginx"}, b"", r"another program answers at this port \(nginx\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLATFORMS)
def test_what_front_ends_say(name: str, package: Package) -> None:
    status, headers, body, cause = PLATFORMS[name]
    with front(lambda *_: (status, headers, body)) as url:
        assert re.search(cause, only(url, package).cause)


def test_a_server_that_is_not_ready(server: RunningServer, package: Package) -> None:
    changes = {"/v2/health/ready": (503, {}, b'{"error": "loading"}')}
    with through(server, changes) as url:
        found = only(url, package)
    assert "503" in found.symptom
    assert "still loading" in found.cause


def test_a_ping_that_is_too_slow(
    server: RunningServer, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "PROBE_SECONDS", 0.2)
    changes = {"/ping": lambda: time.sleep(0.3)}
    with through(server, changes) as url:
        found = only(url, package)
    assert found.weight == "warning"
    assert "did not pass the ping health check" in found.cause


def test_a_base_path(server: RunningServer, package: Package) -> None:
    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        if not path.startswith("/prod/"):
            return 404, {}, b""
        return forward(server.port, path.removeprefix("/prod"), method, headers, body)

    with front(reply) as url:
        assert "below another path" in only(url, package).cause
        assert diagnose_endpoint(f"{url}/prod", package, quiet) == []


def test_a_front_that_lets_through_inference_alone(server: RunningServer, package: Package) -> None:
    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        if method != "POST":
            return 404, {}, b""
        return forward(server.port, path, method, headers, body)

    with front(reply) as url:
        assert diagnose_endpoint(f"{url}/v2/models/churn/infer", package, quiet) == []
        assert diagnose_endpoint(f"{url}/v1/models/churn:predict", package, quiet) == []


def test_a_route_of_another_contract(server: RunningServer) -> None:
    found = only(at(server, "/my/route"))
    # Without a package the whole path may be a base path, and then nothing is below it.
    assert "/my/route" in found.symptom + found.cause


def test_another_name(package: Package, tmp_path: Path) -> None:
    with RunningServer(tmp_path, [package.path], ["--name", "leaver"]) as running:
        found = only(at(running), package)
        assert "no model churn; it has: leaver" in found.symptom
        assert "/v2/models/leaver/infer" in found.remedy
        wrong = only(at(running, "/v2/models/nobody/infer"), package)
        assert "no model nobody" in wrong.symptom
        assert diagnose_endpoint(at(running, "/v2/models/leaver/infer"), package, quiet) == []


def test_another_signature(package: Package, tmp_path: Path) -> None:
    other = build_package(
        tmp_path / "o", "churn", onnx_models.classifier(), {"x": ROWS["x"][:, :3]}
    )
    with RunningServer(tmp_path / "server", [other.path]) as running:
        found = only(at(running), package)
    assert "outputs are label INT64, scores FP32, the package's y FP32" in found.symptom


def test_other_weights(package: Package, tmp_path: Path) -> None:
    other = build_package(tmp_path / "o", "churn", onnx_models.dense(seed=1), ROWS)
    with RunningServer(tmp_path / "server", [other.path]) as running:
        found = only(at(running), package)
    assert "the answers differ from the package's: y: max error" in found.symptom


def test_a_request_that_is_too_large(package: Package, tmp_path: Path) -> None:
    with RunningServer(tmp_path, [package.path], ["--max-body", "20"]) as running:
        found = only(at(running), package)
    assert "413" in found.symptom
    assert "--max-body" in found.remedy


def test_an_inference_that_fails(server: RunningServer, package: Package) -> None:
    changes = {"/v2/models/churn/infer": (500, {}, b'{"error": "boom"}')}
    with through(server, changes) as url:
        assert "boom" in only(url, package).symptom


def test_an_inference_that_never_ends(
    server: RunningServer, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = verify_stage.WebCarrier
    monkeypatch.setattr(verify_stage, "WebCarrier", lambda *a: original(*a, timeout=0.2))
    changes = {"/v2/models/churn/infer": lambda: time.sleep(0.5)}
    with through(server, changes) as url:
        assert "longer than anybody waits" in only(url, package).cause


def test_what_a_server_says_does_nothing_to_a_terminal(package: Package) -> None:
    """Header values and names, too: ESC begins what moves the cursor or sets a title."""
    evil = "\x1b]0;owned\x07"
    headers = {"location": f"http://{evil}", "server": evil, "content-type": f"text/{evil}"}
    body = json.dumps({evil: 1, "outputs": [{"name": "y", "datatype": evil}]}).encode()
    for status in (200, 302, 404, 424, 500):
        with front(lambda *_, s=status: (s, headers, body)) as url:
            for suffix in ("", "/v2/models/churn/infer", "/v1/models/churn:predict"):
                for finding in diagnose_endpoint(url + suffix, package, quiet):
                    assert "\x1b" not in "".join(finding.to_json().values())
