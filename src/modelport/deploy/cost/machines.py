"""Paid by the hour, asked or not: Kubernetes, SageMaker, Vertex AI, Azure ML.

::

    replicas = max(least, ceil(rps * processor / (vcpu * 0.7)))   while it is asked; else `least`
    cost     = price per hour * (replicas * hours + least * (730 - hours))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from modelport.deploy.cost.base import Cost, too_few
from modelport.deploy.cost.demand import Demand
from modelport.deploy.cost.load import HOURS
from modelport.deploy.cost.prices import Machine, read_prices
from modelport.deploy.kubernetes.manifests import MAX_BODY, size
from modelport.deploy.show import to_json

_GIB: Final = float(1 << 30)


def kubernetes(demand: Demand) -> Cost:
    """What pods request, of a cluster that is there."""
    least = demand.number("replicas", "min_replicas", default=1)
    if getattr(demand.settings, "min_replicas", None) == 0:
        least = 0
    sizing = size(
        demand.footprint,
        rps=demand.load.rps,
        replicas=int(least),
        memory=getattr(demand.settings, "memory", ""),
        cpu=getattr(demand.settings, "cpu", ""),
        max_body=getattr(demand.settings, "max_body", MAX_BODY),
    )
    memory = sizing.memory / _GIB
    vcpu, gib = (demand.price(name, "kubernetes") for name in ("vcpu", "memory"))
    hour = sizing.cores * vcpu + memory * gib
    usd, replicas, short = _running(demand, sizing.cores, hour, least, "max_replicas")
    return Cost(
        usd,
        f"{replicas} x {sizing.cores:.2g} vCPU and {memory:.2g} GiB requested of a cluster that "
        "is there",
        short,
    )


def vertex(demand: Demand) -> Cost:
    """Node hours."""
    if getattr(demand.settings, "mode", "") == "batch":
        return _job(demand)
    return _machines(demand, "min_replicas", most="max_replicas")


def sagemaker(demand: Demand) -> Cost:
    """Instance hours; a transform job is paid while it runs."""
    batch = getattr(demand.settings, "mode", "") == "batch"
    return _job(demand) if batch else _machines(demand, "instances", most="max_instances")


def azureml(demand: Demand) -> Cost:
    """Hours of virtual machines."""
    at_once = demand.number("concurrency", default=demand.planned("concurrency") or math.inf)
    return _machines(demand, "instances", most="max_instances", concurrency=at_once)


def _job(demand: Demand) -> Cost:
    machine = _machine(demand)
    price = f" ($ {machine.price:.3g} an hour)" if machine else ""
    return Cost(None, f"a machine{price} for as long as a job runs")


def _machines(demand: Demand, count: str, *, most: str, concurrency: float = math.inf) -> Cost:
    machine = _machine(demand)
    if machine is None:
        return Cost(None, "no list price is known for this machine")
    least = demand.number(count, default=1.0)
    usd, replicas, short = _running(demand, machine.vcpu, machine.price, least, most, concurrency)
    return Cost(usd, f"{replicas} x {machine.name}, always running", short)


def _running(
    demand: Demand,
    vcpu: float,
    hour: float,
    least: float,
    most: str,
    concurrency: float = math.inf,
) -> tuple[float, int, str]:
    """What servers cost that run all the time, how many at the peak, and if those are too few."""
    needed = demand.replicas(vcpu, concurrency)
    replicas = max(math.ceil(least), needed)
    usd = hour * (replicas * demand.load.hours + least * (HOURS - demand.load.hours))
    short = too_few(demand, needed, demand.most(least, most), most.replace("_", "-"))
    return usd, replicas, short


def _machine(demand: Demand) -> Machine | None:
    """The machine that is set, or else the one that the plan names."""
    for name in ("machine", "instance_type"):
        chosen = getattr(demand.settings, name, "")
        if isinstance(chosen, str) and chosen:
            return demand.machine(chosen)
    words = _words(to_json(demand.plan))
    known = [name for target, name in read_prices().machines if target == demand.plan.target]
    return next((demand.machine(name) for name in known if name in words), None)


def _words(value: Any) -> set[str]:
    """All texts in plain data."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(_words, value))
    return set()
