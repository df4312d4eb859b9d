"""Paid by what is used: Lambda, SageMaker serverless, Cloud Run, Azure Functions.

By the request (Lambda, SageMaker serverless)::

    seconds  = max(latency, processor / vcpu)                     of one request, rounded up
    cost     = requests * (price per request + seconds * size * price per second)

While at least one request is answered (Cloud Run, Azure Functions)::

    active   = max(1 - exp(-rps * seconds), rps * processor / (vcpu * 0.7))
    cost     = requests * price per request + active * hours * size * price + what is kept warm
"""

from __future__ import annotations

import math
from typing import Final

from modelport.deploy.base import Plan
from modelport.deploy.cost.base import Cost, too_few
from modelport.deploy.cost.demand import Demand
from modelport.deploy.cost.load import HOURS
from modelport.deploy.cost.prices import read_prices

#: Megabytes for which Lambda gives one vCPU. Source: Lambda developer guide, "Configure memory".
_LAMBDA_VCPU_MB: Final = 1769.0
#: Environments of all functions of an account at a time, unless raised. Source: "Lambda quotas".
_LAMBDA_ENVIRONMENTS: Final = 1000.0
#: HTTP APIs count a request for each beginning 512 KB. Source: API Gateway's pricing.
_METERED: Final = 512 << 10
_HOUR: Final = 3600


def cloudrun(demand: Demand) -> Cost:
    """Processor and memory while requests are answered, less while instances are kept warm."""
    vcpu = demand.number("cpu", default=_planned_vcpu(demand.plan))
    memory = demand.memory()
    least = demand.number("min_instances", default=0.0)
    at_once = demand.number("concurrency", default=demand.planned("concurrency") or 80.0)
    billed = _HOUR * demand.load.hours * demand.active(vcpu, at_once, 0.1)
    second = vcpu * demand.price("vcpu") + memory * demand.price("memory")
    idle = vcpu * demand.price("idle-vcpu") + memory * demand.price("idle-memory") if least else 0.0
    warm = max(0.0, _HOUR * HOURS * least - billed) * idle
    usd = billed * second + warm + demand.load.requests * demand.price("requests")
    needed = demand.replicas(vcpu, at_once)
    return Cost(
        usd,
        f"{demand.load.requests:,.0f} requests, {billed / _HOUR:.3g} h of {vcpu:g} vCPU and "
        f"{memory:.2g} GiB",
        too_few(demand, needed, demand.most(least, "max_instances"), "max-instances"),
    )


def _planned_vcpu(plan: Plan) -> float:
    """Of a limit's mode: ``cpu-2``."""
    for check in plan.checks:
        _, found, number = check.limit.mode.partition("cpu-")
        if found and number.isdecimal():
            return float(number)
    return 1.0


def awslambda(demand: Demand) -> Cost:
    """GB-seconds and requests, and those of the API in front of the function."""
    memory = demand.memory()
    seconds = demand.seconds(memory * 1024 / _LAMBDA_VCPU_MB)
    milliseconds = math.ceil(1000 * seconds) + 1  # the handler's own, and rounding up
    arm = getattr(demand.settings, "architecture", "") == "arm64"
    each = milliseconds / 1000 * memory * demand.price("memory-arm" if arm else "memory")
    each += demand.price("requests")
    front = getattr(demand.settings, "front", "")
    if ("lambda", front) in read_prices().counted:  # a function's own URL costs nothing
        parts = math.ceil(demand.plan.service.request_bytes / _METERED)
        each += demand.price(front) * (parts if front == "http-api" else 1)
    reserved = demand.number("reserved_concurrency", default=_LAMBDA_ENVIRONMENTS)
    needed = math.ceil(demand.load.rps * milliseconds / 1000)
    return Cost(
        demand.load.requests * each,
        f"{demand.load.requests:,.0f} requests of {milliseconds} ms with {memory:.2g} GiB"
        + (f", through its {front}" if front not in ("", "none") else ""),
        too_few(demand, needed, reserved, "reserved-concurrency", "environments at a time"),
    )


def azure_functions(demand: Demand) -> Cost:
    """Flex Consumption: an instance is paid while it answers, a second at least."""
    modes = [c.limit.mode for c in demand.plan.checks if c.limit.mode.isdecimal()]
    memory = float(modes[0]) / 1024 if modes else demand.memory()
    vcpu = memory / 2  # an instance of 2048 MB has one core, of 4096 MB two, of 512 MB a quarter
    ready = demand.number("always_ready", default=0.0)
    at_once = demand.number("concurrency", default=demand.planned("concurrency") or 16.0)
    active = demand.active(vcpu, at_once, 1.0)
    hours = demand.load.hours * _HOUR * memory  # GiB-seconds of one instance
    usd = max(0.0, active - ready) * hours * demand.price("memory")
    if ready:
        usd += min(active, ready) * hours * demand.price("ready-execution")
        usd += ready * HOURS * _HOUR * memory * demand.price("ready-memory")
    usd += demand.load.requests * demand.price("requests")
    kept = f", {ready:g} always ready" if ready else ""
    return Cost(
        usd,
        f"{demand.load.requests:,.0f} requests, {active * demand.load.hours:.3g} h of an instance "
        f"with {memory:.2g} GiB{kept}",
        too_few(
            demand,
            demand.replicas(vcpu, at_once),
            demand.most(ready, "max_instances"),
            "max-instances",
        ),
    )


def sagemaker_serverless(demand: Demand) -> Cost:
    """Memory for as long as a request takes."""
    memory = math.ceil(demand.memory())
    seconds = math.ceil(1000 * demand.seconds(1.0)) / 1000
    each = seconds * memory * demand.price("serverless-memory")
    return Cost(
        demand.load.requests * each,
        f"{demand.load.requests:,.0f} requests of {1000 * seconds:.0f} ms with {memory} GiB",
        too_few(
            demand,
            math.ceil(demand.load.rps * seconds),
            demand.most(1, "max_concurrency"),
            "max-concurrency",
            "requests at a time",
        ),
    )
