"""What a month costs, from the measured time and memory, a load, and a dated file of list prices.

Always running (SageMaker, Vertex AI, Azure ML, Kubernetes)::

    replicas = max(least, ceil(rps * processor / (vcpu * 0.7)))   while it is asked; else `least`
    cost     = price per hour * (replicas * hours + least * (730 - hours))

Paid by the request (Lambda, SageMaker serverless)::

    seconds  = max(latency, processor / vcpu)                     of one request, rounded up
    cost     = requests * (price per request + seconds * size * price per second)

Paid while at least one request is answered (Cloud Run, Azure Functions)::

    active   = max(1 - exp(-rps * seconds), rps * processor / (vcpu * 0.7))
    cost     = requests * price per request + active * hours * size * price

Free tiers, discounts, taxes, network traffic, storage and logs are left out. Sources: the price
pages that ``prices.toml`` names.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, Final

from modelport.deploy.base import Footprint, Plan
from modelport.deploy.load import HOURS, Load
from modelport.deploy.settings import quantity
from modelport.deploy.show import to_json

FILE: Final = "prices.toml"

#: Processors are not loaded beyond this: above it waiting times grow fast.
_UTILIZATION: Final = 0.7
_GIB: Final = float(1 << 30)
#: Megabytes for which Lambda gives one vCPU. Source: Lambda developer guide, "Configure memory".
_LAMBDA_VCPU_MB: Final = 1769.0
#: Memory of a container relative to the measured peak, where the plan does not say it.
_MARGIN: Final = 2.0
_LEAST_POD_VCPU: Final = 0.1


@dataclass(frozen=True)
class Machine:
    """A machine type; `price` for an hour, `memory` in GiB."""

    name: str
    vcpu: float
    memory: float
    price: float


@dataclass(frozen=True)
class Cost:
    """What a month costs.

    Parameters
    ----------
    usd : float or None
        None where there is no list price: an own machine, or one that the file does not know.
    driver : str
        What it is paid for.
    """

    usd: float | None
    driver: str

    @property
    def text(self) -> str:
        """For people: ``$ 84``."""
        if self.usd is None:
            return "-"
        return f"$ {self.usd:,.2f}" if self.usd < 10 else f"$ {self.usd:,.0f}"


@dataclass(frozen=True)
class _Case:
    """All that a cost depends on."""

    plan: Plan
    settings: Any
    load: Load

    @property
    def footprint(self) -> Footprint:
        return self.plan.service.footprint

    def memory(self) -> float:
        """GiB of one server: as set, as planned, or twice what it takes."""
        set_memory = getattr(self.settings, "memory", "")
        if isinstance(set_memory, str) and set_memory:
            return quantity(set_memory, "--set memory") / _GIB
        if isinstance(set_memory, int) and set_memory:
            return set_memory / 1024  # megabytes
        planned = [c.value for c in self.plan.checks if c.limit.measure == "memory"]
        return (planned[0] if planned else _MARGIN * self.footprint.memory) / _GIB

    def number(self, *names: str, default: float) -> float:
        """The first of these settings that is there and not empty."""
        for name in names:
            value = getattr(self.settings, name, None)
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                return float(value)
        return default

    def replicas(self, vcpu: float, least: float) -> int:
        """How many servers with that many processors the load keeps busy."""
        busy = self.load.rps * self.footprint.processor / (vcpu * _UTILIZATION)
        return max(math.ceil(least), math.ceil(busy - 1e-9), 1)

    def seconds(self, vcpu: float) -> float:
        """Of one request, where it has that many processors for itself."""
        return max(self.footprint.latency, self.footprint.processor / min(1.0, vcpu))


@cache
def read_prices() -> tuple[str, Mapping[tuple[str, str], float], Mapping[str, tuple[Machine, ...]]]:
    """The date of the file, its prices by target and name, and its machines by target."""
    text = files("modelport.deploy").joinpath(FILE).read_text(encoding="utf-8")
    document = tomllib.loads(text)
    prices = {(row["target"], row["name"]): float(row["price"]) for row in document["price"]}
    machines: dict[str, tuple[Machine, ...]] = {}
    for row in document["machine"]:
        machine = Machine(**{item.name: row[item.name] for item in fields(Machine)})
        machines[row["target"]] = (*machines.get(row["target"], ()), machine)
    return str(document["date"]), prices, machines


def monthly_cost(plan: Plan, settings: Any, load: Load) -> Cost:
    """What a month of a planned service costs at its platform's list price.

    Parameters
    ----------
    plan : Plan
    settings : Settings
        Of its target.
    load : Load
    """
    estimate = _TARGETS.get(plan.target)
    if estimate is None:
        return Cost(None, "no prices known")
    return estimate(_Case(plan, settings, load))


def _own(case: _Case) -> Cost:
    share = case.load.rps * case.footprint.processor
    return Cost(None, f"your own machine: {share:.2g} of a core at the peak")


def _price(target: str, name: str) -> float:
    return read_prices()[1][target, name]


def _kubernetes(case: _Case) -> Cost:
    least = case.number("replicas", "min_replicas", default=1)
    if getattr(case.settings, "min_replicas", None) == 0:
        least = 0
    memory = case.memory()
    busy = case.load.rps * case.footprint.processor / _UTILIZATION
    vcpu = _vcpu(getattr(case.settings, "cpu", "")) or max(_LEAST_POD_VCPU, busy / max(least, 1.0))
    replicas = case.replicas(vcpu, least)
    hour = vcpu * _price("kubernetes", "vcpu") + memory * _price("kubernetes", "memory")
    usd = hour * (replicas * case.load.hours + least * (HOURS - case.load.hours))
    return Cost(
        usd,
        f"{replicas} x {vcpu:.2g} vCPU and {memory:.2g} GiB requested of a cluster that is there",
    )


def _vcpu(text: Any) -> float:
    """Of a Kubernetes quantity or a number; 0: not said."""
    if isinstance(text, int | float):
        return float(text)
    text = str(text)
    try:
        return float(text[:-1]) / 1000 if text.endswith("m") else float(text or 0)
    except ValueError:
        return 0.0


def _cloudrun(case: _Case) -> Cost:
    vcpu = case.number("cpu", default=_planned_vcpu(case.plan))
    memory = case.memory()
    least = case.number("min_instances", default=0.0)
    active = _active_instances(case, vcpu, case.number("concurrency", default=80.0), 0.1)
    billed = 3600 * case.load.hours * active
    second = vcpu * _price("cloudrun", "vcpu") + memory * _price("cloudrun", "memory")
    idle = vcpu * _price("cloudrun", "idle-vcpu") + memory * _price("cloudrun", "idle-memory")
    warm = max(0.0, 3600 * HOURS * least - billed) * idle
    usd = billed * second + warm + case.load.requests * _price("cloudrun", "requests")
    return Cost(
        usd,
        f"{case.load.requests:,.0f} requests, {billed / 3600:.3g} h of {vcpu:g} vCPU and "
        f"{memory:.2g} GiB",
    )


def _planned_vcpu(plan: Plan) -> float:
    """Of a limit's mode: ``cpu-2``."""
    for check in plan.checks:
        _, found, number = check.limit.mode.partition("cpu-")
        if found and number.isdecimal():
            return float(number)
    return 1.0


