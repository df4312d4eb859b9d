"""Routes, readiness and keys: which contracts an endpoint answers, and why not."""

from __future__ import annotations

from typing import Final

from modelport.deploy.diagnosis.base import WARNING, Finding
from modelport.deploy.diagnosis.failures import explained
from modelport.deploy.diagnosis.patient import Patient, is_ok
from modelport.deploy.verify.address import read_address
from modelport.deploy.verify.base import Answer
from modelport.deploy.verify.web import said, shown

#: SageMaker's ping and Azure ML's probes are given up after this. Sources: SageMaker developer
#: guide, "How containers serve requests"; Azure ML, "CLI (v2) managed online deployment YAML".
PROBE_SECONDS: Final = 2.0

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
READY: Final = "/v2/health/ready"


def diagnose_routes(patient: Patient, *, has_key: bool) -> list[Finding]:
    """Find out which contracts answer, and what the others' statuses mean."""
    answers = {path: answer for _, path in _CONTRACTS if (answer := patient.get(path)) is not None}
    if not answers:
        return [
            Finding(
                f"{patient.url} answers no request within {patient.carrier.timeout:g} s",
                "the server is overloaded or blocked by a long inference",
                "look at its log; give it more replicas or a larger machine",
            )
        ]
    silent = not any(a.status == 200 for a in answers.values())
    known = _known(patient, answers) if silent else None
    if known is not None:
        return [known]
    refused = [a for a in answers.values() if a.status in (401, 403)]
    if refused and silent:
        return [_locked_out(refused[0], has_key=has_key)]
    ready = patient.get(READY)
    if ready is not None and ready.status == 503 and patient.get("/v2/health/live"):
        return [_not_ready(ready)]
    found = []
    gateway = next((a for a in answers.values() if a.status in (502, 503, 504)), None)
    if gateway is not None and silent:
        return [_no_healthy_server(gateway)]
    contracts = [name for name, path in _CONTRACTS if is_ok(answers.get(path))]
    if not contracts:
        found.append(_another_program(patient, answers))
    slow = max(answers.values(), key=lambda answer: answer.seconds)
    if slow.seconds > PROBE_SECONDS:
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


def _known(patient: Patient, answers: dict[str, Answer]) -> Finding | None:
    """What the platform is known for, of what it said."""
    for answer in answers.values():
        text = f"{answer.status}: {said(answer)}"
        found = explained(patient.platform, text, f"every route answers {text}")
        if found is not None:
            return found
    return None


def _diagnose_own_route(patient: Patient, contracts: list[str]) -> list[Finding]:
    """What the URL's own path answers, where it names a route."""
    path = read_address(patient.url).path
    if path.rstrip("/").endswith("/healthz"):
        answer = patient.get("/healthz")
        text = f"healthz answers {answer.status}" if answer is not None else ""
        known = explained(patient.platform, text, f"/{text}")
        return [known] if known is not None else []
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
        f"{READY} answers 503 ({said(answer)})",
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


def _another_program(patient: Patient, answers: dict[str, Answer]) -> Finding:
    first = next(iter(answers.values()))
    if 300 <= first.status < 400:
        return Finding(
            f"every route is redirected to {shown(first.headers.get('location', 'nowhere'))}",
            "a front end wants a login, HTTPS or another host",
            "use that address, if it is the service's; keys are never sent after a redirect",
        )
    server = shown(first.headers.get("server", ""))
    statuses = ", ".join(f"{path}: {answer.status}" for path, answer in answers.items())
    return Finding(
        f"no route of a model server answers ({statuses})",
        f"another program answers at this port{f' ({server})' if server else ''}, or the service "
        f"is below another path than {patient.base or '/'}",
        "add the base path (a stage of API Gateway, the path of an Ingress, /api of Azure "
        "Functions), or use the server's own port",
    )
