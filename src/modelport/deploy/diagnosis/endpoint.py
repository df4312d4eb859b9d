"""What is wrong with an endpoint: routes, readiness, names, keys, sizes, times, answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from modelport.core.errors import (
    DeadlineError,
    EngineError,
    LimitError,
    ModelportError,
    UnauthenticatedError,
    UnavailableError,
)
from modelport.core.options import ClientOptions
from modelport.core.package import Package
from modelport.core.settings import resolve
from modelport.deploy.diagnosis.base import FAULT, NOTE, WARNING, Finding
from modelport.deploy.diagnosis.connection import diagnose_connection, read_place
from modelport.deploy.verify.base import Answer, Ask
from modelport.deploy.verify.protocols import AUTO
from modelport.deploy.verify.stage import ask_endpoint
from modelport.deploy.verify.v2 import DATATYPES
from modelport.deploy.verify.web import WebCarrier, said, send

Report = Callable[[str], None]

_TIMEOUT: Final = 10.0
#: SageMaker's ping and Azure ML's probes are given up after this. Sources: SageMaker developer
#: guide, "How containers serve requests"; Azure ML, "CLI (v2) managed online deployment YAML".
_PROBE_SECONDS: Final = 2.0

#: Contracts, and the GET route of each that tells it apart.
_CONTRACTS: Final = (
    ("Open Inference V2", "/v2"),
    ("Open Inference V2 below /api (Azure Functions)", "/api/v2"),
    ("TensorFlow Serving or KServe V1", "/v1/models"),
    ("SageMaker, MLflow or TorchServe", "/ping"),
    ("MLflow", "/version"),
    ("Azure ML", "/swagger.json"),
    ("OpenAPI", "/openapi.json"),
)
_READY: Final = "/v2/health/ready"
#: Hosts that let through the route of inference alone.
_ONE_ROUTE: Final = (
    "-aiplatform.googleapis.com", ".prediction.vertexai.goog", ".inference.ml.azure.com",
)  # fmt: skip


@dataclass(frozen=True)
class _Patient:
    """An endpoint that answers HTTP, and what it answered at the routes that were tried."""

    url: str
    base: str
    carrier: WebCarrier
    answers: dict[str, Answer]

    def get(self, path: str) -> Answer | None:
        """The answer at a path below the base, asked once; None when there is none."""
        if path not in self.answers:
            try:
                self.answers[path] = send(self.carrier, Ask("GET", self.base + path), self.url)
            except ModelportError:
                return None
        return self.answers[path]

    def names(self) -> list[str]:
        """The models that the server says it has."""
        for path in ("/v2/models", "/v1/models"):
            answer = self.get(path)
            found = _json(answer) if answer is not None and answer.status == 200 else None
            models = found.get("models") if isinstance(found, dict) else found
            if isinstance(models, list):
                names = [m.get("name") if isinstance(m, dict) else m for m in models]
                return sorted({str(name) for name in names if name})
        return []


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
        When `url` is no address.
    """
    if urlsplit(url).scheme in ("sagemaker", "lambda"):
        return _diagnose_answers(url, package, report) if package else []
    place = read_place(url)
    report(f"connecting to {place.host}:{place.port}")
    found = diagnose_connection(place)
    if found:
        return found
    key = resolve(ClientOptions).api_key
    warnings = _diagnose_place(url, key)
    answers = _diagnose_answers(url, package, report) if package is not None else []
    if place.host.endswith(_ONE_ROUTE):
        return [*warnings, *answers]
    headers = {"authorization": f"Bearer {key}", "x-api-key": key} if key else {}
    carrier = WebCarrier(url, headers, _TIMEOUT)
    try:
        patient = _Patient(url, _base(url, package), carrier, {})
        report(f"asking {url} for the routes of known contracts")
        routes = _diagnose_routes(patient, has_key=bool(key))
        if package is not None and not _faults(answers):
            # It answers as it should, whatever other routes a front end lets through; but who is
            # not ready gets no traffic from a platform.
            faults = [f for f in _faults(routes) if not f.symptom.startswith(_READY)]
            return [*warnings, *(f for f in routes if f not in faults), *answers]
        if _faults(routes) or package is None:
            return [*warnings, *routes]
        return [*warnings, *routes, *(_diagnose_name(patient, package) or answers)]
    finally:
        carrier.close()


