"""TLS, certificates of clients, and HTTP/2, with the clients of Python and curl."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from . import onnx_models
from .certificates import Certificates
from .conftest import Serve
from .http_faults import BODY, GOOD, PATH, TRANSPORTS
from .packages import build_package
from .running import LIMIT, RunningServer, ask


class TlsServer(RunningServer):
    """A server that is asked over TLS; `context` says how."""

    context: ssl.SSLContext

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=LIMIT, context=self.context
        )


@pytest.fixture(scope="module")
def certificates(module_path: Path) -> Certificates:
    return Certificates(module_path / "certificates")


@pytest.fixture(scope="module")
def package(module_path: Path) -> Path:
    golden = {"x": np.array([[1, 2]], np.float32)}
    return build_package(module_path / "p", "pair", onnx_models.identity("float32"), golden).path


def client_context(certificates: Certificates, own: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates["ca"])
    if own:
        context.load_cert_chain(certificates[own], certificates[f"{own}.key"])
    return context


def running(
    home: Path, package: Path, certificates: Certificates, flags: list[str], own: str = ""
) -> TlsServer:
    tls = ["--tls-cert", certificates["chain"], "--tls-key", certificates["server.key"]]
    server = TlsServer(home, [package], [*tls, *flags])
    server.context = client_context(certificates, own)
    return server


@pytest.fixture(scope="module", params=TRANSPORTS)
def server(
    request: pytest.FixtureRequest, module_path: Path, package: Path, certificates: Certificates
) -> Iterator[TlsServer]:
    flags = TRANSPORTS[request.param]
    with running(module_path / request.param, package, certificates, flags) as tls:
        yield tls
        assert "Traceback" not in tls.log()


@pytest.fixture(scope="module", params=TRANSPORTS)
def mutual(
    request: pytest.FixtureRequest, module_path: Path, package: Path, certificates: Certificates
) -> Iterator[TlsServer]:
    flags = [*TRANSPORTS[request.param], "--tls-client-ca", str(certificates["ca"])]
    home = module_path / f"mutual-{request.param}"
    with running(home, package, certificates, flags, "client") as tls:
        yield tls
        assert "Traceback" not in tls.log()


def assert_well(server: TlsServer) -> None:
    answer = server.request("POST", PATH, BODY)
    assert (answer.status, answer.json()) == (200, GOOD)


def test_requests(server: TlsServer) -> None:
    assert_well(server)
    server.wait_for("its line", lambda: "listening on https://127.0.0.1:" in server.log())
    rows = [[float(number), 0.5] for number in range(50_000)]
    answer = server.post(PATH, {"instances": rows})
    assert answer.json() == {"predictions": rows}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(server: TlsServer, certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = client_context(certificates)
    context.minimum_version = context.maximum_version = version
    with server.socket() as raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
        assert tls.version() == {772: "TLSv1.3", 771: "TLSv1.2"}[version]


def test_older_versions_are_refused(server: TlsServer) -> None:
    """TLS 1.1 as openssl's client speaks it when it is allowed to."""
    address = f"127.0.0.1:{server.port}"
    for flag, agreed in (("-tls1_2", True), ("-tls1_1", False), ("-tls1", False)):
        done = subprocess.run(
            ["openssl", "s_client", flag, "-cipher", "ALL:@SECLEVEL=0", "-connect", address],
            input=b"",
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        assert (b"Cipher is (NONE)" not in done.stdout) == agreed
    assert_well(server)


def test_alpn(server: TlsServer, certificates: Certificates) -> None:
    context = client_context(certificates)
    context.set_alpn_protocols(["http/1.1"])
    with server.socket() as raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
        assert tls.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05garba", b"\0" * 999],
)
def test_what_is_no_tls_is_not_answered(server: TlsServer, nonsense: bytes) -> None:
    with server.socket() as connection:
        connection.sendall(nonsense)
        connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            assert b"HTTP/1.1 2" not in connection.recv(65536)
    assert_well(server)


def test_clients_that_vanish_in_the_middle(server: TlsServer) -> None:
    for _ in range(20):
        connection = server.connect()
        connection.request("POST", PATH, b"{", {"Content-Length": "1000"})
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
    assert_well(server)


def test_clients_with_a_certificate(mutual: TlsServer) -> None:
    assert_well(mutual)


@pytest.mark.parametrize("own", ["", "stranger"])
def test_clients_without_the_right_one(
    mutual: TlsServer, certificates: Certificates, own: str
) -> None:
    context = client_context(certificates, own)
    connection = http.client.HTTPSConnection(
        "127.0.0.1", mutual.port, timeout=LIMIT, context=context
    )
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(connection, "GET", "/v2/health/live")
    connection.close()
    assert_well(mutual)


