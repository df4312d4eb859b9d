"""The platforms' limits, from one dated file, and what is left of them.

``limits.toml`` has one row per limit, with its source. A deployment that exceeds one is refused
before anything is sent, with the number and the remedy.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from modelport.core.errors import LimitError

FILE: Final = "limits.toml"
_KIB: Final = 1024.0
#: From here on three digits would round what the files say.
_WHOLE_SECONDS: Final = 100
_SYMBOLS: Final = {"bytes": "B", "seconds": "s", "count": ""}


@dataclass(frozen=True)
class Limit:
    """One row of the file.

    Parameters
    ----------
    id : str
        ``TARGET.measure`` or ``TARGET.mode.measure``.
    target : str
    measure : str
        What is compared: ``request``, ``image``, ``memory`` …
    what : str
        The same in words.
    unit : str
        ``bytes``, ``seconds``, ``count``.
    source : str
        A URL.
    remedy : str
        What to do beyond it.
    mode : str
        Only in this mode of the target; empty: in all.
    most, least : float or None
        Both ends belong to what is allowed.
    """

    id: str
    target: str
    measure: str
    what: str
    unit: str
    source: str
    remedy: str
    mode: str = ""
    most: float | None = None
    least: float | None = None

    def allows(self, value: float) -> bool:
        """Whether a value is within."""
        above = self.most is not None and value > self.most
        below = self.least is not None and value < self.least
        return not (above or below)


@dataclass(frozen=True)
class Check:
    """A limit and the value that it is held against."""

    limit: Limit
    value: float

    @property
    def passed(self) -> bool:
        """Whether the value is within the limit."""
        return self.limit.allows(self.value)

    def describe(self) -> str:
        """``request body: 3.1 kB of 6.3 MB``."""
        unit = self.limit.unit
        bound = self.limit.most if self.limit.most is not None else self.limit.least
        word = "of at most" if self.limit.most is not None else "of at least"
        if self.limit.least is not None and self.value < self.limit.least:
            bound, word = self.limit.least, "of at least"
        assert bound is not None  # noqa: S101 - the tests hold every row to it
        value, end = amount(self.value, unit), amount(bound, unit)
        if value == end and self.value != bound:  # a difference that rounding hides
            value = f"{self.value:.15g} {_SYMBOLS[unit]}".rstrip()
        return f"{self.limit.what}: {value} {word} {end}"


@cache
def read_limits() -> tuple[str, tuple[Limit, ...]]:
    """The date on which the file was last held against its sources, and its rows."""
    text = files("modelport.deploy").joinpath(FILE).read_text(encoding="utf-8")
    document = tomllib.loads(text)
    return str(document["date"]), tuple(Limit(**row) for row in document["limit"])


def check_limits(target: str, values: Mapping[str, float], mode: str = "") -> tuple[Check, ...]:
    """Hold values against all limits of a target, in the file's order.

    Parameters
    ----------
    target : str
    values : mapping of str to float
        By `Limit.measure`; limits of other measures are not checked.
    mode : str
        Limits of other modes do not apply.
    """
    _, limits = read_limits()
    return tuple(
        Check(limit, values[limit.measure])
        for limit in limits
        if limit.target == target and limit.mode in ("", mode) and limit.measure in values
    )


def refuse_exceeded(checks: Sequence[Check]) -> None:
    """Raise `LimitError` when a check did not pass, with all that did not."""
    exceeded = [check for check in checks if not check.passed]
    if exceeded:
        lines = [f"{check.describe()} ({check.limit.source})" for check in exceeded]
        raise LimitError(
            f"{exceeded[0].limit.target} does not take this: " + "; ".join(lines),
            hint="; ".join(dict.fromkeys(check.limit.remedy for check in exceeded)),
        )


def amount(value: float, unit: str) -> str:
    """A value with its unit: ``6 MiB``, ``30 s``, ``512``."""
    if unit == "bytes":
        for name in ("B", "KiB", "MiB", "GiB"):
            if value < _KIB or name == "GiB":
                return f"{value:.4g} {name}"
            value /= _KIB
    if unit == "seconds":
        return f"{value:.3g} s" if value < _WHOLE_SECONDS else f"{value:g} s"
    return str(int(value)) if value == int(value) else f"{value:g}"


def to_json(check: Check) -> dict[str, Any]:
    """A check as plain data."""
    limit = check.limit
    return {
        "limit": limit.id,
        "what": limit.what,
        "value": check.value,
        "most": limit.most,
        "least": limit.least,
        "unit": limit.unit,
        "passed": check.passed,
        "source": limit.source,
    }