def _faults(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.weight == FAULT]


def _base(url: str, package: Package | None) -> str:
    """The path before the routes of contracts."""
    path = urlsplit(url).path.rstrip("/")
    for mark in ("/v2/", "/v1/models", "/v1/endpoints", "/v1/projects"):
        if mark in path:
            return path.partition(mark)[0]
    for ending in ("/invocations", "/score", "/ping", "/v2", "/healthz"):
        path = path.removesuffix(ending)
    return "" if package is not None and path == f"/{package.manifest.name}" else path


def _diagnose_routes(patient: _Patient, *, has_key: bool) -> list[Finding]:
    """Which contracts answer, and what the others' statuses mean."""
    answers = {path: answer for _, path in _CONTRACTS if (answer := patient.get(path)) is not None}
    if not answers:
        return [
            Finding(
                f"{patient.url} answers no request within {_TIMEOUT:g} s",
                "the server is overloaded or blocked by a long inference",
                "look at its log; give it more replicas or a larger machine",
            )
        ]
    refused = [a for a in answers.values() if a.status in (401, 403)]
    if refused and not any(a.status == 200 for a in answers.values()):
        return [_locked_out(refused[0], has_key=has_key)]
    ready = patient.get(_READY)
    if ready is not None and ready.status == 503 and patient.get("/v2/health/live"):
        return [_not_ready(ready)]
    found = []
    gateway = next((a for a in answers.values() if a.status in (502, 503, 504)), None)
    if gateway is not None and not any(a.status == 200 for a in answers.values()):
        return [_no_healthy_server(gateway)]
    contracts = [name for name, path in _CONTRACTS if _ok(answers.get(path))]
    if not contracts:
        found.append(_another_program(patient, answers))
    slow = max(answers.values(), key=lambda answer: answer.seconds)
    if slow.seconds > _PROBE_SECONDS:
        found.append(
            Finding(
                f"a health route took {slow.seconds:.1f} s",
                "SageMaker's ping and Azure ML's probes are given up after 2 s, then the container "
                "is taken for dead ('did not pass the ping health check')",
                "more processors, or fewer requests at a time for each instance",
                WARNING,
            )
        )
    found += _diagnose_own_route(patient, contracts)
    return found


def _ok(answer: Answer | None) -> bool:
    return answer is not None and answer.status == 200 and not _is_page(answer)


def _diagnose_own_route(patient: _Patient, contracts: list[str]) -> list[Finding]:
    """What the URL's own path answers, where it names a route."""
    path = urlsplit(patient.url).path
    if path.rstrip("/").endswith("/healthz") and ".run.app" in patient.url:
        return [
            Finding(
                "/healthz answers 404 on Cloud Run",
                "Google's front end keeps paths that end in z, and answers them itself",
                "probe /v2/health/ready, or any path that does not end in z",
                source="https://cloud.google.com/run/docs/known-issues#ah",
            )
        ]
    own = path[len(patient.base) :].rstrip("/")
    if not own or own == "/v2" or not contracts or own.removeprefix("/") in patient.names():
        return []
    answer = patient.get(own)
    # Routes of inference take POST alone: 405 says that they are there, TF Serving's 400, too.
    if answer is None or answer.status not in (404, 501):
        return []
    if "/models/" in own:
        return []  # the name of the model is looked at by itself
    return [
        Finding(
            f"{path} answers {answer.status}",
            f"this server has no such route; it speaks: {'; '.join(contracts)}",
            "use a route of these, or start it with --predict-route "
            f"{path}; routes differ in upper and lower case and in slashes",
        )
    ]


