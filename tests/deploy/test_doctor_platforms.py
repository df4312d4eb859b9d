"""`doctor` and what platforms are known for: their front ends, and what they say."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from modelport import adapters
from modelport.adapters import adapters_of
from modelport.core.errors import InputError
from modelport.core.package import Package
from modelport.deploy.diagnosis import (
    connection,
    diagnose_endpoint,
    endpoint,
)
from modelport.deploy.diagnosis.failures import failures_of, read_failures
from modelport.deploy.verify import protocols
from tests.serve.running import RunningServer

from .front import forward, front
from .patients import KEY, at, only, quiet, through


@pytest.fixture(scope="module")
def server(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("doctor"), [package.path]) as running:
        yield running


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELPORT_API_KEY", raising=False)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for what never answers."""
    monkeypatch.setattr(connection, "_TIMEOUT", 1.0)
    monkeypatch.setattr(connection, "USUAL_PORTS", {})


#: Whose front end it is, what it answers to every request, and the failure that it is.
FRONTS = {
    "lambda-stage": ("lambda", 403, '{"message":"Missing Authentication Token"}'),
    "lambda-size": ("lambda", 413, '{"message":"Request Entity Too Large"}'),
    "lambda-gateway-time-out": ("lambda", 504, '{"message":"Endpoint request timed out"}'),
    "lambda-gateway-502": ("lambda", 502, '{"message":"Internal server error"}'),
    "cloudrun-forbidden": ("cloudrun", 403, "<title>403 Forbidden</title> Your client does not "
                           "have permission to get URL / from this server."),
    "cloudrun-size": ("cloudrun", 413, "<title>413 Request Entity Too Large</title>"),
    "vertex-size": ("vertex", 400, '{"error": {"code": 400, "message": "Request payload size '
                    'exceeds the limit: 1572864 bytes.", "status": "FAILED_PRECONDITION"}}'),
    "vertex-predictions": ("vertex", 500, '{"error": {"message": "Invalid JSON in prediction '
                           'response: malformed"}}'),
    "azureml-424": ("azureml", 424, "Failed Dependency"),
    "azureml-429": ("azureml", 429, "too many pending requests"),
    "azureml-408": ("azureml", 408, "upstream request timeout"),
    "azure-functions-time-out": ("azure-functions", 504, "504.0 GatewayTimeout"),
    "azure-functions-key": ("azure-functions", 401, ""),
}  # fmt: skip


