"""Names, ports and TLS: why nobody answers, or not in HTTP."""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from modelport.deploy.diagnosis.base import Finding
from modelport.deploy.verify.address import read_server

#: Ports of model servers and of what stands before them, and whose they are by default.
USUAL_PORTS: Final = {
    8080: "modelport, KServe, SageMaker, Vertex AI, Cloud Run",
    8501: "TensorFlow Serving, REST",
    8500: "TensorFlow Serving, gRPC",
    8000: "Triton, HTTP",
    8001: "Triton, gRPC",
    9000: "modelport, gRPC",
    5001: "Azure ML's inference server",
    5000: "MLflow",
    80: "HTTP",
    443: "HTTPS",
}

_TIMEOUT: Final = 5.0
_GLANCE: Final = 0.5
#: How a TLS record begins: an alert, of TLS 1.x. (RFC 8446, section 5.1.)
_TLS_ALERT: Final = b"\x15\x03"


@dataclass(frozen=True)
class Place:
    """Where a URL points."""

    url: str
    scheme: str
    host: str
    port: int

    @property
    def secure(self) -> bool:
        """Whether it is meant to be reached through TLS."""
        return self.scheme == "https"


def read_place(url: str) -> Place:
    """Where a URL points.

    Raises
    ------
    InputError
        When it is no address of a web server, or holds a password.
    """
    parts = read_server(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Place(url, parts.scheme, parts.hostname or "", port)


def diagnose_connection(place: Place) -> list[Finding]:
    """Find out why no HTTP can be had at a place; empty: it can."""
    try:
        socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [
            Finding(
                f"the name {place.host} has no address ({error})",
                "the name is misspelt, the endpoint is gone, or it is private to another network",
                "compare it with what 'modelport deploy status' shows; a name inside a cluster "
                "needs 'kubectl port-forward'",
            )
        ]
    try:
        with socket.create_connection((place.host, place.port), timeout=_TIMEOUT):
            pass
    except TimeoutError:
        return [
            Finding(
                f"port {place.port} of {place.host} does not answer within {_TIMEOUT:g} s",
                "a firewall, a security group or a network policy drops the packets",
                "allow this client there, or ask from inside that network",
            )
        ]
    except OSError as error:
        return [_refused(place, error)]
    return _diagnose_tls(place) if place.secure else _diagnose_plain(place)


def _refused(place: Place, error: OSError) -> Finding:
    others = [port for port in USUAL_PORTS if port != place.port and _listens(place.host, port)]
    symptom = f"nothing listens at port {place.port} of {place.host} ({error.strerror or error})"
    if others:
        told = "; ".join(f"{port} ({USUAL_PORTS[port]})" for port in others)
        return Finding(
            symptom,
            f"the server listens at another port; these answer: {told}",
            "use one of these ports, or start the server with --port "
            f"{place.port}; platforms set theirs by PORT, AIP_HTTP_PORT or SAGEMAKER_BIND_TO_PORT",
        )
    return Finding(
        symptom,
        "the server is not running or not ready to listen, or it listens on 127.0.0.1 alone, "
        "which is not reached from outside its container or machine",
        "look at its log; in a container set MODELPORT_HOST=0.0.0.0 and publish the port",
    )


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_GLANCE):
            return True
    except OSError:
        return False


def _diagnose_tls(place: Place) -> list[Finding]:
    try:
        with (
            _raw(place) as raw,
            ssl.create_default_context().wrap_socket(raw, server_hostname=place.host) as secured,
        ):
            return _diagnose_client_certificate(place, secured)
    except ssl.SSLCertVerificationError as error:
        return [
            Finding(
                f"the certificate of {place.host} is not trusted: {error.verify_message}",
                "it is self-signed or of a private authority, has expired, or is for another name",
                "set SSL_CERT_FILE to the authority's certificate; or ask by the name in it",
            )
        ]
    except ssl.SSLError as error:
        if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER_FAILURE" in str(error):
            return [
                Finding(
                    f"port {place.port} does not speak TLS",
                    "the server has no certificate, and speaks plain HTTP",
                    f"use http://, or start it with --tls-cert and --tls-key ({place.url})",
                )
            ]
        return [_odd_tls(place, error)]
    except OSError as error:
        return [_odd_tls(place, error)]


def _diagnose_client_certificate(place: Place, secured: ssl.SSLSocket) -> list[Finding]:
    """With TLS 1.3 a server asks for the client's certificate after the handshake."""
    with contextlib.suppress(TimeoutError):
        try:
            secured.settimeout(_TIMEOUT)
            secured.sendall(_request(place))
            if secured.recv(1):
                return []
        except OSError as error:
            if not any(word in str(error).upper() for word in ("CERTIFICATE", "RESET", "EOF")):
                return [_odd_tls(place, error)]
        return [
            Finding(
                "the server closes the connection after the handshake: it wants a certificate",
                "it was started with --tls-client-ca: clients have to show a certificate",
                "ask through a client that has one; modelport's own clients show none",
            )
        ]
    return []


def _odd_tls(place: Place, error: OSError) -> Finding:
    return Finding(
        f"the TLS handshake with {place.host}:{place.port} fails ({error})",
        "the server takes no version or cipher of this client, or demands a client certificate",
        "the oldest version that both must speak is TLS 1.2",
    )


def _diagnose_plain(place: Place) -> list[Finding]:
    """Whether what answers plain bytes is HTTP at all."""
    try:
        with _raw(place) as raw:
            raw.sendall(_request(place))
            first = raw.recv(64)
    except TimeoutError:
        return [
            Finding(
                f"port {place.port} takes a request and says nothing for {_TIMEOUT:g} s",
                "the server is overloaded, or blocked by a long inference, or is no HTTP server",
                "look at its log; give it more replicas; probes have to be answered within 2 s",
            )
        ]
    except OSError:
        first = b""
    if first.startswith(b"HTTP/"):
        return []
    if first.startswith(_TLS_ALERT) or (not first and _speaks_tls(place)):
        return [
            Finding(
                f"port {place.port} does not speak plain HTTP",
                "the server speaks TLS",
                f"use https://{place.host}:{place.port}",
            )
        ]
    if first[3:4] == b"\x04" and first.startswith(b"\x00\x00"):  # a SETTINGS frame, RFC 9113
        return [
            Finding(
                f"port {place.port} speaks HTTP/2 alone",
                "it is the server's gRPC port",
                "use its HTTP port (modelport: 8080, or --port); gRPC clients use this one",
            )
        ]
    return [
        Finding(
            f"port {place.port} answers no HTTP: {first[:20]!r}",
            "another program listens there, or it closes connections at once",
            "compare the port with the server's log, and with what the container publishes",
        )
    ]


def _speaks_tls(place: Place) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent, and nothing that is read is believed
    try:
        with _raw(place) as raw, context.wrap_socket(raw, server_hostname=place.host):
            return True
    except OSError:
        return False


def _raw(place: Place) -> socket.socket:
    return socket.create_connection((place.host, place.port), timeout=_TIMEOUT)


def _request(place: Place) -> bytes:
    host = f"[{place.host}]" if ":" in place.host else place.host.encode("idna").decode()
    return f"GET /v2/health/live HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode()
