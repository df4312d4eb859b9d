"""What a cost is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelport.deploy.cost.demand import Demand

#: Below this, cents are shown.
_CENTS: Final = 10


@dataclass(frozen=True)
class Cost:
    """What a month costs.

    Parameters
    ----------
    usd : float or None
        None where there is no list price: an own machine, or one that the file does not know.
    driver : str
        What it is paid for.
    short : str
        Why the plan does not carry the load, and what would; empty: it does. The cost is that of
        what would.
    read : bool
        Whether all prices in it were held against the vendor's page.
    """

    usd: float | None
    driver: str
    short: str = ""
    read: bool = True

    @property
    def text(self) -> str:
        """For people: ``$ 84``; with ``*`` where a price is as remembered."""
        if self.usd is None:
            return "-"
        text = f"$ {self.usd:,.2f}" if self.usd < _CENTS else f"$ {self.usd:,.0f}"
        return text if self.read else f"{text} *"


def too_few(
    demand: Demand, needed: int, most: float, key: str, what: str = "of its servers"
) -> str:
    """Why at most so many do not carry the load, and the setting that would; empty: they do."""
    if needed <= most:
        return ""
    return (
        f"{demand.load.rps:g} requests a second need {needed} {what}, and there are at most "
        f"{most:g}: --set {key}={needed}"
    )