@pytest.mark.parametrize("failure", FRONTS)
@pytest.mark.parametrize("with_package", [True, False])
def test_what_a_platform_s_front_end_is_known_for(
    failure: str, with_package: bool, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, status, body = FRONTS[failure]
    monkeypatch.setattr(protocols, "_HOSTS", (("127.0.0.1", platform),))
    monkeypatch.setenv("MODELPORT_API_KEY", KEY)
    (row,) = [row for row in read_failures() if row.id == failure]
    content = {"content-type": "text/html" if "<" in body else "application/json"}
    with front(lambda *_: (status, content, body.encode())) as url:
        found = only(url, package if with_package else None)
    assert (found.cause, found.remedy, found.source) == (row.cause, row.remedy, row.source)
    assert found.weight == "fault"
    assert str(status) in found.symptom


def test_healthz_on_cloud_run(
    server: RunningServer, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "_HOSTS", (("127.0.0.1", "cloudrun"),))
    with through(server, {"/healthz": (404, {}, b"")}) as url:
        assert "keeps some paths that end in z" in only(f"{url}/healthz").cause
        assert diagnose_endpoint(url, package, quiet) == []


def test_every_known_failure_is_reproduced() -> None:
    told = {failure for messages in MESSAGES.values() for failure in messages.values()}
    assert {row.id for row in read_failures()} - told - set(FRONTS) - {"cloudrun-healthz"} == set()


@pytest.mark.parametrize("url", ["sagemaker://eu-west-1/churn", "lambda://eu-west-1/churn"])
def test_what_only_a_sdk_asks_needs_a_package(url: str) -> None:
    with pytest.raises(InputError) as caught:
        diagnose_endpoint(url, None, quiet)
    assert "PACKAGE" in caught.value.hint


def test_a_front_that_lets_through_one_route_is_not_called_healthy(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_ONE_ROUTE", ("127.0.0.1",))
    found = only(at(server))
    assert found.weight == "note"
    assert "nothing else was asked" in found.symptom


def test_a_sdk_that_is_missing_is_told_as_such(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "modelport.deploy.access.sagemaker", raising=False)
    adapters._instance.cache_clear()
    found = only("sagemaker://eu-west-1/churn", package)
    assert "SDK" in found.cause
    assert "pip install" in found.remedy


def test_an_address_that_wants_signatures_is_refused(package: Package) -> None:
    url = "https://runtime.sagemaker.eu-west-1.amazonaws.com/endpoints/churn/invocations"
    with pytest.raises(InputError, match="have to be signed"):
        diagnose_endpoint(url, package, quiet)


def test_the_function_s_key_is_sent_to_functions(
    server: RunningServer, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "_HOSTS", (("127.0.0.1", "azure-functions"),))

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        if headers.get("x-functions-key") != KEY:
            return 401, {}, b""
        if not path.startswith("/api/"):
            return 404, {}, b""
        return forward(server.port, path.removeprefix("/api"), method, headers, body)

    with front(reply) as url:
        assert "asks for a function key" in only(url, package).cause
        monkeypatch.setenv("MODELPORT_API_KEY", KEY)
        assert diagnose_endpoint(url, package, quiet) == []
        assert diagnose_endpoint(f"{url}/api/v2/models/churn/infer", package, quiet) == []
        wrong = only(f"{url}/api/v2/models/nobody/infer", package)
        assert "no model nobody; it has: churn" in wrong.symptom


# What platforms say, in their own words, and the failure that it is.
MESSAGES = {
    "sagemaker": {
        "ClientError: The role 'arn:aws:iam::1:role/x' does not grant permission to pull":
            "sagemaker-image-access",
        "The primary container for production variant AllTraffic did not pass the ping health "
        "check. Please check CloudWatch logs for this endpoint.": "sagemaker-ping",
        "The account-level service limit 'ml.m5.large for endpoint usage' is 0 Instances, with "
        "current utilization of 0 Instances (ResourceLimitExceeded)": "sagemaker-quota",
        "exec /usr/bin/python: exec format error": "exec-format",
        'An error occurred (ModelError): Received server error (500) from primary with message "b"':
            "sagemaker-model-error",
    },
    "lambda": {
        "INIT_REPORT Init Duration: 9999.64 ms Phase: init Status: timeout": "lambda-init",
        "Malformed Lambda proxy response": "lambda-gateway-502",
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
    "azure-functions": {
        "HTTP/1.1 401 Unauthorized": "azure-functions-key",
        "POST https://churn.azurewebsites.net/v2/models/churn/infer 404 Not Found":
            "azure-functions-routes",
    },
    "docker": {
        "nginx: client intended to send too large body: 2097152 bytes": "too-large",
        "SyntaxError: Unexpected token N in JSON at position 17": "not-a-number",
        "error: refuses to listen on 0.0.0.0 without a key": "anonymous",
    },
    "kubernetes": {
        "Warning BackOff: Back-off restarting failed container": "kubernetes-crash",
        "dial tcp 10.0.0.7:8080: i/o timeout": "kubernetes-policy",
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


@pytest.mark.parametrize(
    "message", ["a" * 1_000_000, "0/" * 200_000, "NaN" * 100_000, "/v1/" * 30_000, "404 " * 30_000]
)
def test_long_messages_take_no_time(message: str) -> None:
    start = time.process_time()
    failures_of("", message)
    assert time.process_time() - start < 5  # what backtracks takes minutes
