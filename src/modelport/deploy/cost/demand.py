"""What a load asks of a planned service: memory, processors, replicas, seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from modelport.deploy.base import Plan
from modelport.deploy.cost.load import Load
from modelport.deploy.cost.prices import Machine, Price, read_prices
from modelport.deploy.service import Footprint
from modelport.deploy.settings import quantity

#: Processors are not loaded beyond this, unless set: above it waiting times grow fast.
_UTILIZATION: Final = 0.7
_GIB: Final = float(1 << 30)
#: Memory of a container relative to the measured peak, where the plan does not say it.
_MARGIN: Final = 2.0


@dataclass(frozen=True)
class Demand:
    """All that a cost depends on.

    Parameters
    ----------
    plan : Plan
    settings : Settings
        Of its target.
    load : Load
    used : list
        The prices that were looked up.
    """

    plan: Plan
    settings: Any
    load: Load
    used: list[Price | Machine] = field(default_factory=list)

    @property
    def footprint(self) -> Footprint:
        """What one server needs."""
        return self.plan.service.footprint

    def price(self, name: str, target: str = "") -> float:
        """US dollars for one of what a target, the plan's or another, counts under that name."""
        row = read_prices().counted[target or self.plan.target, name]
        self.used.append(row)
        return row.price

    def machine(self, name: str) -> Machine | None:
        """A machine type of the target; None where no price is known."""
        row = read_prices().machines.get((self.plan.target, name))
        self.used.extend([row] if row else [])
        return row

    @property
    def utilization(self) -> float:
        """How busy a processor may be before another server is added."""
        percent = getattr(self.settings, "utilization", 0)
        return percent / 100 if isinstance(percent, int) and 0 < percent <= 100 else _UTILIZATION

    def planned(self, measure: str) -> float | None:
        """A value that the plan holds against a limit; None where it has none such."""
        found = [check.value for check in self.plan.checks if check.limit.measure == measure]
        return found[0] if found else None

    def memory(self) -> float:
        """GiB of one server: as set, as planned, or twice what it takes."""
        chosen = getattr(self.settings, "memory", "")
        if isinstance(chosen, str) and chosen:
            return quantity(chosen, f"--set memory={chosen}") / _GIB
        if isinstance(chosen, int) and chosen:
            return chosen / 1024  # megabytes
        return (self.planned("memory") or _MARGIN * self.footprint.memory) / _GIB

    def number(self, *names: str, default: float) -> float:
        """The first of these settings that is there and not zero."""
        for name in names:
            value = getattr(self.settings, name, None)
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                return float(value)
        return default

    def most(self, least: float, *names: str) -> float:
        """How many replicas there may be: as one of these settings says, 0: as `least`."""
        for name in names:
            value = getattr(self.settings, name, None)
            if isinstance(value, int):
                return max(float(value), least)
        return math.inf

    def busy(self, vcpu: float, concurrency: float = math.inf) -> float:
        """How many servers of that size the requests keep busy, on average.

        By processor time, and by how many requests are under way at a time (Little's law).
        """
        rate = self.load.rps
        by_processor = rate * self.footprint.processor / (vcpu * self.utilization)
        return max(by_processor, rate * self.seconds(vcpu) / concurrency)

    def replicas(self, vcpu: float, concurrency: float = math.inf) -> int:
        """How many servers of that size the load needs."""
        return max(1, math.ceil(self.busy(vcpu, concurrency) - 1e-9))

    def seconds(self, vcpu: float) -> float:
        """Of one request, where it has that many processors for itself."""
        return max(self.footprint.latency, self.footprint.processor / min(1.0, vcpu))

    def active(self, vcpu: float, concurrency: float, least: float) -> float:
        """How many instances are paid, on average, in the hours with requests.

        An instance is paid while it answers at least one request, and `least` seconds each time.
        Requests arrive independently (Poisson), so that seldom ones never overlap.
        """
        some = 1 - math.exp(-self.load.rps * max(self.seconds(vcpu), least))
        return max(some, self.busy(vcpu, concurrency))