def _locked_out(answer: Answer, *, has_key: bool) -> Finding:
    text = said(answer)
    symptom = f"every route answers {answer.status}: {text}"
    if "Missing Authentication Token" in text:
        return Finding(
            symptom,
            "API Gateway says this of paths that it does not have: the stage is missing",
            "add the stage to the address: https://ID.execute-api.REGION.amazonaws.com/STAGE",
        )
    if answer.status == 403 and not has_key:
        return Finding(
            symptom,
            "the platform's front end lets in nobody without a right to this service (IAM)",
            "set MODELPORT_API_KEY to a token of somebody who has that right "
            "(gcloud auth print-identity-token; az account get-access-token)",
        )
    if has_key:
        return Finding(
            symptom,
            "the key in MODELPORT_API_KEY is not one of this server's, or a token has expired, or "
            "a front end takes the header Authorization for itself",
            "compare it with the secret that the server reads (MODELPORT_API_KEY, "
            "--api-key-file); send X-API-Key where a proxy takes Authorization",
        )
    return Finding(
        symptom,
        "no key was sent: MODELPORT_API_KEY is not set here",
        "export MODELPORT_API_KEY=… with a key of this server",
    )


def _not_ready(answer: Answer) -> Finding:
    return Finding(
        f"{_READY} answers 503 ({said(answer)})",
        "the server runs and its models are still loading, or one failed: a model is ready only "
        "after it has answered its golden records",
        "wait, then look at the server's log for the model that failed; give probes more time "
        "(start-up probe, startup-timeout)",
    )


def _no_healthy_server(answer: Answer) -> Finding:
    return Finding(
        f"every route answers {answer.status}: {said(answer)}",
        "a front end answers, and no healthy server is behind it: it is starting, was killed for "
        "its memory, listens at another port than the front end asks, or listens on 127.0.0.1",
        "look at the container's log and exit code (137: out of memory); compare its port with "
        "the platform's; set MODELPORT_HOST=0.0.0.0",
    )


def _another_program(patient: _Patient, answers: dict[str, Answer]) -> Finding:
    first = next(iter(answers.values()))
    if 300 <= first.status < 400:
        return Finding(
            f"every route is redirected to {first.headers.get('location', 'nowhere')}",
            "a front end wants a login, HTTPS or another host",
            "use that address, if it is the service's; keys are never sent after a redirect",
        )
    server = first.headers.get("server", "")
    statuses = ", ".join(f"{path}: {answer.status}" for path, answer in answers.items())
    return Finding(
        f"no route of a model server answers ({statuses})",
        f"another program answers at this port{f' ({server})' if server else ''}, or the service "
        f"is below another path than {patient.base or '/'}",
        "add the base path (a stage of API Gateway, the path of an Ingress, /api of Azure "
        "Functions), or use the server's own port",
    )


def _diagnose_place(url: str, key: str) -> list[Finding]:
    parts = urlsplit(url)
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


def _diagnose_name(patient: _Patient, package: Package) -> list[Finding]:
    """Whether the server has the package's model, and whether it is the same one."""
    name = _named(patient.url) or package.manifest.name
    answer = patient.get(f"/v2/models/{quote(name, safe='')}")
    if answer is None or not _ok(patient.get("/v2")):
        answer = patient.get(f"/v1/models/{quote(name, safe='')}")
        if answer is None or not _ok(patient.get("/v1/models")):
            return []
    if answer.status == 404:
        names = patient.names()
        told = f"; it has: {', '.join(names)}" if names else ""
        return [
            Finding(
                f"the server has no model {name}{told}",
                "it was started under another name (--name, --model_name; KServe calls the model "
                "as its InferenceService), or with another package",
                f"ask for {patient.base or ''}/v2/models/{names[0]}/infer"
                if len(names) == 1
                else "name the model in the address: …/v2/models/NAME/infer",
            )
        ]
    metadata = _json(answer)
    return _diagnose_signature(metadata, package) if isinstance(metadata, dict) else []