def test_mutual_tls_authenticates(
    package: Path, certificates: Certificates, tmp_path: Path
) -> None:
    """Whoever has a certificate needs no key, also on an address that others reach."""
    flags = ["--host", "0.0.0.0", "--tls-client-ca", str(certificates["ca"])]
    with running(tmp_path / "home", package, certificates, flags, "client") as server:
        assert_well(server)


#: Flags, and what the message says.
WRONG = {
    "no key": (["--tls-cert", "server"], "--tls-cert is given without --tls-key"),
    "no certificate": (["--tls-key", "server.key"], "--tls-key is given without --tls-cert"),
    "only clients": (["--tls-client-ca", "ca"], "there is no TLS"),
    "missing certificate": (["--tls-cert", "x", "--tls-key", "server.key"], "certificate file not found"),  # noqa: E501
    "missing key": (["--tls-cert", "server", "--tls-key", "x.key"], "key file not found"),
    "missing authorities": (
        ["--tls-cert", "server", "--tls-key", "server.key", "--tls-client-ca", "x"],
        "client authorities file not found",
    ),
    "a key of another": (["--tls-cert", "server", "--tls-key", "client.key"], "does not belong to"),
    "encrypted key": (["--tls-cert", "server", "--tls-key", "locked.key"], "the TLS key is encrypted"),  # noqa: E501
    "swapped": (["--tls-cert", "server.key", "--tls-key", "server"], "no certificate in PEM form"),
    "DER": (["--tls-cert", "server.der", "--tls-key", "server.key"], "no certificate in PEM form"),
    "empty": (["--tls-cert", "empty", "--tls-key", "server.key"], "no certificate in PEM form"),
    "no key in it": (["--tls-cert", "server", "--tls-key", "text"], "cannot be used"),
    "empty authorities": (
        ["--tls-cert", "server", "--tls-key", "server.key", "--tls-client-ca", "empty"],
        "no certificate in PEM form in the client authorities",
    ),
}  # fmt: skip


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("flags", "message"), WRONG.values(), ids=WRONG)
def test_files_that_do_not_do(
    package: Path,
    certificates: Certificates,
    launch: Serve,
    transport: str,
    flags: list[str],
    message: str,
) -> None:
    words = [word if word.startswith("--") else str(certificates[word]) for word in flags]
    server = launch([package], [*words, *TRANSPORTS[transport]])
    assert server.wait_exit() == 2, server.log()
    assert message in server.log()
    assert server.log().startswith("error: ")
    assert "Traceback" not in server.log()


def curl(server: RunningServer, *words: str, body: bytes = BODY) -> tuple[str, bytes]:
    """The version that curl spoke, and the answer."""
    scheme = "https" if isinstance(server, TlsServer) else "http"
    done = subprocess.run(
        [
            *("curl", "--silent", "--show-error", "--max-time", str(int(LIMIT))),
            *("--write-out", "\n%{http_version} %{response_code}", *words),
            f"{scheme}://127.0.0.1:{server.port}{PATH}",
        ],
        input=body,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer, _, written = done.stdout.rpartition(b"\n")
    return written.decode(), answer


def test_curl_chooses_by_alpn(server: TlsServer, certificates: Certificates) -> None:
    version = "2" if "--http2" in server._flags else "1.1"
    for more in ([], ["-H", "Expect: 100-continue"]):
        words = ["--http2", "--cacert", str(certificates["ca"]), "--data-binary", "@-", *more]
        written, answer = curl(server, *words)
        assert written == f"{version} 200"
        assert json.loads(answer) == GOOD


@pytest.fixture(scope="module", params=TRANSPORTS)
def plain(
    request: pytest.FixtureRequest, module_path: Path, package: Path
) -> Iterator[RunningServer]:
    home = module_path / f"plain-{request.param}"
    with RunningServer(home, [package], TRANSPORTS[request.param]) as server:
        yield server
        assert "Traceback" not in server.log()


def test_http2_with_prior_knowledge(plain: RunningServer) -> None:
    if "--http2" not in plain._flags:
        with plain.socket() as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 400"
        return
    written, answer = curl(plain, "--http2-prior-knowledge", "--data-binary", "@-")
    assert (written, json.loads(answer)) == ("2 200", GOOD)
    # Without a length: the body ends with the stream.
    words = ["--http2-prior-knowledge", "-X", "POST", "-T", "-"]
    written, answer = curl(plain, *words, body=BODY + b" " * 300_000)
    assert (written, json.loads(answer)) == ("2 200", GOOD)


def test_a_wish_for_http2_is_answered_in_one(plain: RunningServer) -> None:
    """``Upgrade: h2c`` is deprecated (RFC 9113 §3.1); it may be ignored, and is."""
    written, answer = curl(plain, "--http2", "--data-binary", "@-")
    assert (written, json.loads(answer)) == ("1.1 200", GOOD)
