"""Endpoints behind a platform's SDK, with the real SDKs: boto3, google-auth, azure-identity."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from modelport.adapters import find_adapter
from modelport.core.errors import (
    EngineError,
    InputError,
    ParityError,
    UnauthenticatedError,
    UnavailableError,
)
from modelport.core.package import Package
from modelport.deploy.verify import stage, verify_endpoint
from tests.serve import onnx_models
from tests.serve.packages import build_package
from tests.serve.running import RunningServer, free_port

from .front import forward, front

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("access"), [package.path]) as running:
        yield running


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs these tests has none that count."""
    for name in (
        "MODELPORT_API_KEY", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET",
        "AZURE_TENANT_ID",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")


def quiet(line: str) -> None:
    """Nobody listens."""


def check(package: Package, url: str) -> Any:
    return verify_endpoint(package, url, "auto", quiet, patience=0)


def sagemaker(port: int, seen: list[Mapping[str, str]]) -> Any:
    """SageMaker's front end before a container, as far as its API says."""

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        seen.append(headers)
        assert path == "/endpoints/churn/invocations"
        assert headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
        status, found, answer = forward(port, "/invocations", method, headers, body)
        if status == 200:
            return status, found, answer
        document = {"OriginalStatusCode": status, "OriginalMessage": answer.decode()}
        return 424, {**JSON, "x-amzn-errortype": "ModelError"}, json.dumps(document).encode()

    return front(reply)


@pytest.mark.usefixtures("aws")
def test_sagemaker_through_boto3(
    server: RunningServer, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Mapping[str, str]] = []
    with sagemaker(server.port, seen) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        found = check(package, "sagemaker://eu-west-1/churn?model=a.tar.gz&variant=blue")
    assert found.agrees
    assert (found.protocol, found.records, len(found.seconds)) == ("sagemaker", 4, 4)
    assert {h["x-amzn-sagemaker-target-model"] for h in seen} == {"a.tar.gz"}
    assert {h["x-amzn-sagemaker-target-variant"] for h in seen} == {"blue"}
    assert all("eu-west-1/sagemaker" in h["authorization"] for h in seen)


@pytest.mark.parametrize(
    "url",
    [
        "sagemaker://eu-west-1/churn?profile=the+team",
        "lambda://eu-west-1/churn?qualifier=live&profile=the+team",
    ],
)
def test_the_credentials_are_those_of_the_profile(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    keys = "aws_access_key_id = AKIDTEAM\naws_secret_access_key = example\n"
    config.write_text(f"[profile 'the team']\n{keys}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSOMEBODYELSE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    name = url.partition(":")[0]
    carrier = find_adapter("access", name).load().open(url)
    assert carrier._client._request_signer._credentials.access_key == "AKIDTEAM"
    with pytest.raises(InputError, match="nobody"):
        find_adapter("access", name).load().open(url.replace("the+team", "nobody"))


@pytest.mark.usefixtures("aws")
def test_other_answers_through_boto3(
    server: RunningServer, package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = package.golden()
    assert golden is not None
    other = build_package(
        tmp_path / "other", "churn", onnx_models.dense(), golden.inputs, wrong_output="y"
    )
    with sagemaker(server.port, []) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        with pytest.raises(ParityError):
            check(other, "sagemaker://eu-west-1/churn")


@pytest.mark.usefixtures("aws")
def test_what_the_container_says_comes_through(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        RunningServer(tmp_path / "s", [package.path], ["--max-body", "20"]) as small,
        sagemaker(small.port, []) as url,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        with pytest.raises(EngineError, match=r"ModelError.*the container answered 413"):
            check(package, "sagemaker://eu-west-1/churn")


REFUSALS = {
    "AccessDeniedException": (403, UnauthenticatedError),
    "ThrottlingException": (429, UnavailableError),
    "ValidationError": (400, InputError),
    "ServiceUnavailable": (503, UnavailableError),
    "InternalFailure": (500, EngineError),
}


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("code", REFUSALS)
def test_what_sagemaker_refuses(
    package: Package, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, kind = REFUSALS[code]
    body = json.dumps({"Message": "in its own words"}).encode()
    with front(lambda *_: (status, {**JSON, "x-amzn-errortype": code}, body)) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        with pytest.raises(kind, match="in its own words"):
            check(package, "sagemaker://eu-west-1/churn")


def test_without_aws_credentials(package: Package) -> None:
    with pytest.raises(UnauthenticatedError, match="no credentials"):
        check(package, "sagemaker://eu-west-1/churn")


@pytest.mark.usefixtures("aws")
def test_sagemaker_that_nobody_reaches(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnavailableError, match="no answer"):
        check(package, "sagemaker://eu-west-1/churn")


@pytest.mark.parametrize(
    "url",
    ["sagemaker://", "sagemaker://eu-west-1", "sagemaker://eu-west-1/a/b",
     "sagemaker://eu-west-1/a?colour=red"],
)  # fmt: skip
def test_what_is_no_endpoint_of_sagemaker(package: Package, url: str) -> None:
    with pytest.raises(InputError):
        check(package, url)


def function(port: int, seen: list[str]) -> Any:
    """Lambda's API before a function that answers as the server at `port` does."""

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        seen.append(path)
        event = json.loads(body)
        assert event["version"] == "2.0"
        status, found, answer = forward(
            port, event["rawPath"], event["requestContext"]["http"]["method"], event["headers"],
            base64.b64decode(event["body"]),
        )  # fmt: skip
        document = {"statusCode": status, "headers": found, "body": answer.decode()}
        return 200, JSON, json.dumps(document).encode()

    return front(reply)


@pytest.mark.usefixtures("aws")
def test_lambda_through_boto3(
    server: RunningServer, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    with function(server.port, seen) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", url)
        found = check(package, "lambda://eu-west-1/churn?qualifier=candidate")
        assert (found.agrees, found.protocol, found.records) == (True, "lambda", 4)
        with pytest.raises(InputError, match="404"):
            verify_endpoint(
                package, "lambda://eu-west-1/churn", "v2", quiet, name="nobody", patience=0
            )
    assert "/functions/churn/invocations?Qualifier=candidate" in seen[0]


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "text"),
    [
        (200, {"x-amz-function-error": "Unhandled"}, b'{"errorMessage": "b"}',
         UnavailableError, "502.*b"),
        (200, {}, b"null", UnavailableError, "no HTTP answer"),
        (200, {}, b'{"body": "x"}', UnavailableError, "no HTTP answer"),
        (403, {"x-amzn-errortype": "AccessDeniedException"}, b'{"Message": "no"}',
         UnauthenticatedError, "AccessDenied"),
        (404, {"x-amzn-errortype": "ResourceNotFoundException"}, b'{"Message": "none"}',
         InputError, "none"),
    ],
)  # fmt: skip
def test_what_lambda_refuses(
    package: Package,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    body: bytes,
    kind: type[Exception],
    text: str,
) -> None:
    with front(lambda *_: (status, {**JSON, **headers}, body)) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", url)
        with pytest.raises(kind, match=text):
            check(package, "lambda://eu-west-1/churn")


@pytest.mark.parametrize("url", ["lambda://", "lambda://eu-west-1", "lambda://eu-west-1/a?b=c"])
def test_what_is_no_function_of_lambda(package: Package, url: str) -> None:
    with pytest.raises(InputError):
        check(package, url)


@pytest.fixture
def service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A service account whose tokens come from here; the audiences that were asked for."""
    key = tmp_path / "key.pem"
    subprocess.run(
        ["/usr/bin/openssl", "genpkey", "-algorithm", "RSA", "-out", str(key)],
        check=True, capture_output=True,
    )  # fmt: skip
    asked: list[str] = []

    def tokens(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        assertion = parse_qs(body.decode())["assertion"][0].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(assertion + "=" * (-len(assertion) % 4)))
        asked.append(claims.get("target_audience") or claims["scope"])
        # An identity token that google-auth can read: nobody checks its signature here.
        payload = base64.urlsafe_b64encode(b'{"exp": 4102444800}').decode().rstrip("=")
        document = {"access_token": "the-access-token", "expires_in": 3600}
        document["id_token"] = f"e30.{payload}.c2ln"
        return 200, JSON, json.dumps(document).encode()

    with front(tokens) as url:
        account = {
            "type": "service_account", "client_email": "a@example.iam.gserviceaccount.com",
            "private_key": key.read_text(), "private_key_id": "1", "token_uri": f"{url}/token",
            "project_id": "example",
        }  # fmt: skip
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        yield asked


def test_vertex_gets_an_access_token(service_account: list[str]) -> None:
    carrier = (
        find_adapter("access", "google")
        .load()
        .open("https://europe-west4-aiplatform.googleapis.com/v1/projects/p/endpoints/1:predict")
    )
    assert carrier._headers == {"authorization": "Bearer the-access-token"}
    assert service_account == ["https://www.googleapis.com/auth/cloud-platform"]


@pytest.mark.parametrize("tag", ["", "candidate---"])
def test_cloud_run_gets_an_identity_token_for_the_service(
    service_account: list[str], tag: str
) -> None:
    carrier = find_adapter("access", "google").load().open(f"https://{tag}churn-abc-ew.a.run.app/")
    assert carrier._headers["authorization"].startswith("Bearer e30.")
    assert service_account == ["https://churn-abc-ew.a.run.app"]


def test_without_google_s_credentials() -> None:
    access = find_adapter("access", "google").load()
    with pytest.raises(UnauthenticatedError, match="no credentials of Google Cloud"):
        access.open("https://europe-west4-aiplatform.googleapis.com/v1/x:predict")


def test_tokens_are_for_their_platform_alone() -> None:
    for url in (
        "http://churn-abc.a.run.app",  # without TLS
        "https://run.app.evil.example",
        "https://evilrun.app",
        "https://127.0.0.1",
        "https://evil.example/?x=.run.app",
    ):
        assert not stage._is_platform(url), url
    for url in (
        "https://churn-abc.a.run.app",
        "https://us-central1-aiplatform.googleapis.com/v1/x:predict",
        "https://1.us-central1-2.prediction.vertexai.goog/v1/x:predict",
        "https://churn.westeurope.inference.ml.azure.com/score",
    ):
        assert stage._is_platform(url), url


def test_azure_s_sdk_is_asked_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its credential is the real one; only where the token comes from is played here."""
    from azure.core.credentials import AccessToken
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import DefaultAzureCredential

    asked: list[str] = []

    def token(self: Any, *scopes: str, **more: Any) -> AccessToken:
        asked.extend(scopes)
        return AccessToken("the-token", 4102444800)

    monkeypatch.setattr(DefaultAzureCredential, "get_token", token)
    access = find_adapter("access", "azure").load()
    url = "https://churn.westeurope.inference.ml.azure.com/score"
    assert access.open(url)._headers == {"authorization": "Bearer the-token"}
    assert asked == ["https://ml.azure.com/.default"]

    def refuse(self: Any, *scopes: str, **more: Any) -> AccessToken:
        raise ClientAuthenticationError("nobody is logged in\nand more")

    monkeypatch.setattr(DefaultAzureCredential, "get_token", refuse)
    with pytest.raises(UnauthenticatedError, match="nobody is logged in") as caught:
        access.open(url)
    assert "and more" not in str(caught.value)
    assert "az login" in caught.value.hint


def test_headers_of_a_platform_replace_the_key(
    server: RunningServer, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELPORT_API_KEY", "correct-horse-battery-staple")
    seen: list[Mapping[str, str]] = []

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        seen.append(headers)
        return forward(server.port, path, method, headers, body)

    own = {"authorization": "Bearer short-lived", "azureml-model-deployment": "blue"}
    with front(reply) as url:
        verify_endpoint(package, f"{url}/score", "azureml", quiet, headers=own, patience=0)
    assert {h["authorization"] for h in seen} == {"Bearer short-lived"}
    assert {h["azureml-model-deployment"] for h in seen} == {"blue"}
    assert not any("x-api-key" in h for h in seen)


def test_the_endpoint_s_own_name_of_the_model(package: Package, tmp_path: Path) -> None:
    with RunningServer(tmp_path / "s", [package.path], ["--name", "churn-service"]) as running:
        url = f"http://127.0.0.1:{running.port}"
        for protocol in ("v2", "kserve-v1", "auto"):
            found = verify_endpoint(package, url, protocol, quiet, name="churn-service", patience=0)
            assert found.agrees
