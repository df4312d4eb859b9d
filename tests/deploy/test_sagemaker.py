"""SageMaker: what the plan says, and what AWS's own API models and moto say about it.

moto accepts the requests' schemas; it refuses no duplicates and has no ``UpdateEndpoint``. Both are
added here, as the API reference and AWS's messages tell them.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import boto3
import numpy as np
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.applicationautoscaling.models import ApplicationAutoscalingBackend
from moto.sagemaker.exceptions import AWSValidationException
from moto.sagemaker.models import SageMakerModelBackend, sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse

from modelport.core.errors import InputError, LimitError, NotFoundError, ParityError, PlatformError
from modelport.core.package import Package, open_package
from modelport.deploy import show, stage
from modelport.deploy.appliers import aws
from modelport.deploy.base import Plan
from modelport.deploy.service import Footprint
from tests.serve.onnx_models import dense
from tests.serve.packages import build_package

from .aws_plans import ACCOUNT, IMAGE, OTHER_IMAGE, aws_plan, complaints, every_call
from .golden_files import assert_golden

S3: Final = "s3://bucket/models/"
MODES: Final = {
    "real-time": (),
    "scaled": ("instances=2", "max-instances=6", "create-repository=true"),
    "serverless": ("mode=serverless",),
    "async": ("mode=async", "output=s3://bucket/out"),
    "multi-model": ("mode=multi-model", f"models={S3}"),
    "batch": ("mode=batch", "input=s3://bucket/in", "output=s3://bucket/out"),
}


def plan_of(package: Package, footprint: Footprint, *settings: str) -> Plan:
    return aws_plan(package, footprint, "sagemaker", IMAGE, *settings)


@pytest.mark.parametrize("mode", MODES)
def test_the_plan_is_the_golden_one(mode: str, package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, *MODES[mode])
    text = show.to_text(plan)
    for file in plan.files:
        text += f"\n--- {file.path}\n{file.content}"
    assert_golden(f"sagemaker-{mode}.txt", text, package)


@pytest.mark.parametrize("mode", MODES)
def test_every_call_is_one_that_aws_knows(
    mode: str, package: Package, footprint: Footprint
) -> None:
    plan = plan_of(package, footprint, *MODES[mode])
    assert {call.id: complaints(call) for call in every_call(plan) if complaints(call)} == {}


def test_a_wrong_call_would_be_noticed(package: Package, footprint: Footprint) -> None:
    model = next(c for c in plan_of(package, footprint).calls if c.id == "create-model")
    model.parameters["PrimaryContainer"]["Mode"] = "ManyModels"
    assert "ManyModels" in complaints(model)
    model.parameters["ExecutionRole"] = "x"  # type: ignore[index]
    assert "ExecutionRole" in complaints(model)


@pytest.mark.parametrize("mode", MODES)
def test_the_role_has_no_right_to_everything(
    mode: str, package: Package, footprint: Footprint
) -> None:
    plan = plan_of(package, footprint, *MODES[mode])
    put = next(c for c in plan.calls if c.id == "put-role-policy")
    statements = json.loads(put.parameters["PolicyDocument"])["Statement"]
    everywhere = {s["Sid"] for s in statements if s["Resource"] == "*"}
    assert everywhere == {"PullToken", "Metrics"}  # which have no resources, says AWS
    assert all("*" not in action for s in statements for action in s["Action"])
    assert all("Condition" in s for s in statements if "s3:ListBucket" in s["Action"])
    (log,) = (s["Resource"] for s in statements if s["Sid"] == "Log")
    assert all("/churn" in arn or "TransformJobs" in arn for arn in log)
    trust = next(c for c in plan.calls if c.id == "create-role").parameters
    assert '"aws:SourceAccount":"<account>"' in trust["AssumeRolePolicyDocument"]
    writes = [s for s in statements if "s3:PutObject" in s["Action"]]
    assert bool(writes) == (mode in ("async", "batch"))
    assert all(right.count("*") == 0 for right in plan.rights)


def test_names_change_with_what_cannot_be_changed(package: Package, footprint: Footprint) -> None:
    def names(*settings: str) -> list[str]:
        calls = {
            c.id: c.parameters for c in aws_plan(package, footprint, "sagemaker", *settings).calls
        }
        return [
            calls["create-model"]["ModelName"],
            calls["create-endpoint-config"]["EndpointConfigName"],
            calls["create-endpoint"]["EndpointName"],
        ]  # fmt: skip

    first, image, instance = (
        names(IMAGE),
        names(OTHER_IMAGE),
        names(IMAGE, "instance-type=ml.m5.xlarge"),
    )
    assert first == names(IMAGE)
    assert first[0] != image[0]
    assert first[1] != image[1]
    assert first[0] == instance[0]
    assert first[1] != instance[1]
    assert first[2] == image[2] == instance[2] == "churn"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("mode=async",), "needs the setting output"),
        (("mode=batch", "input=s3://b/x"), "needs the setting output"),
        (("mode=multi-model", "models=s3://bucket/x"), "has to end with /"),
        (("mode=multi-model", "models=s3://bucket/*/"), "not an address in S3"),
        (("mode=serverless", "memory=-1024"), "steps of 1024"),
        (("max-instances=4", "target-load=-1"), "target-load is -1"),
        (("mode=async", "output=/tmp"), "not an address in S3"),
        (("mode=serverless", "memory=1500"), "steps of 1024"),
        (("mode=serverless", "max-instances=4"), "scales by itself"),
        (("instances=4", "max-instances=2"), "fewer than"),
        (("instances=0",), "instances is 0"),
        (("instance-type=m5.large",), "not an instance type"),
        (("role=admin",), "not the ARN of a role"),
        (("region=us-east-1",), "cannot pull"),
        (("region=narnia",), "not an AWS region"),
    ],
)
def test_wrong_settings_are_refused_with_a_hint(
    settings: tuple[str, ...], message: str, package: Package, footprint: Footprint
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        plan_of(package, footprint, *settings)
    assert "--set" in caught.value.hint


def test_serverless_limits_are_kept(package: Package, footprint: Footprint) -> None:
    with pytest.raises(LimitError, match="concurrent requests: 201 of at most 200"):
        plan_of(package, footprint, "mode=serverless", "max-concurrency=201")
    plan_of(package, footprint, "max-concurrency=201")


class Updating:
    """``UpdateEndpoint`` for moto: takes a configuration, or goes back by itself."""

    def __init__(self) -> None:
        self.goes_back = False
        self.updates: list[dict[str, Any]] = []

    def __call__(self, response: SageMakerResponse) -> str:
        body = json.loads(response.body)
        self.updates.append(body)
        endpoint: Any = response.sagemaker_backend.endpoints[body["EndpointName"]]
        if endpoint.endpoint_config_name == body["EndpointConfigName"]:
            raise AssertionError("AWS refuses the configuration that it has")
        if self.goes_back:
            endpoint.failure_reason = "alarm went off"
        else:
            endpoint.endpoint_config_name = body["EndpointConfigName"]
        return json.dumps({"EndpointArn": endpoint.arn})


@pytest.fixture
def updating(monkeypatch: pytest.MonkeyPatch) -> Iterator[Updating]:
    for key, value in (
        ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
    ):  # fmt: skip
        monkeypatch.setenv(key, value)
    updating = Updating()
    monkeypatch.setattr(
        SageMakerResponse, "update_endpoint", lambda self: updating(self), raising=False
    )
    monkeypatch.setattr(aws.AwsApplier.__init__, "__defaults__", (0.01,))
    for operation, kept in (
        ("create_model", "_models"), ("create_endpoint", "endpoints"),
        ("create_endpoint_config", "endpoint_configs"),
    ):  # fmt: skip
        refuse_duplicates(monkeypatch, operation, kept)
    with mock_aws():
        yield updating


def refuse_duplicates(monkeypatch: pytest.MonkeyPatch, operation: str, kept: str) -> None:
    """Say what AWS says when the name is taken."""
    original = getattr(SageMakerModelBackend, operation)

    def create(self: SageMakerModelBackend, *args: Any, **kwargs: Any) -> Any:
        names = [value for key, value in kwargs.items() if key.endswith("_name")]
        if set(names) & set(getattr(self, kept)):
            what = operation.removeprefix("create_").replace("_", " ")
            raise AWSValidationException(f'Cannot create already existing {what} "arn"')
        return original(self, *args, **kwargs)

    monkeypatch.setattr(SageMakerModelBackend, operation, create)


def backend() -> SageMakerModelBackend:
    found: SageMakerModelBackend = sagemaker_backends[ACCOUNT]["eu-west-1"]
    return found


def accept(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    """Every endpoint is right."""


def refuse(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    raise ParityError("other answers")


def no_report(line: str) -> None:
    """Nobody listens."""


def left_over() -> dict[str, list[str]]:
    iam, sagemaker, cloudwatch = (boto3.client(n) for n in ("iam", "sagemaker", "cloudwatch"))
    configs = sagemaker.list_endpoint_configs()["EndpointConfigs"]
    targets = boto3.client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker"
    )
    return {
        "roles": [r["RoleName"] for r in iam.list_roles()["Roles"]],
        "models": [m["ModelName"] for m in sagemaker.list_models()["Models"]],
        "configs": [c["EndpointConfigName"] for c in configs],
        "endpoints": [e["EndpointName"] for e in sagemaker.list_endpoints()["Endpoints"]],
        "alarms": [a["AlarmName"] for a in cloudwatch.describe_alarms()["MetricAlarms"]],
        "scaling": [t["ResourceId"] for t in targets["ScalableTargets"]],
    }


NOTHING: Final[dict[str, list[str]]] = {
    key: [] for key in ("roles", "models", "configs", "endpoints", "alarms", "scaling")
}


@pytest.mark.parametrize("mode", ["real-time", "scaled", "serverless", "async"])
def test_apply_status_and_destroy(
    mode: str, package: Package, footprint: Footprint, updating: Updating
) -> None:
    plan = plan_of(package, footprint, *MODES[mode])
    lines: list[str] = []
    url = stage.apply(plan, accept, lines.append)
    assert url == ("" if mode == "async" else "sagemaker://eu-west-1/churn")
    state = stage.status(plan)
    assert state["EndpointStatus"] == "InService"
    assert state["ProductionVariants"][0]["VariantName"] == "main"
    stage.apply(plan, accept, lines.append)  # again: everything is there already
    assert updating.updates == []
    stage.destroy(plan, lines.append)
    assert left_over() == NOTHING
    with pytest.raises(NotFoundError, match="endpoint"):
        stage.status(plan)
    stage.destroy(plan, lines.append)  # what is gone is passed over


def test_an_update_changes_the_endpoint_in_place(
    package: Package, footprint: Footprint, updating: Updating
) -> None:
    stage.apply(plan_of(package, footprint, "instances=2"), accept, no_report)
    newer = aws_plan(package, footprint, "sagemaker", OTHER_IMAGE, "instances=2")
    stage.apply(newer, accept, no_report)
    (update,) = updating.updates
    routing = update["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["Type"] == "CANARY"
    assert stage.status(newer)["EndpointConfigName"] == update["EndpointConfigName"]


class Watching:
    """Verifies by looking at what is where; refuses if that is wanted."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.refuse = refuse
        self.urls: list[str] = []
        self.live: list[str] = []

    def __call__(self, plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        self.urls.append(url)
        name = url.removeprefix("sagemaker://eu-west-1/").partition("?")[0]
        asked = boto3.client("sagemaker").describe_endpoint(EndpointName=name)
        assert asked["EndpointStatus"] == "InService"
        self.live = [
            endpoint.endpoint_config_name
            for key, endpoint in backend().endpoints.items()
            if key == "churn"
        ]
        if self.refuse:
            raise ParityError("other answers")


@pytest.mark.parametrize("mode", ["real-time", "scaled", "serverless"])
def test_an_update_is_verified_at_a_candidate_before_the_endpoint_changes(
    mode: str, package: Package, footprint: Footprint, updating: Updating
) -> None:
    watching = Watching()
    stage.apply(plan_of(package, footprint, *MODES[mode]), watching, no_report)
    assert watching.urls == ["sagemaker://eu-west-1/churn"]  # nobody else asks it yet
    before = watching.live
    newer = aws_plan(package, footprint, "sagemaker", OTHER_IMAGE, *MODES[mode])
    stage.apply(newer, watching, no_report)
    assert watching.urls[1].startswith(f"sagemaker://eu-west-1/churn-{newer.service.tag}-")
    assert watching.live == before
    assert len(updating.updates) == 1
    assert left_over()["endpoints"] == ["churn"]
    stage.apply(newer, watching, no_report)  # again: nothing new, so no candidate
    assert watching.urls[2] == "sagemaker://eu-west-1/churn"
    assert len(updating.updates) == 1
    stage.destroy(newer, no_report)  # with the first version's configuration and model
    assert left_over() == NOTHING


def test_what_somebody_deleted_by_hand_does_not_keep_the_rest(
    package: Package, footprint: Footprint, updating: Updating
) -> None:
    stage.apply(plan_of(package, footprint), accept, no_report)
    newer = aws_plan(package, footprint, "sagemaker", OTHER_IMAGE)
    stage.apply(newer, accept, no_report)
    boto3.client("sagemaker").delete_endpoint(EndpointName="churn")
    stage.destroy(newer, no_report)
    assert left_over() == NOTHING


def test_other_answers_of_a_candidate_leave_the_endpoint_alone(
    package: Package, footprint: Footprint, updating: Updating
) -> None:
    stage.apply(plan_of(package, footprint), accept, no_report)
    before = left_over()
    with pytest.raises(ParityError):
        stage.apply(
            aws_plan(package, footprint, "sagemaker", OTHER_IMAGE), Watching(refuse=True), no_report
        )
    assert updating.updates == []
    assert left_over() == before


def test_what_fails_after_the_update_gives_the_former_configuration_back(
    package: Package, footprint: Footprint, updating: Updating, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan_of(package, footprint, *MODES["scaled"])
    stage.apply(first, accept, no_report)
    before, was = left_over(), stage.status(first)["EndpointConfigName"]
    monkeypatch.setattr(
        ApplicationAutoscalingBackend, "put_scaling_policy", refusal("no policies left")
    )
    newer = aws_plan(package, footprint, "sagemaker", OTHER_IMAGE, *MODES["scaled"])
    lines: list[str] = []
    with pytest.raises(PlatformError, match="no policies left"):
        stage.apply(newer, accept, lines.append)
    assert stage.status(first)["EndpointConfigName"] == was
    assert len(updating.updates) == 2
    assert left_over() == before
    assert not [line for line in lines if "could not be taken back" in line]


def test_a_first_deployment_that_fails_after_verification_leaves_nothing(
    package: Package, footprint: Footprint, updating: Updating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ApplicationAutoscalingBackend, "put_scaling_policy", refusal("no policies left")
    )
    lines: list[str] = []
    with pytest.raises(PlatformError, match="no policies left"):
        stage.apply(plan_of(package, footprint, *MODES["scaled"]), accept, lines.append)
    assert left_over() == NOTHING
    assert not [line for line in lines if "could not be taken back" in line]


def refusal(message: str) -> Any:
    def refuse_it(*_: Any, **__: Any) -> Any:
        raise AWSValidationException(message)

    return refuse_it


def test_without_a_candidate_other_answers_give_the_former_configuration_back(
    package: Package, footprint: Footprint, updating: Updating
) -> None:
    first = plan_of(package, footprint)
    stage.apply(first, accept, no_report)
    before, was = left_over(), stage.status(first)["EndpointConfigName"]
    newer = aws_plan(package, footprint, "sagemaker", OTHER_IMAGE, "candidate=false")
    assert any("has the traffic while it is verified" in note for note in newer.notes)
    with pytest.raises(ParityError):
        stage.apply(newer, refuse, no_report)
    assert stage.status(first)["EndpointConfigName"] == was
    assert len(updating.updates) == 2
    assert left_over() == before
    policies = boto3.client("iam").list_role_policies(RoleName="modelport-sagemaker-churn")
    assert policies["PolicyNames"] == ["modelport"]  # the role of what serves is still whole


def test_an_update_that_fails_gives_the_role_its_former_rights_back(
    package: Package, footprint: Footprint, updating: Updating
) -> None:
    def rights() -> str:
        found = boto3.client("iam").get_role_policy(
            RoleName="modelport-sagemaker-churn", PolicyName="modelport"
        )
        return json.dumps(found["PolicyDocument"])

    stage.apply(plan_of(package, footprint, "mode=async", "output=s3://one/x"), accept, no_report)
    before = rights()
    other = plan_of(package, footprint, "mode=async", "output=s3://two/x", "input=s3://two/in")
    with pytest.raises(ParityError):
        stage.apply(other, refuse, no_report)
    assert rights() == before
    stage.apply(other, accept, no_report)
    assert "arn:aws:s3:::two/in*" in rights()


@pytest.mark.parametrize("mode", ["async", "batch"])
def test_what_goes_through_s3_is_verified_at_a_candidate(
    mode: str, package: Package, footprint: Footprint, updating: Updating
) -> None:
    plan = plan_of(package, footprint, *MODES[mode])
    with pytest.raises(ParityError):
        stage.apply(plan, refuse, no_report)
    assert left_over() == NOTHING
    assert boto3.client("sagemaker").list_transform_jobs()["TransformJobSummaries"] == []
    watching = Watching()
    assert stage.apply(plan, watching, no_report) == ""
    (url,) = watching.urls
    assert url.startswith(f"sagemaker://eu-west-1/churn-{plan.service.tag}-")
    assert left_over()["endpoints"] == (["churn"] if mode == "async" else [])
    candidate = next(c for c in plan.calls if c.id == "create-candidate-config").parameters
    assert "AsyncInferenceConfig" not in candidate  # it could not be asked otherwise
    assert candidate["ProductionVariants"][0]["InitialInstanceCount"] == 1
    bare = plan_of(package, footprint, *MODES[mode], "candidate=false")
    assert bare.verify_at == ""
    assert any("not verified" in note for note in bare.notes)


def killed_while_verifying(plan: Plan) -> None:
    """As by the machine's end: nothing is taken back."""

    def killed(*_: Any) -> None:
        raise AssertionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_take_back", lambda *_: [])
        with pytest.raises(AssertionError):
            stage.apply(plan, killed, no_report)


def test_a_candidate_that_was_left_over_is_used_and_goes(
    package: Package, footprint: Footprint, updating: Updating
) -> None:
    first = plan_of(package, footprint)
    stage.apply(first, accept, no_report)
    newer = aws_plan(package, footprint, "sagemaker", OTHER_IMAGE)
    killed_while_verifying(newer)
    assert len(left_over()["endpoints"]) == 2
    stage.apply(newer, accept, no_report)
    assert left_over()["endpoints"] == ["churn"]
    killed_while_verifying(first)
    stage.destroy(first, no_report)
    assert left_over() == NOTHING


def test_the_profile_is_also_the_one_that_verifies(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, "profile=the team's")
    assert plan.endpoint == "sagemaker://eu-west-1/churn?profile=the+team%27s"
    assert all("--profile 'the team'" in line for line in plan.commands)


def test_an_update_that_aws_takes_back_is_a_failure_with_its_reason(
    package: Package, footprint: Footprint, updating: Updating
) -> None:
    stage.apply(plan_of(package, footprint), accept, no_report)
    updating.goes_back = True
    with pytest.raises(PlatformError, match="went back to what was there before"):
        stage.apply(aws_plan(package, footprint, "sagemaker", OTHER_IMAGE), accept, no_report)


def test_a_first_deployment_with_other_answers_leaves_nothing(
    package: Package, footprint: Footprint, updating: Updating
) -> None:
    with pytest.raises(ParityError):
        stage.apply(plan_of(package, footprint, *MODES["scaled"]), refuse, no_report)
    assert left_over() == NOTHING


def test_an_endpoint_that_never_becomes_healthy_says_why(
    package: Package, footprint: Footprint, updating: Updating, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SageMakerModelBackend.create_endpoint

    def create(self: SageMakerModelBackend, *args: Any, **kwargs: Any) -> Any:
        endpoint: Any = original(self, *args, **kwargs)
        endpoint.endpoint_status = "Failed"
        endpoint.failure_reason = "did not pass the ping health check"
        return endpoint

    monkeypatch.setattr(SageMakerModelBackend, "create_endpoint", create)
    with pytest.raises(PlatformError, match="Failed: did not pass the ping health check"):
        stage.apply(plan_of(package, footprint), accept, no_report)
    assert left_over() == NOTHING


def test_a_batch_job_runs_once(package: Package, footprint: Footprint, updating: Updating) -> None:
    plan = plan_of(package, footprint, *MODES["batch"])
    assert stage.apply(plan, accept, no_report) == ""
    state = stage.status(plan)
    assert state["TransformJobStatus"] == "Completed"
    assert state["TransformInput"]["SplitType"] == "Line"


def test_a_multi_model_endpoint_gets_its_packages_one_by_one(
    package: Package, footprint: Footprint, updating: Updating, tmp_path: Path
) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    settings = (*MODES["multi-model"], "name=shared")
    plan = plan_of(package, footprint, *settings)
    with pytest.raises(ParityError):
        stage.apply(plan, refuse, no_report)
    assert left_over() == NOTHING
    assert "Contents" not in s3.list_objects_v2(Bucket="bucket")
    url = stage.apply(plan, accept, no_report)
    key = f"shared-{plan.service.tag}.tar.gz"
    assert url == f"sagemaker://eu-west-1/shared?model={key}"
    body = s3.get_object(Bucket="bucket", Key=f"models/{key}")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        archive.extractall(tmp_path / "package", filter="data")
    assert open_package(tmp_path / "package").digest == package.digest

    rows = {"x": np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)}
    other = build_package(tmp_path / "other", "other", dense(seed=1), rows)
    watching = Watching()
    second = plan_of(other, footprint, *settings)
    stage.apply(second, watching, no_report)
    assert updating.updates == []  # the server of the first one goes on
    assert watching.urls == [
        f"sagemaker://eu-west-1/shared?model=shared-{second.service.tag}.tar.gz"
    ]
    assert len(s3.list_objects_v2(Bucket="bucket")["Contents"]) == 2
    stage.destroy(second, no_report)
    assert left_over() == NOTHING


def test_the_repository_has_tags_that_cannot_be_moved(
    package: Package, footprint: Footprint, updating: Updating
) -> None:
    stage.apply(plan_of(package, footprint, "create-repository=yes"), accept, no_report)
    (found,) = boto3.client("ecr").describe_repositories()["repositories"]
    assert found["repositoryName"] == "churn"
    assert found["imageTagMutability"] == "IMMUTABLE"
    assert found["imageScanningConfiguration"]["scanOnPush"]


def test_the_endpoint_config_is_refused_by_moto_when_it_is_wrong(updating: Updating) -> None:
    with pytest.raises(ClientError):
        boto3.client("sagemaker").create_endpoint(EndpointName="x", EndpointConfigName="none")
    assert backend().endpoints == {}
