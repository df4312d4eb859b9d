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
from modelport.deploy.appliers.aws import AwsApplier, AwsConnection
from modelport.deploy.aws.errors import translate
from modelport.deploy.aws.place import PAIRS
from modelport.deploy.aws.remains import configurations, deletions
from modelport.deploy.aws.roles import allow, policy
from modelport.deploy.aws.states import STATES
from modelport.deploy.aws.words import plain, to_request, without_itself
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
    for name, state in STATES.items():
        clients = ("sagemaker", "lambda", "cloudformation")
        assert any(
            hasattr(boto3.client(c, region_name="eu-west-1"), state.operation) for c in clients
        ), name
        assert not state.good & state.busy


def test_what_is_another_one_is_a_conflict(
    connection: AwsConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def describe_endpoint(self, **_: Any) -> dict[str, str]:
            return {"EndpointStatus": "InService", "EndpointConfigName": "new"}

    monkeypatch.setattr(connection, "_client", lambda service: Client())

    def waited(**more: Any) -> Any:
        reading = call(
            "sagemaker", "DescribeEndpoint",
            wait={"until": "endpoint-settled", "address": "sagemaker://x", **more},
        )  # fmt: skip
        return connection.wait(reading, {"EndpointName": "e"}, {}, print)

    for word, agreeing, other in (("is", "new", "old"), ("not", "old", "new")):
        found = waited(**{word: {"EndpointConfigName": agreeing}})
        assert found["Address"] == "sagemaker://x"
        with pytest.raises(ConflictError):
            waited(**{word: {"EndpointConfigName": other}})


def test_an_update_that_goes_on_is_not_taken_for_the_one_that_is_there(
    connection: AwsConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"EndpointStatus": "Updating", "EndpointConfigName": "old"}
    updates: list[str] = []

    class Client:
        def describe_endpoint(self, **_: Any) -> dict[str, str]:
            return state

        def update_endpoint(self, **asked: Any) -> dict[str, str]:
            updates.append(asked["EndpointConfigName"])
            return {}

    monkeypatch.setattr(connection, "_client", lambda service: Client())
    back = {"EndpointName": "e", "EndpointConfigName": "old"}
    connection.call(call("sagemaker", "UpdateEndpoint"), back)
    assert updates == ["old"]
    state["EndpointStatus"] = "InService"
    connection.call(call("sagemaker", "UpdateEndpoint"), back)
    assert updates == ["old"]


def test_an_endpoint_that_is_starting_is_deleted_once_it_can_be(
    connection: AwsConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = ["Creating", "Creating", "Failed"]

    class Client:
        def describe_endpoint(self, **_: Any) -> dict[str, str]:
            return {"EndpointStatus": states.pop(0) if len(states) > 1 else states[0]}

        def delete_endpoint(self, **_: Any) -> dict[str, str]:
            busy = states[0] == "Creating"
            raise refused("ValidationException", "being created" if busy else "it has friends")

    monkeypatch.setattr(connection, "_client", lambda service: Client())
    with pytest.raises(PlatformError, match="it has friends"):
        connection.call(call("sagemaker", "DeleteEndpoint"), {"EndpointName": "e"})
    assert states == ["Failed"]


def test_an_alias_gets_no_weight_for_its_own_version() -> None:
    weights = {"FunctionVersion": "7", "RoutingConfig": {"AdditionalVersionWeights": {"7": 0.1}}}
    assert without_itself(weights)["RoutingConfig"] == {"AdditionalVersionWeights": {}}
    weights["FunctionVersion"] = "6"
    assert without_itself(weights)["RoutingConfig"] == {"AdditionalVersionWeights": {"7": 0.1}}


def test_defaults_stand_for_what_an_answer_lacks(connection: AwsConnection) -> None:
    default = {"PolicyDocument": "{}", "PolicyName": "none"}
    read = call("iam", "GetRolePolicy", wait={"missing": "allowed", "default": default})
    asked = {"RoleName": "r", "PolicyName": "p"}
    assert connection.call(read, asked) == default
    connection.call(call("iam", "CreateRole"), ROLE)
    document = json.dumps(policy([allow("Log", ["logs:PutLogEvents"], "arn:aws:logs:x:1:y")]))
    connection.call(call("iam", "PutRolePolicy"), {**asked, "PolicyDocument": document})
    found = connection.call(read, asked)
    assert found["PolicyName"] == "p"
    assert json.loads(found["PolicyDocument"]) == json.loads(document)  # text, as it is put back


def test_a_stack_s_failure_has_the_reasons_of_its_resources(
    connection: AwsConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def describe_stacks(self, **_: Any) -> Any:
            return {"Stacks": [{"StackStatus": "ROLLBACK_COMPLETE"}]}

        def describe_stack_events(self, **_: Any) -> Any:
            return {"StackEvents": [
                {"LogicalResourceId": "Stage", "ResourceStatus": "CREATE_FAILED",
                 "ResourceStatusReason": "cancelled"},
                {"LogicalResourceId": "Api", "ResourceStatus": "CREATE_FAILED",
                 "ResourceStatusReason": "too many APIs"},
                {"LogicalResourceId": "Api", "ResourceStatus": "CREATE_IN_PROGRESS"},
            ]}  # fmt: skip

    monkeypatch.setattr(connection, "_client", lambda service: Client())
    create = call("cloudformation", "CreateStack", wait={"until": "stack-complete"})
    with pytest.raises(PlatformError, match="Api: too many APIs; Stage: cancelled"):
        connection.wait(create, {"StackName": "s"}, {}, print)


def test_an_endpoint_s_remains_are_its_own(connection: AwsConnection) -> None:
    client = boto3.client("sagemaker", region_name="eu-west-1")
    names = [
        f"churn-{'0a' * 6}-{'1b' * 4}", f"churn-models-{'1b' * 4}",
        f"churn-two-{'0a' * 6}-{'1b' * 4}", "churn-mine", f"my-churn-{'0a' * 6}-{'1b' * 4}",
    ]  # fmt: skip
    for name in names:
        client.create_model(ModelName=name, ExecutionRoleArn="arn:aws:iam::123456789012:role/r")
        variant = {"VariantName": "main", "ModelName": name, "InstanceType": "ml.m5.large",
                   "InitialInstanceCount": 1}  # fmt: skip
        client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    assert sorted(configurations(client, "churn")) == sorted(names[:2])
    assert ("delete_model", {"ModelName": names[0]}) in deletions(client, "churn")
