"""What a month of a deployment costs: a load, what was measured, and a dated file of prices."""

from modelport.deploy.cost.base import Cost
from modelport.deploy.cost.load import HOURS, Load, read_load
from modelport.deploy.cost.monthly import monthly_cost
from modelport.deploy.cost.prices import read_prices

__all__ = ["HOURS", "Cost", "Load", "monthly_cost", "read_load", "read_prices"]
