"""`verify` where the network, the address, the key or the certificate is not as it should be."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.core.errors import (
    DeadlineError,
    InputError,
    LimitError,
    UnauthenticatedError,
    UnavailableError,
)
from modelport.core.package import Package
from modelport.deploy.diagnosis import diagnose_endpoint
from modelport.deploy.verify import ask_endpoint, verify_endpoint
from modelport.deploy.verify import stage as stage_module
from modelport.deploy.verify.base import Ask
from modelport.deploy.verify.web import WebCarrier, send
from tests.serve import onnx_models
from tests.serve.certificates import Certificates
from tests.serve.packages import build_package
from tests.serve.running import RunningServer
from tests.serve.upload_models import image_package, text_package

from .front import forward, front

KEY = "correct-horse-battery-staple"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELPORT_API_KEY", raising=False)


def quiet(line: str) -> None:
    """Nobody listens."""


def check(package: Package, url: str, protocol: str = "auto") -> Any:
    return verify_endpoint(package, url, protocol, quiet, patience=0)


@pytest.fixture(scope="module")
def server(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("network"), [package.path]) as running:
        yield running


@contextmanager
def speaker(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A program that talks to each client in its own way; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                talk(client)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    "url",
    ["http://[bad", "http://a..b/", f"http://{'a' * 64}.example/", "http://127.0.0.1:0", "lambda://[x",
     "http://127.0.0.1:99999"],
)  # fmt: skip
@pytest.mark.parametrize("protocol", ["auto", "v2"])
def test_what_cannot_be_an_address_is_refused(package: Package, url: str, protocol: str) -> None:
    with pytest.raises(InputError, match="not an address"):
        check(package, url, protocol)


def test_letters_and_blanks_in_the_path_travel_encoded(
    package: Package, server: RunningServer
) -> None:
    seen: list[str] = []

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        seen.append(path)
        return forward(server.port, path.removeprefix("/mod%C3%A8le%20a"), method, headers, body)

    with front(reply) as url:
        assert check(package, f"{url}/modèle a?x=é", "v2").agrees
    assert set(seen) == {"/mod%C3%A8le%20a/v2/models/churn/infer?x=%C3%A9"}


@pytest.mark.parametrize("key", ["sec\nret", "sécret", "sec€ret", "secret\r"])
def test_a_key_that_no_header_carries_is_not_shown(
    package: Package, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("MODELPORT_API_KEY", key)
    with pytest.raises(UnauthenticatedError, match="no header can carry") as caught:
        check(package, "http://127.0.0.1:1", "v2")
    assert "ret" not in str(caught.value).replace("break", "")


def test_who_sends_a_byte_now_and_then_is_given_up() -> None:
    def drip(client: socket.socket) -> None:
        client.recv(10_000)
        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(100):
            client.sendall(b" ")
            time.sleep(0.05)

    with speaker(drip) as url:
        carrier = WebCarrier(url, timeout=0.3)
        start = time.monotonic()
        with pytest.raises(DeadlineError, match=r"within 0\.3 s"):
            send(carrier, Ask("GET", "/"), url)
        assert time.monotonic() - start < 3
        carrier.close()


def test_after_a_time_out_the_next_request_is_asked_anew() -> None:
    slow = iter([0.5, 0.0])

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        time.sleep(next(slow))
        return 200, {}, b"done"

    with front(reply) as url:
        carrier = WebCarrier(url, timeout=0.2)
        with pytest.raises(DeadlineError):
            send(carrier, Ask("GET", "/"), url)
        assert send(carrier, Ask("GET", "/"), url).body == b"done"
        carrier.close()


@pytest.mark.parametrize(
    "framing",
    [b"content-length: 4\r\n\r\ndone", b"transfer-encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n",
     b"connection: close\r\n\r\ndone"],
)  # fmt: skip
def test_an_answer_is_read_to_its_end(framing: bytes) -> None:
    def talk(client: socket.socket) -> None:
        client.recv(10_000)
        client.sendall(b"HTTP/1.1 200 OK\r\n" + framing)

    with speaker(talk) as url:
        carrier = WebCarrier(url, timeout=5)
        for _ in range(2):  # the second one finds the kept connection closed
            assert send(carrier, Ask("GET", "/"), url).body == b"done"
        carrier.close()


def test_half_an_answer_is_none() -> None:
    def talk(client: socket.socket) -> None:
        client.recv(10_000)
        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")

    with speaker(talk) as url:
        carrier = WebCarrier(url, timeout=5)
        with pytest.raises(UnavailableError, match="no answer"):
            send(carrier, Ask("GET", "/"), url)
        carrier.close()


def test_a_refusal_while_the_request_is_still_being_sent_is_read(tmp_path: Path) -> None:
    """As nginx does with bodies beyond client_max_body_size."""

    def refuse(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge")
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.2)  # then the rest is refused with a reset

    rows = np.zeros((1, 1_000_000), np.float32)
    large = build_package(
        tmp_path / "large", "large", onnx_models.identity("float32", ("N", 1_000_000)), {"x": rows}
    )
    with speaker(refuse) as url, pytest.raises(LimitError, match="413: large"):
        check(large, url, "v2")


def test_certificates_are_checked(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = Certificates(tmp_path / "certificates")
    flags = ["--tls-cert", certificates["server"], "--tls-key", certificates["server.key"]]
    running = RunningServer(tmp_path / "tls", [package.path], flags).start()
    url = f"https://127.0.0.1:{running.port}"
    try:
        running.wait_for("readiness", lambda: _answers_tls(running.port))
        with pytest.raises(UnavailableError, match=r"TLS fails.*CERTIFICATE_VERIFY_FAILED"):
            check(package, url)
        with pytest.raises(UnavailableError, match="no answer"):
            check(package, url.replace("https", "http"), "v2")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates["ca"]))
        assert check(package, url).agrees
    finally:
        running.close()


def _answers_tls(port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
    connection.request("GET", "/v2/health/ready")
    status = connection.getresponse().status
    connection.close()
    return status == 200


def test_tls_where_there_is_none(package: Package, server: RunningServer) -> None:
    with pytest.raises(UnavailableError, match="TLS fails"):
        check(package, f"https://127.0.0.1:{server.port}")


def test_a_key_that_was_accepted_goes_nowhere_else(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However an answer points elsewhere: nobody but the host of the address sees a request."""
    monkeypatch.setenv("MODELPORT_API_KEY", KEY)
    seen: list[str] = []

    def thief(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        seen.append(path)
        return 200, {}, b"{}"

    with front(thief) as other:
        for status in (301, 302, 303, 307, 308):
            for protocol in ("auto", "v2", "tfserving", "azure-functions"):
                answer = (status, {"location": other, "refresh": f"0; url={other}"}, b"")
                with front(lambda *_, a=answer: a) as url, pytest.raises(InputError):
                    check(package, url, protocol)
    assert not seen


def test_the_key_of_a_settings_file_stays_here(
    package: Package, server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the key that a server here asks for; another one must not learn it."""
    (tmp_path / "modelport.toml").write_text(f'api_key = "{KEY}"\n')
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        seen.extend(headers.values())
        return forward(server.port, path, method, headers, body)

    with front(reply) as url:
        assert check(package, url).agrees
        assert diagnose_endpoint(url, package, quiet) == []
    assert seen
    assert not any(KEY in value for value in seen)


@pytest.mark.parametrize("protocol", ["v2", "tfserving", "sagemaker", "azureml", "mlflow"])
@pytest.mark.parametrize("kind", ["image", "text"])
def test_files_and_texts_travel_as_clients_send_them(
    uploads: Mapping[str, tuple[RunningServer, Package]], kind: str, protocol: str
) -> None:
    running, package = uploads[kind]
    route = {"sagemaker": "/invocations", "azureml": "/score"}.get(protocol, "")
    found = check(package, f"http://127.0.0.1:{running.port}{route}", protocol)
    golden = package.golden()
    assert golden is not None
    assert (found.agrees, found.records) == (True, golden.rows)


@pytest.fixture(scope="module")
def uploads(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, tuple[RunningServer, Package]]]:
    folder = tmp_path_factory.mktemp("uploads")
    image, text = image_package(folder, "photo"), text_package(folder, "mail")
    with (
        RunningServer(folder / "image", [image.path]) as images,
        RunningServer(folder / "text", [text.path]) as texts,
    ):
        yield {"image": (images, image), "text": (texts, text)}


def test_a_fixed_batch_goes_as_a_whole(tmp_path: Path) -> None:
    rows = {"x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)}
    model = onnx_models.identity("float32", (4, 2))
    package = build_package(tmp_path / "fixed", "fixed", model, rows)
    with RunningServer(tmp_path / "server", [package.path]) as running:
        for protocol in ("v2", "tfserving", "mlflow", "azureml"):
            route = "/score" if protocol == "azureml" else ""
            found = check(package, f"http://127.0.0.1:{running.port}{route}", protocol)
            assert (found.agrees, len(found.seconds)) == (True, 1)


def test_the_only_record_that_differs_is_named(server: RunningServer, tmp_path: Path) -> None:
    rows = {"x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 8)}
    one = build_package(tmp_path / "one", "churn", onnx_models.dense(), rows, wrong_output="y")
    found = ask_endpoint(one, f"http://127.0.0.1:{server.port}", "v2", quiet)
    assert (found.agrees, found.differing_records) == (False, (0,))


NUMBERS = {
    "NaN": (b"NaN", "outside tolerance"),
    "infinity": (b"Infinity", "outside tolerance"),
    "beyond the type": (b"1e300", "outside tolerance"),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("protocol", ["v2", "tfserving"])
def test_answers_that_are_no_numbers_differ(package: Package, name: str, protocol: str) -> None:
    value, told = NUMBERS[name]
    body = {
        "v2": b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":[' + value + b"]}]}",
        "tfserving": b'{"predictions": [[' + value + b"]]}",
    }[protocol]
    with front(lambda *_: (200, {"content-type": "application/json"}, body)) as url:
        found = ask_endpoint(package, url, protocol, quiet)
    assert not found.agrees
    assert told in found.comparisons[0].describe()


def test_a_time_out_is_waited_for_like_any_other_start(
    package: Package, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = stage_module.WebCarrier
    monkeypatch.setattr(stage_module, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(stage_module, "WebCarrier", lambda *a: original(*a, timeout=1.0))
    slow = iter([1.5])

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        if pause := next(slow, 0):
            time.sleep(pause)
            return 200, {}, b"too late"
        return forward(server.port, path, method, headers, body)

    with front(reply) as url:
        assert verify_endpoint(package, url, "v2", quiet, patience=30).agrees
