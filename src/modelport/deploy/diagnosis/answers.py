"""What an endpoint answers to the golden records, and what a failure of them means."""

from __future__ import annotations

from collections.abc import Callable

from modelport.core.errors import (
    DeadlineError,
    EngineError,
    LimitError,
    MissingPackageError,
    ModelportError,
    UnauthenticatedError,
    UnavailableError,
)
from modelport.core.package import Package
from modelport.deploy.diagnosis.base import NOTE, Finding
from modelport.deploy.diagnosis.failures import explained
from modelport.deploy.diagnosis.routes import PROBE_SECONDS
from modelport.deploy.verify.protocols import AUTO, platform_of
from modelport.deploy.verify.stage import ask_endpoint

Report = Callable[[str], None]


def diagnose_answers(url: str, package: Package, report: Report) -> list[Finding]:
    """Replay the golden records, and say what the failure means."""
    report("replaying the golden records")
    try:
        verification = ask_endpoint(package, url, AUTO, report)
    except ModelportError as error:
        return [_meaning(error, url)]
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
    if verification.seconds and slowest > PROBE_SECONDS:
        return [
            Finding(
                f"the slowest of {len(verification.seconds)} requests took {slowest:.1f} s",
                "a cold start, or too little processor",
                "keep one instance running (min-instances, provisioned concurrency), or give more",
                NOTE,
            )
        ]
    return []


def _meaning(error: ModelportError, url: str) -> Finding:
    """The cause behind an error of `ask_endpoint`."""
    symptom = error.message
    known = explained(platform_of(url), symptom.replace(url, ""), symptom)
    if known is not None:
        return known
    if isinstance(error, MissingPackageError):
        cause, remedy = "the platform's SDK, which finds the credentials, is missing", error.hint
    elif isinstance(error, LimitError):
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
