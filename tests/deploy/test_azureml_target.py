"""Azure ML: plans, their files in Microsoft's own SDK, and our server behind their routes."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from modelport.core.errors import InputError, LimitError
from modelport.core.package import Package
from modelport.deploy import show, stage
from modelport.deploy.base import Plan
from modelport.deploy.limits import read_limits
from modelport.deploy.service import Footprint
from tests.serve import running

from .golden_files import assert_golden

WHERE = (
    "subscription=00000000-0000-0000-0000-000000000001", "resource-group=models",
    "workspace=shop", "location=westeurope",
)  # fmt: skip
IMAGE = "image=shop.azurecr.io/churn@sha256:" + "ab" * 32

# The SDK's own use of marshmallow.
sdk = pytest.mark.filterwarnings("ignore::Warning")


def plan_of(package: Package, footprint: Footprint, *more: str) -> Plan:
    return stage.plan(package, "azureml", [*WHERE, IMAGE, *more], footprint=footprint)


def text_of(plan: Plan, path: str) -> str:
    return next(file.content for file in plan.files if file.path == path)


def document(plan: Plan, path: str) -> Any:
    return yaml.safe_load(text_of(plan, path))


def test_the_plan_is_what_it_was(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint)
    assert_golden("azureml/plan.txt", show.to_text(plan), package)
    for file in plan.files:
        assert_golden(f"azureml/{file.path}", file.content, package)


def test_the_plan_with_everything_set(package: Package, footprint: Footprint) -> None:
    plan = plan_of(
        package, footprint, "auth-mode=key", "public=no", "traffic=100", "keep-old=no",
        "instances=2", "max-instances=6", "timeout=90", "concurrency=3",
    )  # fmt: skip
    assert_golden("azureml/everything.json", json.dumps(show.to_json(plan), indent=1), package)
    assert_golden("azureml/autoscale.json", text_of(plan, "autoscale.json"), package)


@sdk
def test_the_files_load_in_the_sdk_and_lose_nothing(package: Package, footprint: Footprint) -> None:
    from azure.ai.ml import load_online_deployment, load_online_endpoint

    plan = plan_of(package, footprint)
    loaders = {"endpoint.yml": load_online_endpoint, "deployment.yml": load_online_deployment}
    with written(plan) as folder:
        for path, load in loaders.items():
            wanted = document(plan, path)
            assert wanted.pop("$schema").endswith(".schema.json")
            got = plain(load(folder / path)._to_dict())
            assert {key: got.get(key) for key in wanted} == wanted, path


@sdk
def test_the_sdk_refuses_what_it_does_not_know(package: Package, footprint: Footprint) -> None:
    """So that loading says something about our files."""
    from azure.ai.ml import load_online_deployment

    plan = plan_of(package, footprint)
    text = text_of(plan, "deployment.yml").replace("scale_settings:", "scaling:")
    with written(plan) as folder:
        (folder / "deployment.yml").write_text(text)
        with pytest.raises(Exception, match="scaling"):
            load_online_deployment(folder / "deployment.yml")


@pytest.mark.parametrize(
    ("measured", "concurrency", "milliseconds"),
    [
        ({"processor": 0.0001, "latency": 0.001}, 256, 30_000),
        ({"processor": 0.002, "latency": 0.002}, 100, 30_000),
        ({"processor": 0.2, "latency": 0.9}, 4, 90_000),
        ({"processor": 0.0, "latency": 0.0}, 256, 30_000),
    ],
)
def test_requests_are_sized_from_the_measurement(
    package: Package, footprint: Footprint, measured: Any, concurrency: int, milliseconds: int
) -> None:
    settings = document(plan_of(package, replace(footprint, **measured)), "deployment.yml")
    assert settings["request_settings"] == {
        "request_timeout_ms": milliseconds,
        "max_concurrent_requests_per_instance": concurrency,
        "max_queue_wait_ms": 1000,
    }


def test_the_names_are_what_azure_takes(package: Package, footprint: Footprint) -> None:
    deployment = document(plan_of(package, footprint), "deployment.yml")
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]{2,31}", deployment["name"])
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,255}", deployment["environment"]["version"])


@pytest.mark.parametrize("missing", range(len(WHERE)))
def test_what_is_missing_is_named(package: Package, footprint: Footprint, missing: int) -> None:
    settings = [pair for index, pair in enumerate(WHERE) if index != missing]
    name = WHERE[missing].partition("=")[0]
    with pytest.raises(InputError, match=f"needs the setting {name}") as caught:
        stage.plan(package, "azureml", settings, footprint=footprint)
    assert name in caught.value.hint


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("traffic=101", "traffic is 101"),
        ("traffic=-1", "traffic is -1"),
        ("mirror=51", "mirror is 51"),
        ("mirror=10", "not both"),
        ("max-instances=1", "fewer than instances"),
        ("auth-mode=none", "auth-mode=none"),
    ],
)
def test_settings_that_cannot_be(
    package: Package, footprint: Footprint, setting: str, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        plan_of(package, footprint, setting)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (["timeout=181"], "request time-out"),
        (["instances=51"], "instances"),
        (["name=" + "c" * 33], "name"),
        (["name=cc"], "name"),
    ],
)
def test_beyond_a_limit_it_is_refused(
    package: Package, footprint: Footprint, settings: list[str], what: str
) -> None:
    with pytest.raises(LimitError, match=what) as caught:
        plan_of(package, footprint, *settings)
    assert caught.value.hint


def test_more_memory_than_the_instance_has(package: Package, footprint: Footprint) -> None:
    large = replace(footprint, memory=4 << 30)
    with pytest.raises(LimitError, match="Standard_F2s_v2"):
        plan_of(package, large)
    assert plan_of(package, large, "instance-type=Standard_DS3_v2").checks


def test_without_an_image_it_says_that_it_will_be_pinned(
    package: Package, footprint: Footprint
) -> None:
    for more, shown in (
        ([], "<set image=registry/repository>"),
        (["image=shop.azurecr.io/churn"], "shop.azurecr.io/churn:"),
    ):
        plan = stage.plan(package, "azureml", [*WHERE, *more], footprint=footprint)
        assert plan.image.startswith(shown)
        assert any("pins it" in note for note in plan.notes)
        assert document(plan, "deployment.yml")["environment"]["image"] == plan.image


def test_a_mirror_gets_copies_only(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, "mirror=10", "traffic=0")
    share = plan.calls[-1].parameters
    assert (share["kind"], share["percent"]) == ("mirror_traffic", 10)
    assert "--mirror-traffic" in plan.commands[-1]


def test_our_server_answers_the_declared_routes(
    package: Package, footprint: Footprint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = document(plan_of(package, footprint), "deployment.yml")
    variables = dict(deployment["environment_variables"])
    # In the image the package is at this place; here it is where it is.
    assert variables.pop("MODELPORT_MODELS") == "/models/churn"
    port = int(variables.pop("MODELPORT_PORT"))
    routes = deployment["environment"]["inference_config"]
    assert {route["port"] for route in routes.values()} == {port}
    own = running.environment
    monkeypatch.setattr(running, "environment", lambda home: {**own(home), **variables})
    golden = package.golden()
    assert golden is not None
    flags = ["--host", "0.0.0.0"]  # as in the image: only with MODELPORT_ALLOW_ANONYMOUS
    with running.RunningServer(tmp_path / "home", [package.path], flags) as server:
        for name in ("liveness_route", "readiness_route"):
            assert server.get(routes[name]["path"]).status == 200
        rows = {"input_data": golden.inputs["x"].tolist()}
        answer = server.post(
            routes["scoring_route"]["path"], rows, {"content-type": "application/json"}
        )
        assert answer.status == 200, answer.body
        (output,) = golden.outputs.values()
        got = np.array(answer.json()["predictions"], dtype=output.dtype).reshape(output.shape)
        assert np.array_equal(got, output)


def test_scaling_by_load_names_the_deployment(package: Package, footprint: Footprint) -> None:
    """checkov has no check for this kind of resource, so it is held to what it has to say."""
    plan = plan_of(package, footprint, "max-instances=4")
    (item,) = json.loads(text_of(plan, "autoscale.json"))["resources"]
    (profile,) = item["properties"]["profiles"]
    assert profile["capacity"] == {"minimum": "2", "maximum": "4", "default": "2"}
    name = plan.connection["deployment"]
    for target in (
        item["properties"]["targetResourceUri"],
        *(rule["metricTrigger"]["metricResourceUri"] for rule in profile["rules"]),
    ):
        assert re.findall(r"'([^']*)'", target)[1:] == ["shop", "churn", name]
    grow, shrink = profile["rules"]
    assert grow["scaleAction"]["direction"] == "Increase"
    assert shrink["scaleAction"]["direction"] == "Decrease"
    assert shrink["metricTrigger"]["threshold"] * 2 < grow["metricTrigger"]["threshold"]


def test_every_limit_of_the_file_is_checked(package: Package, footprint: Footprint) -> None:
    plans = [
        plan_of(package, footprint, f"instance-type={name}")
        for name in ("Standard_F2s_v2", "Standard_DS3_v2")
    ]
    checked = {check.limit.id for plan in plans for check in plan.checks}
    known = {limit.id for limit in read_limits()[1] if limit.target == "azureml"}
    assert known == checked


def plain(value: Any) -> Any:
    """The SDK's ordered dictionaries as plain ones."""
    return json.loads(json.dumps(value))


@contextmanager
def written(plan: Plan) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        stage.write(plan, Path(folder))
        assert sorted(os.listdir(folder)) == sorted(file.path for file in plan.files)
        yield Path(folder)


@pytest.mark.parametrize(
    ("image", "planned"),
    [("shop.azurecr.io/churn", "shop.azurecr.io/churn:TAG"), ("shop.azurecr.io/churn:v1", "")],
)
def test_an_image_with_a_tag_gets_no_second(
    package: Package, footprint: Footprint, image: str, planned: str
) -> None:
    settings = [*WHERE, f"image={image}"]
    plan = stage.plan(package, "azureml", settings, footprint=footprint)
    assert plan.image == (planned.replace("TAG", plan.service.tag) or image)
    with pytest.raises(InputError, match="Shop"):
        stage.plan(package, "azureml", [*WHERE, "image=Shop/Churn"], footprint=footprint)
