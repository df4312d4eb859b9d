"""How much a service is asked, as people say it: ``50 rps, 8h/day``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from modelport.core.errors import InputError

#: Hours of a month, as the clouds' own calculators count them: 365 days by 24 hours by 12 months.
HOURS: Final = 730.0
_DAYS: Final = HOURS / 24
_WEEKS: Final = _DAYS / 7

HINT: Final = (
    "as '50 rps, 8h/day', '1M requests/month', '200 requests/day, 10h/day, 5 days/week', '3/s'"
)

_SCALES: Final = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_PERIODS: Final = {
    "s": "second", "sec": "second", "second": "second", "min": "minute", "minute": "minute",
    "h": "hour", "hour": "hour", "day": "day", "d": "day", "month": "month", "mo": "month",
}  # fmt: skip
_NUMBER: Final = r"(?P<number>\d+(?:\.\d+)?(?:e\d+)?)\s*"
_RATE: Final = re.compile(
    rf"{_NUMBER}(?P<scale>[kmgb]?)\s*"
    r"(?:(?P<rps>rps|qps)|(?:requests?|reqs?|calls?)?\s*(?:/|per)\s*(?P<period>[a-z]+))"
)
_HOURS: Final = re.compile(rf"{_NUMBER}(?:h|hours?)\s*(?:/|per|a)\s*(?:day|d)")
_DAYS_OF: Final = re.compile(rf"{_NUMBER}days?\s*(?:/|per|a)\s*(?P<of>week|month)")


@dataclass(frozen=True)
class Load:
    """Requests of one row each, in some hours of a month, none in the others.

    Parameters
    ----------
    rps : float
        Requests per second in these hours.
    hours : float
        Of a month of 730.
    """

    rps: float
    hours: float

    @property
    def requests(self) -> float:
        """In a month."""
        return self.rps * 3600 * self.hours


def read_load(text: str) -> Load:
    """Read a load: one rate, and optionally hours of a day and days of a week or month.

    Raises
    ------
    InputError
        When a part is none of these, stands twice, or is impossible.
    """
    found: dict[str, re.Match[str]] = {}
    for part in re.split(r"\s*[,;]\s*", text.strip().lower()):
        kinds = {"rate": _RATE, "hours": _HOURS, "days": _DAYS_OF}
        # '8h/day' is no rate: hours come first.
        for kind in ("hours", "days", "rate"):
            match = kinds[kind].fullmatch(part)
            if match:
                if kind in found:
                    raise InputError(f"two {kind} in a load: {text!r}", where="--load", hint=HINT)
                found[kind] = match
                break
        else:
            raise InputError(f"not part of a load: {part!r}", where="--load", hint=HINT)
    if "rate" not in found:
        raise InputError(f"no requests in a load: {text!r}", where="--load", hint=HINT)
    days, hours_a_day = _days(found.get("days")), _hours(found.get("hours"))
    hours = days * hours_a_day
    return Load(_rps(found["rate"], days, hours), hours)


def _hours(match: re.Match[str] | None) -> float:
    hours = float(match["number"]) if match else 24.0
    if not 0 < hours <= 24:
        raise InputError(f"a day has no {hours:g} hours", where="--load", hint=HINT)
    return hours


def _days(match: re.Match[str] | None) -> float:
    if match is None:
        return _DAYS
    days, longest = float(match["number"]), 7 if match["of"] == "week" else 31
    if not 0 < days <= longest:
        raise InputError(f"a {match['of']} has no {days:g} days", where="--load", hint=HINT)
    return days * _WEEKS if match["of"] == "week" else days


def _rps(match: re.Match[str], days: float, hours: float) -> float:
    """Requests per second in the hours in which there are any."""
    count = float(match["number"]) * _SCALES[match["scale"]]
    period = "second" if match["rps"] else _PERIODS.get(match["period"].removesuffix("s") or "s")
    if period is None:
        raise InputError(f"not a period: {match['period']!r}", where="--load", hint=HINT)
    seconds = {
        "second": 1.0, "minute": 60.0, "hour": 3600.0,
        "day": 3600 * hours / days, "month": 3600 * hours,
    }[period]  # fmt: skip
    if not 0 < count < 1e15:
        raise InputError(f"not a number of requests: {match[0]!r}", where="--load", hint=HINT)
    return count / seconds
