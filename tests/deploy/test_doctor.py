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

from modelport.adapters import adapters_of
from modelport.core.errors import InputError, NotFoundError
from modelport.core.package import Package
from modelport.deploy.diagnosis import (
    Finding,
    connection,
    diagnose_endpoint,
    diagnose_target,
    endpoint,
)
from modelport.deploy.diagnosis.failures import failures_of, read_failures
from modelport.deploy.diagnosis.image import diagnose_image
from modelport.deploy.verify import stage as verify_stage
from tests.serve import onnx_models
from tests.serve.certificates import Certificates
from tests.serve.packages import build_package
from tests.serve.running import RunningServer, free_port

from .front import forward, front

ROWS = {"x": np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)}
KEY = "correct-horse-battery-staple"


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


def quiet(line: str) -> None:
    """Nobody listens."""


def at(server: RunningServer, path: str = "", scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.port}{path}"


def only(url: str, package: Package | None = None) -> Finding:
    """The one finding."""
    found = diagnose_endpoint(url, package, quiet)
    assert len(found) == 1, found
    assert found[0].symptom
    assert found[0].cause
    assert found[0].remedy
    return found[0]


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


@pytest.mark.parametrize("url", ["ftp://host", "http://", "nonsense", "http://host:99999/"])
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


def through(server: RunningServer, changes: Mapping[str, Any]) -> Any:
    """A front before a server that answers some paths by itself."""

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        answer = changes.get(path)
        if callable(answer):
            answer = answer()
        return answer or forward(server.port, path, method, headers, body)

    return front(reply)


def test_a_server_that_is_not_ready(server: RunningServer, package: Package) -> None:
    changes = {"/v2/health/ready": (503, {}, b'{"error": "loading"}')}
    with through(server, changes) as url:
        found = only(url, package)
    assert "503" in found.symptom
    assert "still loading" in found.cause


