"""Loads as people write them, and what a month costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from modelport.adapters import adapters_of
from modelport.core.errors import InputError
from modelport.core.package import Package
from modelport.deploy.base import Plan, Settings
from modelport.deploy.cost import HOURS, Cost, Load, monthly_cost, read_load, read_prices
from modelport.deploy.limits import check_limits
from modelport.deploy.service import Footprint, Service
from modelport.deploy.settings import setting

DAY = HOURS / 24


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was measured there."""
    monkeypatch.setenv("HOME", str(tmp_path))


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
    concurrency: int = setting(0, "x")
    utilization: int = setting(0, "x")
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
    return read_prices().counted[target, name].price


def machine(target: str, name: str) -> float:
    return read_prices().machines[target, name].price


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


def test_the_autoscaler_s_own_threshold_counts(package: Package, footprint: Footprint) -> None:
    """4 processors of work: 6 pods of one at 70 %, 8 at 50 %."""
    load = Load(40_000, HOURS)
    at_70 = cost(package, footprint, "kubernetes", load, replicas=1, cpu="1")
    assert at_70.driver.startswith("6 x 1 vCPU")
    at_50 = cost(package, footprint, "kubernetes", load, replicas=1, cpu="1", utilization=50)
    assert at_50.driver.startswith("8 x 1 vCPU")


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


def test_always_ready_instances_are_paid_at_two_rates(
    package: Package, footprint: Footprint
) -> None:
    """One is busy all the time, of two that are always ready: no instance is paid on demand."""
    found = cost(
        package, footprint, "azure-functions", Load(1000, HOURS), memory="2Gi", always_ready=2
    )
    seconds = 730 * 3600
    expected = 2 * seconds * 2 * price("azure-functions", "ready-memory")
    expected += seconds * 2 * price("azure-functions", "ready-execution")
    expected += 1000 * seconds * price("azure-functions", "requests")
    assert found.usd == pytest.approx(expected)


def test_long_requests_count_more_than_once_at_an_http_api(
    package: Package, footprint: Footprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = cost(package, footprint, "lambda", memory="1Gi", front="http-api").usd
    monkeypatch.setattr(Service, "request_bytes", 513 << 10)
    large = cost(package, footprint, "lambda", memory="1Gi", front="http-api").usd
    assert small is not None
    assert large == pytest.approx(small + 10 * 3600 * 730 * 1e-6)


def test_requests_that_wait_hold_an_instance_as_well_as_those_that_compute(
    package: Package, footprint: Footprint
) -> None:
    """100 requests a second of 0.5 s each are 50 at a time: at 10 per instance, five of them."""
    slow = replace(footprint, latency=0.5)
    found = cost(
        package, slow, "azureml", Load(100, HOURS), instance_type="Standard_F2s_v2", concurrency=10
    )
    assert found.driver.startswith("5 x")
    run = cost(package, slow, "cloudrun", Load(100, 1), memory="1Gi", concurrency=10)
    assert ", 5 h of" in run.driver


@dataclass(frozen=True, kw_only=True)
class Bounded(Chosen):
    """With what bounds a service."""

    max_instances: int = setting(0, "x")
    max_replicas: int = setting(2, "x")
    max_concurrency: int = setting(20, "x")
    reserved_concurrency: int = setting(0, "x")


@pytest.mark.parametrize(
    ("target", "chosen", "short"),
    [
        ("sagemaker", {"instance_type": "ml.m5.large"}, "need 8 of its servers, and there are at "
         "most 1: --set max-instances=8"),
        ("sagemaker", {"instance_type": "ml.m5.large", "max_instances": 7}, "max-instances=8"),
        ("sagemaker", {"instance_type": "ml.m5.large", "max_instances": 8}, ""),
        ("sagemaker", {"instance_type": "ml.m5.large", "instances": 8}, ""),
        ("sagemaker", {"mode": "serverless"}, "need 100 requests at a time, and there are at most "
         "20: --set max-concurrency=100"),
        ("sagemaker", {"mode": "serverless", "max_concurrency": 100}, ""),
        ("vertex", {"instance_type": "e2-standard-2"}, "max-replicas=8"),
        ("azureml", {"instance_type": "Standard_F2s_v2"}, "max-instances=8"),
        ("cloudrun", {"max_instances": 10}, "max-instances=15"),
        ("cloudrun", {"max_instances": 15}, ""),
        ("azure-functions", {"memory": "2Gi", "max_instances": 10}, "max-instances=15"),
        ("lambda", {"memory": "1769Mi"}, "need 1100 environments at a time, and there are at most "
         "1000: --set reserved-concurrency=1100"),
        ("lambda", {"memory": "1769Mi", "reserved_concurrency": 1100}, ""),
        ("kubernetes", {"cpu": "1"}, "max-replicas=15"),
    ],
)  # fmt: skip
def test_what_does_not_carry_the_load_says_what_would(
    package: Package, footprint: Footprint, target: str, chosen: dict[str, Any], short: str
) -> None:
    """100 requests a second of 0.1 s of processor time keep 10 / 0.7 processors busy: 15.

    Where one is answered at a time, what counts is how long it takes: here a second or more.
    """
    rate, latency = (1000, 1.099) if target == "lambda" else (100, 0.1)
    latency = 1.0 if chosen.get("mode") == "serverless" else latency
    heavy = replace(footprint, latency=latency, processor=0.1)
    plan = Plan(target, Service("churn", package, None, heavy))
    found = monthly_cost(plan, Bounded(**chosen), Load(rate, HOURS))
    assert found.usd is not None
    assert short in found.short
    assert bool(short) == bool(found.short)


def test_a_price_that_was_not_read_is_marked(package: Package, footprint: Footprint) -> None:
    for target, chosen in [
        ("lambda", {"front": "http-api"}),
        ("lambda", {"architecture": "arm64"}),
        ("cloudrun", {}),
        ("vertex", {"instance_type": "e2-standard-2"}),
        ("kubernetes", {}),
    ]:
        found = cost(package, footprint, target, **chosen)
        used = {
            "lambda": ["memory-arm"] if chosen.get("architecture") else ["memory", "http-api"],
            "cloudrun": ["vcpu", "memory", "requests"],
            "kubernetes": ["vcpu", "memory"],
            "vertex": [],
        }[target]
        read = all(read_prices().counted[target, name].read for name in used)
        read &= target != "vertex" or read_prices().machines["vertex", "e2-standard-2"].read
        assert found.read == read
        assert found.text.endswith(" *") == (not read)


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
    assert Cost(usd, "x", read=False).text == (text if usd is None else f"{text} *")


def test_the_price_file_is_whole() -> None:
    import tomllib
    from importlib.resources import files

    document = tomllib.loads(files("modelport.deploy.cost").joinpath("prices.toml").read_text())
    targets = {adapter.name for adapter in adapters_of("target")}
    assert document["currency"] == "USD"
    assert len(document["date"].split("-")) == 3
    rows = [*document["price"], *document["machine"]]
    assert len({(row["target"], row["name"]) for row in rows}) == len(rows)
    for row in rows:
        assert row["target"] in targets
        assert 0 < row["price"] < 100
        assert row["region"]
        assert isinstance(row["read"], bool)
        source = urlsplit(row["source"])
        assert (source.scheme, bool(source.hostname)) == ("https", True)
    for row in document["machine"]:
        assert row["vcpu"] > 0
        assert row["memory"] > 0