def _diagnose_signature(metadata: dict[str, Any], package: Package) -> list[Finding]:
    found = []
    for side in ("inputs", "outputs"):
        told = metadata.get(side)
        if not isinstance(told, list):
            continue
        specs = getattr(package.manifest.signature, side)
        expected = {spec.name: DATATYPES[spec.dtype] for spec in specs}
        actual = {str(i.get("name")): i.get("datatype") for i in told if isinstance(i, dict)}
        if actual != expected:
            found.append(
                Finding(
                    f"the server's {side} are {_listed(actual)}, the package's {_listed(expected)}",
                    "another version of the model, or another model of this name, is served",
                    "compare 'modelport history NAME' with what was deployed",
                )
            )
    return found


def _listed(types: dict[str, Any]) -> str:
    return ", ".join(f"{name} {datatype}" for name, datatype in types.items())


def _diagnose_answers(url: str, package: Package, report: Report) -> list[Finding]:
    """Replay the golden records, and say what the failure means."""
    report("replaying the golden records")
    try:
        verification = ask_endpoint(package, url, AUTO, report)
    except ModelportError as error:
        return [_meaning(error)]
    if not verification.agrees:
        differing = "; ".join(c.describe() for c in verification.comparisons if not c.agrees)
        return [
            Finding(
                f"the answers differ from the package's: {differing}",
                "another version is served, or something on the way changes numbers (NaN as null, "
                "large integers as doubles, rounding by a proxy)",
                "compare with --protocol v2; redeploy the package",
            )
        ]
    slowest = max(verification.seconds, default=0.0)
    if verification.seconds and slowest > _PROBE_SECONDS:
        return [
            Finding(
                f"the slowest of {len(verification.seconds)} requests took {slowest:.1f} s",
                "a cold start, or too little processor",
                "keep one instance running (min-instances, provisioned concurrency), or give more",
                NOTE,
            )
        ]
    return []


def _meaning(error: ModelportError) -> Finding:
    """The cause behind an error of `ask_endpoint`."""
    symptom = error.message
    if isinstance(error, LimitError):
        cause, remedy = (
            "a front end or the server takes no request of this size",
            "send fewer rows at a time; our server: --max-body; nginx: client_max_body_size; "
            "the platforms' own limits are in 'modelport deploy --plan'",
        )
    elif isinstance(error, UnauthenticatedError):
        cause, remedy = "the route of inference wants a key, or another one", error.hint
    elif isinstance(error, DeadlineError):
        cause, remedy = (
            "inference takes longer than anybody waits, or the server is overloaded",
            "more processors or replicas; for long ones SageMaker async, or a batch",
        )
    elif isinstance(error, UnavailableError):
        cause, remedy = (
            "the server or its front end is overloaded, starting or shutting down",
            "look at its log; more replicas, or a larger queue (--max-queue)",
        )
    elif isinstance(error, EngineError):
        cause, remedy = (
            "what answers is no model server of this protocol, or the model failed there",
            "look at the server's log; name the protocol with 'modelport verify --protocol'",
        )
    else:
        cause, remedy = (
            "the server understands the request differently than the package says",
            "compare names, types and shapes: 'modelport inspect PACKAGE'",
        )
    return Finding(symptom, cause, remedy)


def _named(url: str) -> str:
    """The model that the URL names."""
    path = urlsplit(url).path
    for mark in ("/v2/models/", "/v1/models/"):
        if mark in path:
            return path.partition(mark)[2].partition("/")[0].partition(":")[0]
    return ""


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def _is_page(answer: Answer) -> bool:
    return "html" in answer.headers.get("content-type", "")
