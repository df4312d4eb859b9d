"""List prices, from one dated file; each row names its source and whether it was read there."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, Final, TypeVar

FILE: Final = "prices.toml"

_Row = TypeVar("_Row", "Price", "Machine")


@dataclass(frozen=True)
class Price:
    """What is counted, and US dollars for one of it.

    Parameters
    ----------
    target, name : str
    price : float
    read : bool
        Whether it was held against the vendor's page or price API on the file's date.
    """

    target: str
    name: str
    price: float
    read: bool


@dataclass(frozen=True)
class Machine:
    """A machine type; `price` for an hour, `memory` in GiB."""

    target: str
    name: str
    vcpu: float
    memory: float
    price: float
    read: bool


@dataclass(frozen=True)
class Prices:
    """All rows of the file, by target and name.

    Parameters
    ----------
    date : str
        When it was last held against its sources.
    counted : mapping
    machines : mapping
    """

    date: str
    counted: Mapping[tuple[str, str], Price]
    machines: Mapping[tuple[str, str], Machine]


@cache
def read_prices() -> Prices:
    """Read the file, once."""
    text = files("modelport.deploy.cost").joinpath(FILE).read_text(encoding="utf-8")
    document = tomllib.loads(text)
    counted = [_row(Price, row) for row in document["price"]]
    machines = [_row(Machine, row) for row in document["machine"]]
    return Prices(
        str(document["date"]),
        {(row.target, row.name): row for row in counted},
        {(row.target, row.name): row for row in machines},
    )


def _row(kind: type[_Row], row: Mapping[str, Any]) -> _Row:
    return kind(**{item.name: row[item.name] for item in fields(kind)})