def _lambda(case: _Case) -> Cost:
    memory = case.memory()
    vcpu = memory * 1024 / _LAMBDA_VCPU_MB
    milliseconds = math.ceil(1000 * case.seconds(vcpu)) + 1  # the handler's own, and rounding up
    arm = getattr(case.settings, "architecture", "") == "arm64"
    front = getattr(case.settings, "front", "")
    each = (
        milliseconds / 1000 * memory * _price("lambda", "memory-arm" if arm else "memory")
        + _price("lambda", "requests")
        + read_prices()[1].get(("lambda", front), 0.0)  # a function's own URL costs nothing
    )
    return Cost(
        case.load.requests * each,
        f"{case.load.requests:,.0f} requests of {milliseconds} ms with {memory:.2g} GiB"
        + (f", through its {front}" if front else ""),
    )


def _azure_functions(case: _Case) -> Cost:
    """Flex Consumption: an instance is paid while it answers, a second at least."""
    modes = [c.limit.mode for c in case.plan.checks if c.limit.mode.isdecimal()]
    memory = float(modes[0]) / 1024 if modes else case.memory()
    least = case.number("always_ready", default=0.0)
    # A Flex instance of 2048 MB has one core, of 4096 MB two, of 512 MB a quarter.
    active = _active_instances(case, memory / 2, case.number("concurrency", default=16.0), 1.0)
    billed = 3600 * case.load.hours * active
    ready = 3600 * HOURS * least * memory * _price("azure-functions", "ready-memory")
    usd = (
        billed * memory * _price("azure-functions", "memory")
        + ready
        + case.load.requests * _price("azure-functions", "requests")
    )
    return Cost(
        usd,
        f"{case.load.requests:,.0f} requests, {billed / 3600:.3g} h of an instance with "
        f"{memory:.2g} GiB",
    )