def test_a_ping_that_is_too_slow(
    server: RunningServer, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_PROBE_SECONDS", 0.2)
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


# What platforms say, in their own words, and the failure that it is.
MESSAGES = {
    "sagemaker": {
        "The primary container for production variant AllTraffic did not pass the ping health "
        "check. Please check CloudWatch logs for this endpoint.": "sagemaker-ping",
        "The account-level service limit 'ml.m5.large for endpoint usage' is 0 Instances, with "
        "current utilization of 0 Instances (ResourceLimitExceeded)": "sagemaker-quota",
        "exec /usr/bin/python: exec format error": "exec-format",
        'An error occurred (ModelError): Received server error (500) from primary with message "b"':
            "sagemaker-model-error",
    },
    "lambda": {
        '{"message":"Missing Authentication Token"}': "lambda-stage",
        "The image manifest, config or layer media type for the source image is not supported.":
            "lambda-manifest",
        "OSError: [Errno 38] Function not implemented": "lambda-shared-memory",
        "RequestId: 1 Error: Runtime exited with error: signal: killed": "out-of-memory",
        '{"message": "Endpoint request timed out"}': "lambda-gateway-time-out",
        "Request must be smaller than 6291456 bytes for the InvokeFunction operation":
            "lambda-size",
    },
    "cloudrun": {
        "The user-provided container failed to start and listen on the port defined provided by "
        "the PORT=8080 environment variable.": "cloudrun-port",
        "Memory limit of 512 MiB exceeded with 520 MiB used.": "out-of-memory",
        "Error: Forbidden Your client does not have permission to get URL / from this server.":
            "cloudrun-forbidden",
    },
    "vertex": {
        "Model server never became ready. Please validate that your model file or container "
        "configuration are valid.": "vertex-health",
    },
    "azureml": {
        "ResourceNotReady: User container has crashed or terminated.": "azureml-readiness",
        "424 Failed Dependency": "azureml-424",
    },
    "azure-functions": {"HTTP/1.1 401 Unauthorized": "azure-functions-key"},
    "kubernetes": {
        "Back-off pulling image: ImagePullBackOff": "kubernetes-pull",
        "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is "
        "non-root": "kubernetes-non-root",
        "Last State: Terminated, Reason: OOMKilled, Exit Code: 137": "out-of-memory",
        "0/3 nodes are available: 3 Insufficient memory.": "kubernetes-pending",
    },
    "kserve": {
        "Model with name churn does not exist.": "kserve-name",
        "no runtime found to support predictor with model type: {modelport <nil>}":
            "kserve-runtime",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("target", "message"), [(t, m) for t, messages in MESSAGES.items() for m in messages]
)
def test_what_platforms_say(target: str, message: str) -> None:
    found = failures_of(target, message)
    assert MESSAGES[target][message] == found[0].id, [failure.id for failure in found]


def test_what_nobody_knows_is_no_failure() -> None:
    assert failures_of("", "the moon is made of cheese") == []


def test_the_failures_are_whole() -> None:
    rows = read_failures()
    targets = {adapter.name for adapter in adapters_of("target")}
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert re.compile(row.says)
        assert set(row.targets) <= targets, row.id
        assert row.symptom
        assert row.cause
        assert row.remedy
        assert not row.source or row.source.startswith("https://")
    assert all(failures_of(target) for target in targets)


@pytest.mark.parametrize("message", ["a" * 1_000_000, "0/" * 200_000, "NaN" * 100_000])
def test_long_messages_take_no_time(message: str) -> None:
    failures_of("", message)


def layout(folder: Path, *configurations: dict[str, Any]) -> Path:
    """An OCI layout of images without layers."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    descriptors = []
    for number, configuration in enumerate(configurations):
        (blobs / f"c{number}").write_text(json.dumps(configuration))
        manifest = {"config": {"digest": f"sha256:c{number}"}, "layers": []}
        (blobs / f"m{number}").write_text(json.dumps(manifest))
        descriptors.append({"digest": f"sha256:m{number}"})
    (blobs / "index").write_text(json.dumps({"manifests": descriptors}))
    (folder / "index.json").write_text(json.dumps({"manifests": [{"digest": "sha256:index"}]}))
    return folder


def image(architecture: str = "amd64", **config: Any) -> dict[str, Any]:
    config = {"User": "65532:65532", "Entrypoint": ["modelport", "serve"], **config}
    return {"os": "linux", "architecture": architecture, "config": config}


def test_an_image_for_another_processor(tmp_path: Path) -> None:
    arm = layout(tmp_path / "arm", image("arm64"))
    for target in ("sagemaker", "lambda", "cloudrun", "vertex", "azureml", "azure-functions"):
        found = diagnose_image(arm, target)
        assert "the image is for linux/arm64" in found[0].symptom
        assert "exec format error" in found[0].cause
    assert diagnose_image(arm, "kubernetes") == []


def test_an_image_for_several_processors(tmp_path: Path) -> None:
    both = layout(tmp_path / "both", image("amd64"), image("arm64"))
    assert diagnose_image(both, "cloudrun") == []
    (found,) = diagnose_image(both, "lambda")
    assert "index of 2 platforms" in found.symptom


@pytest.mark.parametrize(
    ("config", "target", "symptom"),
    [
        ({"User": ""}, "kubernetes", "user is root"),
        ({"User": "0"}, "kserve", "user is 0"),
        ({"User": "app"}, "kubernetes", "user is app"),
        ({"Entrypoint": None}, "sagemaker", "no entry point"),
    ],
)
def test_what_an_image_says_of_itself(
    tmp_path: Path, config: dict[str, Any], target: str, symptom: str
) -> None:
    found = diagnose_image(layout(tmp_path / "i", image(**config)), target)
    assert symptom in found[0].symptom


def test_what_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an OCI image layout"):
        diagnose_image(tmp_path, "lambda")
    broken = layout(tmp_path / "broken", image())
    (broken / "blobs" / "sha256" / "c0").unlink()
    with pytest.raises(InputError, match="damaged"):
        diagnose_image(broken, "lambda")
    escaping = layout(tmp_path / "escaping", image())
    (escaping / "index.json").write_text('{"manifests": [{"digest": "sha256:../../x"}]}')
    with pytest.raises(InputError, match="not a digest"):
        diagnose_image(escaping, "lambda")


def test_an_unknown_target() -> None:
    with pytest.raises(NotFoundError, match="kubernetes"):
        diagnose_target("mainframe", None, [])


def test_a_target_s_known_failures_are_notes_and_a_message_s_are_faults() -> None:
    notes = diagnose_target("kubernetes", None, [])
    assert {finding.weight for finding in notes} == {"note"}
    (fault,) = diagnose_target("kubernetes", None, [], message="reason: CrashLoopBackOff")
    assert fault.weight == "fault"
    (unknown,) = diagnose_target("kubernetes", None, [], message="\x00\n\n")
    assert unknown.weight == "note"


def test_a_setting_that_is_missing_is_a_fault(package: Package) -> None:
    found = diagnose_target("cloudrun", package, [], message="none")
    assert found[0].weight == "fault"
    assert "--set" in found[0].remedy + found[0].symptom


def test_a_limit_that_is_exceeded_is_a_fault(package: Package) -> None:
    pairs = ["project=p-123456", "region=europe-west1", "timeout=3601", "image=r.example/x"]
    found = diagnose_target("cloudrun", package, pairs, message="none")
    faults = [finding for finding in found if finding.weight == "fault"]
    assert any("3601 s of at most 3600 s" in finding.symptom for finding in faults)
