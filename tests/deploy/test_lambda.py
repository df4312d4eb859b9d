"""Lambda: the plan, the SAM template under SAM's own tools, moto, and the real runtime.

moto accepts the requests' schemas and keeps functions, versions and aliases; it runs nothing. What
runs is the runtime interface client under AWS's emulator.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.awslambda.exceptions import InvalidParameterValueException
from moto.awslambda.models import LambdaBackend
from moto.ecr.models import ecr_backends

from modelport.core.errors import InputError, LimitError, ParityError, PlatformError
from modelport.core.package import Package
from modelport.deploy import show, stage
from modelport.deploy.appliers import aws
from modelport.deploy.base import Plan
from modelport.deploy.service import Footprint
from modelport.serve.awslambda import create_handler

from .aws_plans import IMAGE, OTHER_IMAGE, aws_plan, complaints, every_call, http_event
from .golden_files import assert_golden

ROOT: Final = Path(__file__).parents[2]
FORMS: Final = {
    "function-url": (IMAGE,),
    "open": (IMAGE, "auth=none", "create-repository=true"),
    "canary": (IMAGE, "traffic=10", "reserved-concurrency=20", "front=none"),
    "http-api": (IMAGE, "front=http-api"),
    "rest-api": (IMAGE, "front=rest-api", "architecture=arm64"),
    "zip": ("package=zip", "region=eu-west-1", "bucket=depot"),
}


def tool(name: str, *folders: str) -> str:
    """Where a program is; without it the test is skipped, but not on CI."""
    for folder in folders:
        path = ROOT / ".venv" / folder / "bin" / name
        if path.exists():
            return str(path)
    found = shutil.which(name) or (shutil.which(name, path=str(Path(sys.executable).parent)))
    if not found:
        reason = f"{name} is missing: make tools"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return str(found)


def plan_of(package: Package, footprint: Footprint, *settings: str) -> Plan:
    return aws_plan(package, footprint, "lambda", *settings)


def template_of(plan: Plan, folder: Path) -> Path:
    (file,) = (file for file in plan.files if file.path == "template.yaml")
    path = folder / file.path
    path.write_text(file.content, encoding="utf-8")
    (folder / "build").mkdir(exist_ok=True)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_the_plan_is_the_golden_one(form: str, package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, *FORMS[form])
    text = show.to_text(plan)
    for file in plan.files:
        if file.path != "requirements.txt":  # another one with every lock
            text += f"\n--- {file.path}\n{file.content}"
    text = re.sub(r"(requirements.txt \().*?\)", r"\1SIZE)", text)
    assert_golden(f"lambda-{form}.txt", text, package)


@pytest.mark.parametrize("form", FORMS)
def test_every_call_is_one_that_aws_knows(
    form: str, package: Package, footprint: Footprint
) -> None:
    plan = plan_of(package, footprint, *FORMS[form])
    assert {call.id: complaints(call) for call in every_call(plan) if complaints(call)} == {}


@pytest.mark.parametrize("form", FORMS)
def test_sam_and_cfn_lint_find_nothing(
    form: str, package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    path = template_of(plan_of(package, footprint, *FORMS[form]), tmp_path)
    environment = {**os.environ, "SAM_CLI_TELEMETRY": "0", "HOME": str(tmp_path)}
    for program, *arguments in (
        (tool("sam", "sam"), "validate", "--lint", "--region", "eu-west-1", "-t", str(path)),
        (tool("cfn-lint"), "--regions", "eu-west-1", "--", str(path)),
    ):
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=120, check=False,
            env=environment, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_cfn_lint_would_find_a_wrong_property(
    package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    path = template_of(plan_of(package, footprint, IMAGE), tmp_path)
    path.write_text(path.read_text().replace("MemorySize: 512", "MemorySize: 99"), "utf-8")
    done = subprocess.run(
        [tool("cfn-lint"), "--regions", "eu-west-1", "--", str(path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "99" in done.stdout


@pytest.mark.parametrize("form", ["function-url", "http-api", "rest-api", "zip"])
def test_checkov_finds_nothing(
    form: str, package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    path = template_of(plan_of(package, footprint, *FORMS[form]), tmp_path)
    done = subprocess.run(
        [tool("checkov", "checkov"), "--quiet", "--compact", "--framework", "cloudformation",
         "--skip-download", "-o", "json", "-f", str(path)],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["summary"]["failed"] == 0, done.stdout
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 0


def test_the_function_may_write_its_log_and_nothing_else(
    package: Package, footprint: Footprint
) -> None:
    plan = plan_of(package, footprint, IMAGE)
    put = next(c for c in plan.calls if c.id == "put-role-policy")
    (statement,) = json.loads(put.parameters["PolicyDocument"])["Statement"]
    assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert statement["Resource"].endswith(":log-group:/aws/lambda/churn:*")
    assert all("*" not in right for right in plan.rights)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("traffic=0",), "expected 1 to 100"),
        (("auth=none", "front=none"), "without a front"),
        (("package=zip",), "a zip has no image"),
        (("reserved-concurrency=-1",), "reserved-concurrency is -1"),
        (("region=us-east-1",), "cannot pull"),
        (("role=me",), "not the ARN of a role"),
    ],
)
def test_wrong_settings_are_refused_with_a_hint(
    settings: tuple[str, ...], message: str, package: Package, footprint: Footprint
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        plan_of(package, footprint, IMAGE, *settings)
    assert "--set" in caught.value.hint


def test_limits_are_kept(package: Package, footprint: Footprint) -> None:
    with pytest.raises(LimitError, match="time-out: 901 s of at most 900 s"):
        plan_of(package, footprint, IMAGE, "timeout=901")
    with pytest.raises(LimitError, match="memory"):
        plan_of(package, footprint, IMAGE, "memory=10241")
    plan_of(package, footprint, IMAGE, "timeout=900", "memory=10240")


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for key, value in (
        ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
    ):  # fmt: skip
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(aws.AwsApplier.__init__, "__defaults__", (0.01,))
    with mock_aws(config={"lambda": {"use_docker": False}}):
        ecr = boto3.client("ecr")
        ecr.create_repository(repositoryName="churn")
        for letters in ("ab", "cd"):
            _put_image(ecr, letters)
        yield


def _put_image(ecr: Any, letters: str) -> None:
    """Lambda looks whether the image exists, in moto as in AWS."""
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": kind, "config": {"digest": letters}, "layers": []}
    )
    ecr.put_image(repositoryName="churn", imageManifest=manifest, imageTag=letters)
    for image in ecr_backends["123456789012"]["eu-west-1"].repositories["churn"].images:
        if image.image_tag == letters:
            image._image_digest = f"sha256:{letters * 32}"


def accept(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    """Every version is right."""


def refuse(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    raise ParityError("other answers")


def no_report(line: str) -> None:
    """Nobody listens."""


def left_over() -> list[str]:
    functions = boto3.client("lambda").list_functions()["Functions"]
    groups = boto3.client("logs").describe_log_groups()["logGroups"]
    stacks = boto3.client("cloudformation").list_stacks(
        StackStatusFilter=["CREATE_COMPLETE", "UPDATE_COMPLETE"]
    )["StackSummaries"]
    return [
        *(f["FunctionName"] for f in functions),
        *(r["RoleName"] for r in boto3.client("iam").list_roles()["Roles"]),
        *(g["logGroupName"] for g in groups),
        *(s["StackName"] for s in stacks),
    ]


def live() -> Any:
    return boto3.client("lambda").get_alias(FunctionName="churn", Name="live")


@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize("form", ["function-url", "open", "canary"])
def test_apply_again_and_destroy(form: str, package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, *(s for s in FORMS[form] if s != "traffic=10"))
    asked: list[str] = []
    stage.apply(plan, lambda _, url, headers: asked.append(url), no_report)
    assert asked == ["lambda://eu-west-1/churn?qualifier=candidate"]
    first = live()["FunctionVersion"]
    assert first != "$LATEST"
    stage.status(plan)
    stage.apply(plan, accept, no_report)
    stage.destroy(plan, no_report)
    assert left_over() == []
    stage.destroy(plan, no_report)


@pytest.mark.usefixtures("cloud")
@pytest.mark.filterwarnings("ignore:Tried to parse AWS")  # moto knows few resources
@pytest.mark.parametrize("form", ["http-api", "rest-api"])
def test_the_api_in_front_is_a_stack(form: str, package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, *FORMS[form])
    stage.apply(plan, accept, no_report)
    assert "modelport-churn-front" in left_over()
    assert stage.status(plan)["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    stage.apply(plan, accept, no_report)
    stage.destroy(plan, no_report)
    assert left_over() == []


@pytest.mark.parametrize("form", ["http-api", "rest-api"])
def test_cfn_lint_finds_nothing_in_the_stack_in_front(
    form: str, package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    plan = plan_of(package, footprint, *FORMS[form])
    create = next(call for call in plan.calls if call.id == "create-front")
    path = tmp_path / "front.json"
    path.write_text(create.parameters["TemplateBody"], encoding="utf-8")
    done = subprocess.run(
        [tool("cfn-lint"), "--regions", "eu-west-1", "--", str(path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("cloud")
def test_an_update_moves_the_alias_only_after_verification(
    package: Package, footprint: Footprint
) -> None:
    stage.apply(plan_of(package, footprint, IMAGE), accept, no_report)
    before = live()["FunctionVersion"]
    seen: list[str] = []
    newer = plan_of(package, footprint, OTHER_IMAGE)
    stage.apply(newer, lambda *_: seen.append(live()["FunctionVersion"]), no_report)
    assert seen == [before]
    assert live()["FunctionVersion"] != before
    image = boto3.client("lambda").get_function(FunctionName="churn")["Code"]["ImageUri"]
    assert image.endswith("cd" * 32)


@pytest.mark.usefixtures("cloud")
def test_a_canary_gets_its_part_of_the_calls(package: Package, footprint: Footprint) -> None:
    stage.apply(plan_of(package, footprint, IMAGE), accept, no_report)
    before = live()["FunctionVersion"]
    stage.apply(plan_of(package, footprint, OTHER_IMAGE, "traffic=10"), accept, no_report)
    assert live()["FunctionVersion"] == before
    (weight,) = live()["RoutingConfig"]["AdditionalVersionWeights"].items()
    assert weight[0] != before
    assert weight[1] == 0.1


@pytest.mark.usefixtures("cloud")
def test_other_answers_leave_what_callers_use(package: Package, footprint: Footprint) -> None:
    with pytest.raises(ParityError):
        stage.apply(plan_of(package, footprint, IMAGE), refuse, no_report)
    assert left_over() == []
    stage.apply(plan_of(package, footprint, IMAGE), accept, no_report)
    before, things = live(), left_over()
    with pytest.raises(ParityError):
        stage.apply(plan_of(package, footprint, OTHER_IMAGE), refuse, no_report)
    assert live()["FunctionVersion"] == before["FunctionVersion"]
    assert left_over() == things


@pytest.mark.usefixtures("cloud")
def test_callers_are_told_their_url_and_verification_asks_the_candidate(
    package: Package, footprint: Footprint
) -> None:
    plan = plan_of(package, footprint, IMAGE, "profile=team")
    assert plan.verify_at == "lambda://eu-west-1/churn?qualifier=candidate&profile=team"
    plan = plan_of(package, footprint, IMAGE)
    assert stage.apply(plan, accept, no_report).startswith("https://")
    assert stage.apply(plan, accept, no_report).startswith("https://")
    alone = plan_of(package, footprint, IMAGE, "front=none")
    assert stage.apply(alone, accept, no_report) == "lambda://eu-west-1/churn?qualifier=live"


@pytest.mark.usefixtures("cloud")
@pytest.mark.filterwarnings("ignore:Tried to parse AWS")
def test_a_url_that_was_open_is_closed_by_the_next_deployment(
    package: Package, footprint: Footprint
) -> None:
    def statements() -> list[str]:
        try:
            found = boto3.client("lambda").get_policy(FunctionName="churn", Qualifier="live")
        except ClientError:
            return []
        every = [s["Sid"] for s in json.loads(found["Policy"])["Statement"]]
        return [sid for sid in every if sid.startswith("modelport-")]  # not the stack's

    stage.apply(plan_of(package, footprint, *FORMS["open"]), accept, no_report)
    assert len(statements()) == 2
    stage.apply(plan_of(package, footprint, IMAGE), accept, no_report)
    assert statements() == []
    stage.apply(plan_of(package, footprint, *FORMS["open"]), accept, no_report)
    url = stage.apply(plan_of(package, footprint, *FORMS["http-api"]), accept, no_report)
    assert ".execute-api." in url
    assert statements() == []
    with pytest.raises(ClientError, match="ResourceNotFound"):
        boto3.client("lambda").get_function_url_config(FunctionName="churn", Qualifier="live")


@pytest.mark.usefixtures("cloud")
def test_a_canary_that_goes_on_is_what_a_failed_update_goes_back_to(
    package: Package, footprint: Footprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.apply(plan_of(package, footprint, IMAGE), accept, no_report)
    stage.apply(plan_of(package, footprint, OTHER_IMAGE, "traffic=10"), accept, no_report)
    before = live()["RoutingConfig"]
    assert before["AdditionalVersionWeights"]

    def refuse_concurrency(*_: Any, **__: Any) -> Any:
        raise InvalidParameterValueException("none left")

    monkeypatch.setattr(LambdaBackend, "put_function_concurrency", refuse_concurrency)
    whole = plan_of(package, footprint, OTHER_IMAGE, "reserved-concurrency=5")
    with pytest.raises(PlatformError, match="none left"):
        stage.apply(whole, accept, no_report)
    assert live()["RoutingConfig"] == before


def test_what_holds_for_all_versions_waits_for_verification(
    package: Package, footprint: Footprint
) -> None:
    plan = plan_of(package, footprint, IMAGE, "reserved-concurrency=5", "auth=none")
    phases = {call.id: call.phase for call in plan.calls}
    shifted = [name for name, phase in phases.items() if phase == "shift"]
    assert shifted == [
        "create-live", "reserve-concurrency", "create-url", "allow-invokefunctionurl",
        "allow-invokefunction",
    ]  # fmt: skip


def test_the_template_names_the_handler_that_exists(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, IMAGE)
    document = yaml.safe_load(plan.files[0].content)
    (command,) = document["Resources"]["Function"]["Properties"]["ImageConfig"]["Command"]
    module, _, name = command.rpartition(".")
    assert name == "handler"
    assert (ROOT / "src" / (module.replace(".", "/") + ".py")).exists()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def emulator() -> str:
    """AWS's runtime interface emulator, which comes with the wheel of aws-sam-cli."""
    machine = {"aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    pattern = f"lib/*/site-packages/samcli/local/rapid/aws-lambda-rie-{machine}"
    found = list((ROOT / ".venv/sam").glob(pattern))
    if not found:
        reason = "aws-lambda-rie is missing: make tools"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return str(found[0])


def invoke(address: str, event: Any) -> Any:
    """Call a function under the emulator, once it listens."""
    url = f"http://{address}/2015-03-31/functions/function/invocations"
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, json.dumps(event).encode(), timeout=60) as answer:
                return json.loads(answer.read())
        except (ConnectionError, urllib.error.URLError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def infer_event() -> dict[str, Any]:
    rows = {"name": "x", "shape": [1, 8], "datatype": "FP32", "data": [0.5] * 8}
    body = json.dumps({"inputs": [rows]}).encode()
    return http_event("/v2/models/churn/infer", body)


def test_the_handler_answers_under_the_real_runtime_and_emulator(
    package: Package, footprint: Footprint, emulator: str, tmp_path: Path
) -> None:
    python = tool("python", "clients")
    plan = plan_of(package, footprint, IMAGE)
    create = next(c for c in plan.calls if c.id == "create-function").parameters
    config = create["ImageConfig"]
    program = [python, *config["EntryPoint"][1:], *config["Command"]]
    ours, runtime = (f"127.0.0.1:{free_port()}" for _ in range(2))
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "HOME": str(tmp_path),
        "MODELPORT_MODELS": str(package.path), "AWS_LAMBDA_FUNCTION_NAME": "churn",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(create["Timeout"]),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(create["MemorySize"]), "AWS_REGION": "eu-west-1",
    }  # fmt: skip
    arguments = (
        "--runtime-interface-emulator-address", ours, "--runtime-api-address", runtime,
    )  # fmt: skip
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [emulator, *arguments, *program], env=environment, stdout=log, stderr=log, cwd=tmp_path,
            start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            said = invoke(ours, infer_event())
            bare = invoke(ours, {"instances": [[0.5] * 8]})
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    told = (tmp_path / "log").read_text()
    assert said.get("statusCode") == 200, told
    expected = create_handler([package.path])(infer_event())
    (output,), (wanted,) = (json.loads(answer["body"])["outputs"] for answer in (said, expected))
    assert output["data"] == wanted["data"]
    assert bare["predictions"]
