"""TLS, and certificates of clients: the files, checked before anything listens.

TLS 1.2 is the oldest version that is spoken (RFC 8996 forbids the older ones; several clouds'
health checks know nothing newer).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from modelport.core.errors import InputError, NotFoundError
from modelport.core.options import ServeOptions


def server_context(options: ServeOptions, protocols: Sequence[str]) -> ssl.SSLContext | None:
    """How a server proves who it is, and asks its clients to.

    Parameters
    ----------
    options : ServeOptions
    protocols : sequence of str
        What ALPN offers, best first: ``h2``, ``http/1.1``.

    Returns
    -------
    SSLContext or None
        None without TLS.

    Raises
    ------
    InputError
        When one of the files is missing, damaged, encrypted, or does not fit the others.
    """
    if not options.tls_cert and not options.tls_key:
        if options.tls_client_ca:
            raise InputError(
                "--tls-client-ca asks clients for certificates, and there is no TLS",
                hint="say --tls-cert and --tls-key, too",
            )
        return None
    if not (options.tls_cert and options.tls_key):
        given, lacking = ("cert", "key") if options.tls_cert else ("key", "cert")
        raise InputError(f"--tls-{given} is given without --tls-{lacking}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(list(protocols))
    _load_chain(context, _file("certificate", options.tls_cert), _file("key", options.tls_key))
    if options.tls_client_ca:
        _load_authorities(context, _file("client authorities", options.tls_client_ca))
    return context


def _file(what: str, name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise NotFoundError(f"TLS {what} file", str(path))
    try:
        path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the TLS {what} file: {error.strerror}", where=str(path)
        ) from error
    return path


def _load_chain(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    # OpenSSL says of neither file which of them it means: the certificate is tried first.
    try:
        if not _has_certificate(cert):
            raise InputError("no certificate in PEM form in the TLS certificate", where=str(cert))
        context.load_cert_chain(cert, key, password=_no_password)
    except _EncryptedKeyError:
        raise InputError(
            "the TLS key is encrypted, and nobody is here to type its password",
            where=str(key),
            hint=f"decrypt it with: openssl pkey -in {key.name} -out plain.pem",
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InputError(
                f"the TLS key does not belong to the certificate {cert}", where=str(key)
            ) from error
        raise InputError(
            f"the TLS certificate {cert} and key cannot be used: {error.reason or 'no PEM in it'}",
            where=str(key),
        ) from error


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise InputError(
            "no certificate in PEM form in the client authorities", where=str(path)
        ) from error
    context.verify_mode = ssl.CERT_REQUIRED


def _has_certificate(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


class _EncryptedKeyError(Exception):
    """OpenSSL wants a password."""


def _no_password() -> str:
    raise _EncryptedKeyError
