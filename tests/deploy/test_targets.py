"""What holds for every target in the table."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pytest

from modelport.adapters import adapters_of, find_adapter
from modelport.core.errors import InputError, NotFoundError
from modelport.core.package import Package
from modelport.deploy import show, stage
from modelport.deploy.base import Call, Plan, Result, Settings
from modelport.deploy.service import Footprint
from modelport.deploy.settings import describe_settings

TARGETS: Final = [adapter.name for adapter in adapters_of("target")]
DIGEST: Final = "sha256:" + "ab" * 32
IMAGE: Final = f"image=registry.example/churn@{DIGEST}"
#: AWS takes images of its own registry alone.
ECR: Final = f"image=123456789012.dkr.ecr.eu-west-1.amazonaws.com/churn@{DIGEST}"

#: The fewest settings with which each target can be planned.
FEWEST: Final[Mapping[str, tuple[str, ...]]] = {
    "kubernetes": ("anonymous=true",),
    "kserve": ("anonymous=true",),
    "cloudrun": ("project=example", "region=europe-west1"),
    "vertex": ("project=example", "region=europe-west1"),
    "lambda": ("region=eu-west-1",),
    "sagemaker": ("region=eu-west-1",),
    "azureml": (
        "subscription=00000000-0000-0000-0000-000000000000",
        "resource-group=models",
        "location=westeurope",
        "workspace=models",
    ),
    "azure-functions": (
        "subscription=00000000-0000-0000-0000-000000000000",
        "resource-group=models",
        "location=westeurope",
    ),
}


def settings_of(target: str) -> list[str]:
    """The fewest settings, and a pinned image."""
    return [*FEWEST.get(target, ()), ECR if target in ("lambda", "sagemaker") else IMAGE]


@pytest.fixture
def plan(request: pytest.FixtureRequest, package: Package, footprint: Footprint) -> Plan:
    return stage.plan(package, request.param, settings_of(request.param), footprint=footprint)


def every_call(plan: Plan) -> Iterator[Call]:
    """All calls, and what is done otherwise, or to take them back."""
    waiting = list(plan.calls)
    while waiting:
        call = waiting.pop()
        yield call
        waiting += [more for more in (call.otherwise, call.undo) if more is not None]


def results_in(value: Any) -> Iterator[Result]:
    """Every `Result` in plain data."""
    if isinstance(value, Result):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from results_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from results_in(item)


@pytest.mark.parametrize("target", TARGETS)
def test_a_plan_is_the_same_every_time_and_asks_nobody(
    target: str, package: Package, footprint: Footprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a plan needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    first, second = (
        stage.plan(package, target, settings_of(target), footprint=footprint) for _ in range(2)
    )
    assert json.dumps(show.to_json(first)) == json.dumps(show.to_json(second))
    assert [file.content for file in first.files] == [file.content for file in second.files]
    assert show.to_text(first) == show.to_text(second)


@pytest.mark.parametrize("plan", TARGETS, indirect=True)
def test_a_plan_does_something_and_says_what(plan: Plan) -> None:
    assert plan.files or plan.calls
    assert plan.commands or plan.applier
    assert all(file.purpose for file in plan.files)
    assert all(call.purpose for call in every_call(plan))
    assert plan.checks, "no limit of the platform is checked"
    assert all(check.passed for check in plan.checks)


@pytest.mark.parametrize("plan", TARGETS, indirect=True)
def test_the_calls_can_be_made_and_taken_back(plan: Plan) -> None:
    ids = [call.id for call in plan.calls]
    assert len(set(ids)) == len(ids)
    if plan.calls:
        find_adapter("applier", plan.applier)
        assert plan.rights or plan.applier == "command"
    phases = [("prepare", "serve", "shift").index(call.phase) for call in plan.calls]
    assert phases == sorted(phases)
    known: set[str] = set()
    for call in plan.calls:
        for one in (call, call.otherwise):
            used = {r.call for r in results_in([one.parameters, one.wait])} if one else set()
            assert used <= known, f"{call.id} needs what no earlier call answers"
        known.add(call.id)
        for one in (call, call.otherwise):
            undo = one.undo if one else None
            assert undo is None or {r.call for r in results_in(undo.parameters)} <= known
    used = {result.call for result in results_in([plan.endpoint, plan.verify_at])}
    assert used <= known


@pytest.mark.parametrize("plan", TARGETS, indirect=True)
def test_the_image_is_pinned_wherever_it_is_named(plan: Plan) -> None:
    texts = [file.content for file in plan.files]
    texts += [json.dumps(show.plain(call.parameters)) for call in every_call(plan)]
    for text in texts:
        assert text.count("registry.example/churn") == text.count(
            f"registry.example/churn@{DIGEST}"
        )
        assert ":latest" not in text


@pytest.mark.parametrize("plan", TARGETS, indirect=True)
def test_files_stay_in_their_folder_and_end_with_a_newline(plan: Plan) -> None:
    paths = [file.path for file in plan.files]
    assert len(set(paths)) == len(paths)
    for file in plan.files:
        path = PurePosixPath(file.path)
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert file.content.endswith("\n")
        assert "\r" not in file.content


@pytest.mark.parametrize("target", TARGETS)
def test_every_setting_has_a_text_and_a_plain_default(target: str) -> None:
    adapter = find_adapter("target", target).load()
    assert adapter.name == target
    assert issubclass(adapter.settings, Settings)
    assert adapter.cold_start
    adapter.settings()
    for field in dataclasses.fields(adapter.settings):
        assert type(field.default) in (str, int, float, bool)
    assert all(text for _, _, text in describe_settings(adapter.settings))


@pytest.mark.parametrize("target", TARGETS)
def test_a_wrong_setting_is_named(target: str, package: Package, footprint: Footprint) -> None:
    with pytest.raises(NotFoundError, match="no-such-setting"):
        stage.plan(package, target, ["no-such-setting=1"], footprint=footprint)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_missing_is_asked_for_with_a_hint(
    target: str, package: Package, footprint: Footprint
) -> None:
    if target not in FEWEST:
        stage.plan(package, target, [], footprint=footprint)
        return
    with pytest.raises(InputError) as caught:
        stage.plan(package, target, [], footprint=footprint)
    assert "--set" in caught.value.hint


@pytest.mark.parametrize("target", TARGETS)
def test_planning_imports_no_sdk(target: str, package: Package) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from modelport import api\n"
        f"api.plan_deployment({str(package.path)!r}, {target!r}, {settings_of(target)!r})\n"
        "heavy = 'boto3 botocore azure.core google.auth kubernetes onnxruntime grpc'.split()\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_a_test_module(target: str) -> None:
    stem = find_adapter("target", target).target.partition(":")[0].rpartition(".")[2]
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    assert any(f'"{target}"' in text for text in texts), f"no test mentions {target} ({stem})"
