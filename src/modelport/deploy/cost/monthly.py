"""What a month costs at a platform's list prices.

Free tiers, tiers beyond the first, discounts, taxes, network traffic, storage, logs and cold
starts are left out. Sources: the price pages that ``prices.toml`` names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from modelport.deploy.base import Plan
from modelport.deploy.cost import machines, metered
from modelport.deploy.cost.base import Cost
from modelport.deploy.cost.demand import Demand
from modelport.deploy.cost.load import Load


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
    demand = Demand(plan, settings, load)
    cost = estimate(demand)
    return replace(cost, read=all(row.read for row in demand.used))


def _own(demand: Demand) -> Cost:
    share = demand.load.rps * demand.footprint.processor
    return Cost(None, f"your own machine: {share:.2g} of a core at the peak")


def _sagemaker(demand: Demand) -> Cost:
    serverless = getattr(demand.settings, "mode", "") == "serverless"
    return metered.sagemaker_serverless(demand) if serverless else machines.sagemaker(demand)


_TARGETS: Final[dict[str, Callable[[Demand], Cost]]] = {
    "docker": _own,
    "compose": _own,
    "kubernetes": machines.kubernetes,
    "kserve": machines.kubernetes,
    "cloudrun": metered.cloudrun,
    "lambda": metered.awslambda,
    "azure-functions": metered.azure_functions,
    "sagemaker": _sagemaker,
    "vertex": machines.vertex,
    "azureml": machines.azureml,
}
