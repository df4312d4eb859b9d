"""Loads as people write them, what a month costs, and all targets side by side."""

from __future__ import annotations

import math
import socket
import time
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from modelport.adapters import adapters_of
from modelport.api.compare import compare_targets
from modelport.core.errors import InputError, NotFoundError
from modelport.core.package import Package
from modelport.deploy.base import Footprint, Plan, Service, Settings
from modelport.deploy.cost import Cost, monthly_cost, read_prices
from modelport.deploy.limits import check_limits
from modelport.deploy.load import HOURS, Load, read_load
from modelport.deploy.settings import setting

DAY = HOURS / 24


@pytest.mark.parametrize(
    ("text", "rps", "hours"),
    [
        ("50 rps, 8h/day", 50, 8 * DAY),
        ("50rps,8h/day", 50, 8 * DAY),
        (" 50 RPS ; 8 hours per day ", 50, 8 * DAY),
        ("8h/day, 50 rps", 50, 8 * DAY),
        ("0.5 qps", 0.5, HOURS),
        ("3/s", 3, HOURS),
        ("3 requests/second", 3, HOURS),
        ("120 requests/min", 2, HOURS),
        ("7200 requests/hour", 2, HOURS),
        ("86400 requests/day", 1, HOURS),
        ("36k requests/day, 10h/day", 1, 10 * DAY),
        ("1M requests/month", 1e6 / (730 * 3600), HOURS),
        ("1m calls per month", 1e6 / (730 * 3600), HOURS),
        ("10 rps, 5 days/week", 10, 24 * DAY * 5 / 7),
        ("10 rps, 8h/day, 22 days/month", 10, 8 * 22),
        ("1e3 rps, 24h/day", 1000, HOURS),
    ],
)
def test_loads(text: str, rps: float, hours: float) -> None:
    load = read_load(text)
    assert load.rps == pytest.approx(rps)
    assert load.hours == pytest.approx(hours)
    assert load.requests == pytest.approx(rps * hours * 3600)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ",", "8h/day", "50", "rps", "fifty rps", "50 rps, ", "50 rps 8h/day", "-5 rps",
        "0 rps", "1e999 rps", "50 rps, 25h/day", "50 rps, 0h/day", "50 rps, 8 days/week",
        "50 rps, 32 days/month", "50 rps, 60 rps", "50 rps, 8h/day, 9h/day", "5 rps, 8h/fortnight",
        "5 requests/fortnight", "nan rps", "50 rps, 8h/day, lots", "5 requests/",
    ],
)  # fmt: skip
def test_what_is_no_load(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_load(text)
    assert caught.value.where == "--load"
    assert "50 rps, 8h/day" in caught.value.hint


@dataclass(frozen=True, kw_only=True)
class Chosen(Settings):
    """Settings of every target at once."""

    memory: str = setting("", "x")
    cpu: str = setting("", "x")
    replicas: int = setting(1, "x")
    min_replicas: int = setting(1, "x")
    min_instances: int = setting(0, "x")
    always_ready: int = setting(0, "x")
    instances: int = setting(1, "x")
    instance_type: str = setting("", "x")
    mode: str = setting("", "x")
    front: str = setting("", "x")
    architecture: str = setting("", "x")


ALL_DAY = Load(10.0, HOURS)


def cost(
    package: Package, footprint: Footprint, target: str, load: Load = ALL_DAY, **chosen: Any
) -> Cost:
    plan = Plan(target, Service("churn", package, None, footprint))
    return monthly_cost(plan, Chosen(**chosen), load)


def price(target: str, name: str) -> float:
    return read_prices()[1][target, name]


def machine(target: str, name: str) -> float:
    (found,) = [m for m in read_prices()[2][target] if m.name == name]
    return found.price


def test_lambda_by_hand(package: Package, footprint: Footprint) -> None:
    """1,769 MB are one vCPU: 1 ms of latency, and 1 ms for the handler, are billed as 2."""
    found = cost(package, footprint, "lambda", memory="1769Mi", front="http-api")
    requests = 10 * 3600 * 730
    gib_seconds = requests * 0.002 * 1769 / 1024
    expected = gib_seconds * 0.0000166667 + requests * (0.20 + 1.00) / 1e6
    assert found.usd == pytest.approx(expected)
    without = cost(package, footprint, "lambda", memory="1769Mi", front="function-url")
    assert found.usd - without.usd == pytest.approx(requests / 1e6)
    arm = cost(package, footprint, "lambda", memory="1769Mi", architecture="arm64")
    assert arm.usd < without.usd


def test_less_memory_is_less_processor_and_takes_longer(
    package: Package, footprint: Footprint
) -> None:
    slow = replace(footprint, processor=0.1, latency=0.1)
    times = [
        int(cost(package, slow, "lambda", memory=f"{m}Mi").driver.split(" ms")[0].split()[-1])
        for m in (512, 1769, 3538)
    ]
    assert times[0] == math.ceil(100 * 1769 / 512) + 1
    assert times[1:] == [101, 101]


def test_machines_are_paid_whether_they_are_asked_or_not(
    package: Package, footprint: Footprint
) -> None:
    busy = cost(package, footprint, "sagemaker", instance_type="ml.c6i.large")
    idle = cost(package, footprint, "sagemaker", Load(0.001, 1), instance_type="ml.c6i.large")
    assert busy.usd == idle.usd == pytest.approx(730 * machine("sagemaker", "ml.c6i.large"))


def test_machines_are_added_while_the_load_needs_them(
    package: Package, footprint: Footprint
) -> None:
    """2 vCPU at 70 % answer 14,000 requests of 0.1 ms in a second; 30,000 take three machines."""
    found = cost(package, footprint, "azureml", Load(30_000, 100), instance_type="Standard_F2s_v2")
    hour = machine("azureml", "Standard_F2s_v2")
    assert found.usd == pytest.approx(hour * (3 * 100 + 1 * 630))
    assert found.driver.startswith("3 x Standard_F2s_v2")
    exact = cost(package, footprint, "azureml", Load(14_000, 100), instance_type="Standard_F2s_v2")
    assert exact.driver.startswith("1 x")


def test_a_machine_without_a_price_has_no_cost(package: Package, footprint: Footprint) -> None:
    found = cost(package, footprint, "sagemaker", instance_type="ml.p99.enormous")
    assert (found.usd, found.text) == (None, "-")


def test_serverless_and_jobs(package: Package, footprint: Footprint) -> None:
    serverless = cost(package, footprint, "sagemaker", mode="serverless", memory="1Gi")
    requests = 10 * 3600 * 730
    assert serverless.usd == pytest.approx(
        requests * 0.001 * price("sagemaker", "serverless-memory")
    )
    job = cost(package, footprint, "sagemaker", mode="batch", instance_type="ml.c6i.large")
    assert job.usd is None
    assert "as long as a job runs" in job.driver


def test_kubernetes_counts_what_pods_request(package: Package, footprint: Footprint) -> None:
    found = cost(package, footprint, "kubernetes", replicas=2, cpu="500m", memory="1Gi")
    hour = 0.5 * price("kubernetes", "vcpu") + price("kubernetes", "memory")
    assert found.usd == pytest.approx(2 * 730 * hour)


def test_cloud_run_is_paid_while_it_answers(package: Package, footprint: Footprint) -> None:
    seldom = cost(package, footprint, "cloudrun", Load(1e-6, HOURS), memory="1Gi")
    assert seldom.usd < 0.01
    always = cost(package, footprint, "cloudrun", Load(1000, HOURS), memory="1Gi")
    seconds = 730 * 3600
    instance = seconds * (price("cloudrun", "vcpu") + price("cloudrun", "memory"))
    assert always.usd == pytest.approx(instance + 1000 * seconds * price("cloudrun", "requests"))
    warm = cost(package, footprint, "cloudrun", Load(1e-6, HOURS), memory="1Gi", min_instances=1)
    idle = seconds * (price("cloudrun", "idle-vcpu") + price("cloudrun", "idle-memory"))
    assert warm.usd == pytest.approx(idle, rel=1e-3)


def test_azure_functions_take_the_size_of_the_plan_s_instance(
    package: Package, footprint: Footprint
) -> None:
    checks = check_limits("azure-functions", {"memory": 1.0}, "2048")
    plan = Plan("azure-functions", Service("churn", package, None, footprint), checks=checks)
    found = monthly_cost(plan, Chosen(), Load(1000, HOURS))
    assert "with 2 GiB" in found.driver
    seconds = 730 * 3600
    expected = seconds * 2 * price("azure-functions", "memory")
    expected += 1000 * seconds * price("azure-functions", "requests")
    assert found.usd == pytest.approx(expected)


@pytest.mark.parametrize("target", [adapter.name for adapter in adapters_of("target")])
def test_more_requests_never_cost_less(package: Package, footprint: Footprint, target: str) -> None:
    names = {"sagemaker": "ml.m5.large", "vertex": "e2-standard-2", "azureml": "Standard_F2s_v2"}
    loads = [Load(rps, 243.0) for rps in (0.001, 1, 10, 100, 1000, 10_000, 100_000)]
    costs = [
        cost(package, footprint, target, load, instance_type=names.get(target, "")).usd
        for load in loads
    ]
    if target in ("docker", "compose"):
        assert costs == [None] * len(loads)
    else:
        assert all(value is not None and value >= 0 for value in costs)
        assert costs == sorted(costs)


@pytest.mark.parametrize(
    ("usd", "text"), [(None, "-"), (0.001, "$ 0.00"), (9.994, "$ 9.99"), (84.4, "$ 84"),
                      (12345.6, "$ 12,346")]
)  # fmt: skip
def test_costs_as_text(usd: float | None, text: str) -> None:
    assert Cost(usd, "x").text == text


def test_the_price_file_is_whole() -> None:
    import tomllib
    from importlib.resources import files

    document = tomllib.loads(files("modelport.deploy").joinpath("prices.toml").read_text())
    targets = {adapter.name for adapter in adapters_of("target")}
    assert document["currency"] == "USD"
    assert len(document["date"].split("-")) == 3
    rows = [*document["price"], *document["machine"]]
    assert len({(row["target"], row["name"]) for row in rows}) == len(rows)
    for row in rows:
        assert row["target"] in targets
        assert 0 < row["price"] < 100
        assert row["region"]
        source = urlsplit(row["source"])
        assert (source.scheme, bool(source.hostname)) == ("https", True)
    for row in document["machine"]:
        assert row["vcpu"] > 0
        assert row["memory"] > 0


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_all_targets_side_by_side(package: Package) -> None:
    rows = compare_targets(str(package.path), load="50 rps, 8h/day")
    assert [row["target"] for row in rows] == [adapter.name for adapter in adapters_of("target")]
    for row in rows:
        assert row["fits"] == "yes", row
        assert row["cold_start"]
        assert row["why"]
        own = row["target"] in ("docker", "compose")
        assert (row["cost"] is None) == own, row
        assert row["cost_text"] == "-" if own else row["cost_text"].startswith("$ ")
        assert all(limit["passed"] for limit in row["limits"])
    assert rows == compare_targets(str(package.path), load="50 rps, 8h/day")


@pytest.mark.usefixtures("no_network")
def test_it_takes_less_than_a_second(package: Package) -> None:
    compare_targets(str(package.path), load="50 rps, 8h/day")
    start = time.perf_counter()
    compare_targets(str(package.path), load="50 rps, 8h/day")
    assert time.perf_counter() - start < 1  # the issue's own bar


def test_without_a_load_there_is_no_cost(package: Package) -> None:
    rows = compare_targets(str(package.path))
    assert {(row["cost"], row["cost_text"]) for row in rows} == {(None, "-")}
    assert {row["fits"] for row in rows} == {"yes"}


def test_what_does_not_fit_says_why(package: Package) -> None:
    rows = {r["target"]: r for r in compare_targets(str(package.path), ["timeout=901"])}
    assert rows["lambda"]["fits"] == "no"
    assert "901 s of at most 900 s" in rows["lambda"]["why"]
    assert "https://" in rows["lambda"]["why"]
    assert rows["docker"]["fits"] == "yes"


def test_what_only_the_user_knows_is_named(package: Package) -> None:
    rows = {r["target"]: r for r in compare_targets(str(package.path))}
    assert {"project", "region"} <= set(rows["vertex"]["needs"])
    given = ["project=real-project", "region=europe-west4"]
    told = {r["target"]: r for r in compare_targets(str(package.path), given)}
    assert not {"project", "region"} & set(told["vertex"]["needs"])


def test_settings_that_nobody_has_are_refused(package: Package) -> None:
    with pytest.raises(NotFoundError, match="colour"):
        compare_targets(str(package.path), ["colour=red"])
    with pytest.raises(InputError, match="not a setting"):
        compare_targets(str(package.path), ["timeout"])
    with pytest.raises(InputError, match="not a int"):
        compare_targets(str(package.path), ["timeout=soon"])
    with pytest.raises(InputError, match="not part of a load"):
        compare_targets(str(package.path), load="some")


def test_a_setting_of_one_target_leaves_the_others_alone(package: Package) -> None:
    rows = {r["target"]: r for r in compare_targets(str(package.path), ["mode=serverless"])}
    assert rows["vertex"]["fits"] == "yes"
    assert rows["sagemaker"]["fits"] == "yes"