def _active_instances(case: _Case, vcpu: float, concurrency: float, least: float) -> float:
    """How many instances are paid, on average, in the hours with requests.

    An instance is paid while it answers at least one request, and `least` seconds each time.
    Requests arrive independently (Poisson), so that seldom ones never overlap.
    """
    rate = case.load.rps
    some = 1 - math.exp(-rate * max(case.seconds(vcpu), least))
    return max(
        some,
        rate * case.seconds(vcpu) / concurrency,
        rate * case.footprint.processor / (vcpu * _UTILIZATION),
    )


def _sagemaker(case: _Case) -> Cost:
    mode = getattr(case.settings, "mode", "")
    if mode == "serverless":
        memory = math.ceil(case.memory())
        seconds = math.ceil(1000 * case.seconds(1.0)) / 1000
        each = seconds * memory * _price("sagemaker", "serverless-memory")
        return Cost(
            case.load.requests * each,
            f"{case.load.requests:,.0f} requests of {1000 * seconds:.0f} ms with {memory} GiB",
        )
    return _job(case) if mode == "batch" else _machines(case, "instances")


def _vertex(case: _Case) -> Cost:
    batch = getattr(case.settings, "mode", "") == "batch"
    return _job(case) if batch else _machines(case, "min_replicas")


def _job(case: _Case) -> Cost:
    machine = _machine(case)
    price = f" ($ {machine.price:.3g} an hour)" if machine else ""
    return Cost(None, f"a machine{price} for as long as a job runs")


def _azureml(case: _Case) -> Cost:
    return _machines(case, "instances")


def _machines(case: _Case, *counts: str) -> Cost:
    machine = _machine(case)
    if machine is None:
        return Cost(None, "no list price is known for this machine")
    least = case.number(*counts, default=1.0)
    replicas = case.replicas(machine.vcpu, least)
    usd = machine.price * (replicas * case.load.hours + least * (HOURS - case.load.hours))
    return Cost(usd, f"{replicas} x {machine.name}, always running")


def _machine(case: _Case) -> Machine | None:
    """The machine that is set, or else the one that the plan names."""
    known = {m.name: m for m in read_prices()[2].get(case.plan.target, ())}
    for name in ("machine", "machine_type", "instance_type", "instance"):
        chosen = getattr(case.settings, name, "")
        if isinstance(chosen, str) and chosen:
            return known.get(chosen)
    words = _words(to_json(case.plan))
    return next((machine for name, machine in known.items() if name in words), None)


def _words(value: Any) -> set[str]:
    """All texts in plain data."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(_words, value))
    return set()


_TARGETS: Final[dict[str, Callable[[_Case], Cost]]] = {
    "docker": _own,
    "compose": _own,
    "kubernetes": _kubernetes,
    "kserve": _kubernetes,
    "cloudrun": _cloudrun,
    "lambda": _lambda,
    "azure-functions": _azure_functions,
    "sagemaker": _sagemaker,
    "vertex": _vertex,
    "azureml": _azureml,
}
