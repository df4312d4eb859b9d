"""What is wrong with an endpoint: connection, routes, readiness, names, keys, sizes, answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from modelport.core.errors import InputError
from modelport.core.package import Package
from modelport.deploy.diagnosis.answers import diagnose_answers
from modelport.deploy.diagnosis.base import FAULT, NOTE, WARNING, Finding
from modelport.deploy.diagnosis.connection import diagnose_connection, read_place
from modelport.deploy.diagnosis.patient import Patient
from modelport.deploy.diagnosis.routes import READY, diagnose_routes
from modelport.deploy.diagnosis.served import diagnose_name
from modelport.deploy.verify.address import read_address
from modelport.deploy.verify.protocols import platform_of, protocol_of_address
from modelport.deploy.verify.web import WebCarrier, own_key

Report = Callable[[str], None]

_TIMEOUT: Final = 10.0
#: Hosts that let through the route of inference alone.
_ONE_ROUTE: Final = (
    "-aiplatform.googleapis.com", ".prediction.vertexai.goog", ".inference.ml.azure.com",
)  # fmt: skip


def diagnose_endpoint(url: str, package: Package | None, report: Report) -> list[Finding]:
    """Find out what is wrong with an endpoint; an empty list: nothing was found.

    Parameters
    ----------
    url : str
        Of the server, or of a route on it.
    package : Package or None
        What it should serve: then names, signatures and answers are compared, too.
    report : callable

    Raises
    ------
    InputError
        When `url` is no address, or only answers to a model's rows and there is no `package`.
    """
    protocol_of_address(url)  # refuses what has to be asked at another address
    if read_address(url).scheme in ("sagemaker", "lambda"):
        if package is None:
            raise InputError(
                f"{url} is asked through its SDK alone, for a model's answers",
                hint=f"modelport doctor {url} PACKAGE",
            )
        return diagnose_answers(url, package, report)
    place = read_place(url)
    report(f"connecting to {place.host}:{place.port}")
    found = diagnose_connection(place)
    if found:
        return found
    key = own_key()
    warnings = _diagnose_place(url, key)
    answers = diagnose_answers(url, package, report) if package is not None else []
    if place.host.endswith(_ONE_ROUTE):
        return [*warnings, *answers, *([] if package else [_unasked(url)])]
    carrier = WebCarrier(url, _headers(key, platform_of(url)), _TIMEOUT)
    try:
        platform = platform_of(url)
        base = _base(url, package)
        # Routes of functions are below /api, which people leave out.
        base = base or ("/api" if platform == "azure-functions" else "")
        patient = Patient(url, base, platform, carrier, {})
        report(f"asking {url} for the routes of known contracts")
        routes = diagnose_routes(patient, has_key=bool(key))
        if package is None:
            return [*warnings, *routes]
        if not _faults(answers):
            # It answers as it should, whatever other routes a front end lets through; but who is
            # not ready gets no traffic from a platform.
            faults = [f for f in _faults(routes) if not f.symptom.startswith(READY)]
            return [*warnings, *(f for f in routes if f not in faults), *answers]
        if _faults(routes):
            return [*warnings, *routes]
        return [*warnings, *routes, *(diagnose_name(patient, package) or answers)]
    finally:
        carrier.close()


def _unasked(url: str) -> Finding:
    return Finding(
        "the host answers, and nothing else was asked",
        "its front end lets through the route of inference alone, which takes a model's rows",
        f"modelport doctor {url} PACKAGE",
        NOTE,
    )


def _headers(key: str, platform: str) -> dict[str, str]:
    if not key:
        return {}
    own = {"x-functions-key": key} if platform == "azure-functions" else {"x-api-key": key}
    return {"authorization": f"Bearer {key}", **own}


def _faults(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.weight == FAULT]


def _base(url: str, package: Package | None) -> str:
    """The path before the routes of contracts."""
    path = read_address(url).path.rstrip("/")
    for mark in ("/v2/", "/v1/models", "/v1/endpoints", "/v1/projects"):
        if mark in path:
            return path.partition(mark)[0]
    for ending in ("/invocations", "/score", "/ping", "/v2", "/healthz"):
        path = path.removesuffix(ending)
    return "" if package is not None and path == f"/{package.manifest.name}" else path


def _diagnose_place(url: str, key: str) -> list[Finding]:
    parts = read_address(url)
    if not key or parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1"):
        return []
    return [
        Finding(
            "the key travels without TLS",
            "the address begins with http://: everybody on the way can read the key",
            "use https://, or --tls-cert and --tls-key",
            WARNING,
        )
    ]
