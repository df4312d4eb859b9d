"""The AWS applier: what AWS says, in the errors that the stage understands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from modelport.core.errors import ConflictError, ModelportError, NotFoundError, PlatformError
from modelport.deploy.appliers import aws
from modelport.deploy.appliers.aws import AwsApplier, AwsConnection, plain, to_request, translate
from modelport.deploy.aws.place import PAIRS
from modelport.deploy.aws.roles import allow, policy
from modelport.deploy.base import Call

REGION = {"region": "eu-west-1"}
ROLE = {"RoleName": "r", "AssumeRolePolicyDocument": '{"Version":"2012-10-17","Statement":[]}'}


def call(service: str, operation: str, **more: Any) -> Call:
    return Call("x", service, operation, more.pop("parameters", {}), "do it", **more)


def refused(code: str, message: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"RequestId": "r-1"}},
        "Operation",
    )


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsConnection]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with mock_aws():
        yield AwsApplier(pause=0.01).connect(REGION)


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("EntityAlreadyExists", "role exists", ConflictError),
        ("ResourceConflictException", "Function already exist: churn", ConflictError),
        ("ResourceConflictException", "An update is in progress for resource", PlatformError),
        ("ValidationException", 'Cannot create already existing model "arn"', ConflictError),
        ("ValidationError", "No updates are to be performed.", ConflictError),
        ("ResourceInUse", "a job with this name already exists", ConflictError),
        ("ResourceInUse", "it is being used", PlatformError),
        ("NoSuchEntity", "no role", NotFoundError),
        ("ResourceNotFoundException", "no function", NotFoundError),
        ("ValidationException", 'Could not find endpoint "arn".', NotFoundError),
        ("ValidationError", "Stack with id x does not exist", NotFoundError),
        ("ValidationException", "1 validation error detected", PlatformError),
        ("ResourceLimitExceeded", "0 instances of ml.m5.large", PlatformError),
    ],
)
def test_what_aws_says_becomes_one_of_three_errors(
    code: str, message: str, kind: type[ModelportError]
) -> None:
    error = translate(refused(code, message), call("sagemaker", "CreateModel"))
    assert type(error) is kind
    assert f"{code}: {message} (request r-1)" in str(error)
    assert error.where == "sagemaker.CreateModel"


def test_missing_rights_are_named() -> None:
    error = translate(
        refused("AccessDeniedException", "not authorized"),
        call("sagemaker", "CreateModel", rights=("iam:PassRole", "sagemaker:CreateModel")),
    )
    assert error.hint == "the caller needs iam:PassRole, sagemaker:CreateModel"


def test_requests_and_answers_are_plain_data() -> None:
    asked = {"Arn": "arn:aws:iam::<account>:role/x", "Weights": {PAIRS: [["7", 0.1]]}, "L": ("a",)}
    assert to_request(asked, "42") == {
        "Arn": "arn:aws:iam::42:role/x", "Weights": {"7": 0.1}, "L": ["a"],
    }  # fmt: skip
    answer = {
        "At": datetime(2026, 11, 21, tzinfo=UTC),
        "Outputs": [{"OutputKey": "Url", "OutputValue": "https://x"}],
        "ResponseMetadata": {"RequestId": "x"},
    }
    assert plain(answer) == {"At": "2026-11-21T00:00:00+00:00", "Outputs": {"Url": "https://x"}}


def test_without_credentials_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(PlatformError, match="no credentials") as caught:
        AwsApplier().connect(REGION)
    assert "aws configure" in caught.value.hint
    with pytest.raises(PlatformError, match="nobody"):
        AwsApplier().connect({**REGION, "profile": "nobody"})


def test_a_role_that_exists_is_a_conflict_and_one_that_does_not_is_missing(
    connection: AwsConnection,
) -> None:
    create = call("iam", "CreateRole")
    assert connection.call(create, ROLE)["Role"]["RoleName"] == "r"
    with pytest.raises(ConflictError):
        connection.call(create, ROLE)
    missing = {"RoleName": "other"}
    with pytest.raises(NotFoundError):
        connection.call(call("iam", "GetRole"), missing)
    assert connection.call(call("iam", "GetRole", wait={"missing": "allowed"}), missing) == {}


def test_a_put_that_would_replace_something_is_a_conflict(connection: AwsConnection) -> None:
    connection.call(call("iam", "CreateRole"), ROLE)
    document = json.dumps(policy([allow("Log", ["logs:PutLogEvents"], "arn:aws:logs:x:1:y")]))
    wanted = {"RoleName": "r", "PolicyName": "p", "PolicyDocument": document}
    put = call("iam", "PutRolePolicy", wait={"only": "new"})
    assert connection.call(put, wanted) == {}
    with pytest.raises(ConflictError):
        connection.call(put, wanted)
    assert connection.call(call("iam", "PutRolePolicy"), wanted) == {}


def test_a_role_that_is_too_new_is_waited_for(
    connection: AwsConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [refused("ValidationException", "Could not assume role arn:x"), None]

    class Client:
        def create_model(self, **_: Any) -> dict[str, str]:
            error = said.pop(0)
            if error:
                raise error
            return {"ModelArn": "arn"}

    monkeypatch.setattr(connection, "_client", lambda service: Client())
    assert connection.call(call("sagemaker", "CreateModel"), {}) == {"ModelArn": "arn"}
    assert said == []
    monkeypatch.setattr(aws, "_PATIENCE", 0.0)
    said += [refused("ValidationException", "Could not assume role arn:x")] * 2
    with pytest.raises(PlatformError, match="Could not assume role"):
        connection.call(call("sagemaker", "CreateModel"), {})


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (["Creating", "InService"], ""),
        (["Creating", "Failed"], "Failed: no ping"),
        (["Updating", "RollingBack", "back"], "went back to what was there"),
        (["OutOfService"], "OutOfService"),
    ],
)
def test_waiting_ends_with_the_platforms_reason(
    states: list[str], message: str, connection: AwsConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def describe_endpoint(self, **_: Any) -> dict[str, str]:
            state = states.pop(0)
            config = "old" if state == "back" else "new"
            status = "InService" if state == "back" else state
            return {"EndpointStatus": status, "EndpointConfigName": config,
                    "FailureReason": "no ping"}  # fmt: skip

    monkeypatch.setattr(connection, "_client", lambda service: Client())
    asked = {"EndpointName": "e", "EndpointConfigName": "new"}
    waiting = call("sagemaker", "UpdateEndpoint", wait={"until": "endpoint-in-service"})
    told: list[str] = []
    if message:
        with pytest.raises(PlatformError, match=message) as caught:
            connection.wait(waiting, asked, {}, told.append)
        assert caught.value.where == "e"
    else:
        assert connection.wait(waiting, asked, {}, told.append)["EndpointStatus"] == "InService"
        assert told == ["do it: Creating (0 s)"]
    assert states == []


def test_what_is_deleted_is_waited_for_until_it_is_gone(connection: AwsConnection) -> None:
    gone = call("sagemaker", "DeleteEndpoint", wait={"until": "endpoint-deleted"})
    assert connection.wait(gone, {"EndpointName": "e"}, {}, print) == {}
    with pytest.raises(NotFoundError):
        connection.call(gone, {"EndpointName": "e"})


def test_every_state_can_be_asked_for() -> None:
    for name, state in aws._STATES.items():
        clients = ("sagemaker", "lambda", "cloudformation")
        assert any(
            hasattr(boto3.client(c, region_name="eu-west-1"), state.operation) for c in clients
        ), name
        assert not state.good & state.busy
