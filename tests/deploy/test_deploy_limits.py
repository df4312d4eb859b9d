"""Every row of the limits file: what is just within passes, what is just beyond is refused."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from urllib.parse import urlsplit

import pytest

from modelport.adapters import adapters_of
from modelport.api.compare import compare_targets
from modelport.core.errors import LimitError
from modelport.core.package import Package
from modelport.deploy import limits
from modelport.deploy.limits import Check, Limit, amount, check_limits, read_limits, refuse_exceeded

DATE, ROWS = read_limits()
TARGETS = {adapter.name for adapter in adapters_of("target")}

#: Every measure that `check_limits` is asked for has its unit.
UNITS = {"bytes", "seconds", "count"}


def step(unit: str) -> float:
    """The least that makes a difference."""
    return 0.001 if unit == "seconds" else 1


def ends() -> Iterator[tuple[Limit, float, float]]:
    """Each end of each row: the last value that is allowed, and the first that is not."""
    for row in ROWS:
        if row.most is not None:
            yield row, row.most, row.most + step(row.unit)
        if row.least is not None:
            yield row, row.least, row.least - step(row.unit)


CASES = [pytest.param(*end, id=f"{end[0].id} {end[1]:g}") for end in ends()]


@pytest.mark.parametrize(("row", "allowed", "refused"), CASES)
def test_the_end_is_allowed_and_what_is_beyond_is_refused(
    row: Limit, allowed: float, refused: float
) -> None:
    within = [
        check
        for check in check_limits(row.target, {row.measure: allowed}, row.mode)
        if check.limit == row
    ]
    assert len(within) == 1
    refuse_exceeded(within)
    beyond = [
        check
        for check in check_limits(row.target, {row.measure: refused}, row.mode)
        if check.limit == row
    ]
    with pytest.raises(LimitError) as caught:
        refuse_exceeded(beyond)
    assert row.what in caught.value.message
    assert amount(allowed, row.unit) in caught.value.message  # the number
    assert row.target in caught.value.message
    assert row.source in caught.value.message
    assert caught.value.hint == row.remedy


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_is_whole(row: Limit) -> None:
    assert row.target in TARGETS
    assert row.id.startswith(f"{row.target}.")
    assert row.mode in row.id
    assert row.unit in UNITS
    assert row.most is not None or row.least is not None
    if row.most is not None and row.least is not None:
        assert row.least <= row.most
    source = urlsplit(row.source)
    assert source.scheme == "https"
    assert source.hostname
    assert row.remedy.strip()
    assert "—" not in row.what + row.remedy
    assert row.what[0].islower() or row.what.split()[0].isupper()


def test_ids_are_unique_and_no_two_rows_say_the_same() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
    keys = [(row.target, row.mode, row.measure) for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_every_target_has_limits() -> None:
    assert {row.target for row in ROWS} == TARGETS


def test_the_file_is_dated() -> None:
    document = tomllib.loads(files("modelport.deploy").joinpath("limits.toml").read_text())
    year, month, day = map(int, document["date"].split("-"))
    assert (year, month, day) >= (2025, 1, 1)
    assert document["date"] == DATE


def test_limits_of_other_modes_and_other_measures_do_not_apply() -> None:
    serverless = {c.limit.id for c in check_limits("sagemaker", {"request": 5 << 20}, "serverless")}
    assert serverless == {"sagemaker.serverless.request"}
    (real_time,) = check_limits("sagemaker", {"request": 5 << 20}, "real-time")
    assert real_time.passed
    assert check_limits("sagemaker", {"moon phase": 1.0}) == ()
    assert check_limits("nowhere", {"name": 1.0}) == ()


#: Values around which a refusal that rounds its numbers says "6 MiB of at most 6 MiB".
NEAR = [
    (6 << 20, 1, "bytes"),
    (10 << 30, 1, "bytes"),
    (1_500_000, 1, "bytes"),
    (250 << 20, 1, "bytes"),
    (30, 0.001, "seconds"),
    (1e6, 1, "count"),
]


@pytest.mark.parametrize(("most", "more", "unit"), NEAR)
def test_a_refusal_never_shows_the_same_number_twice(most: float, more: float, unit: str) -> None:
    row = Limit("x.y", "x", "y", "y", unit, "https://x", "less", most=most)
    text = Check(row, most + more).describe()
    value, _, bound = text.removeprefix("y: ").partition(" of at most ")
    assert value != bound, text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "bytes", "0 B"),
        (1023, "bytes", "1023 B"),
        (1024, "bytes", "1 KiB"),
        (6 << 20, "bytes", "6 MiB"),
        (1_500_000, "bytes", "1.431 MiB"),
        (10 << 30, "bytes", "10 GiB"),
        (5000 << 30, "bytes", "5000 GiB"),
        (29, "seconds", "29 s"),
        (0.5, "seconds", "0.5 s"),
        (1000, "count", "1000"),
        (1_000_000, "count", "1000000"),
    ],
)
def test_amounts_are_short(value: float, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def test_the_file_is_read_once() -> None:
    assert limits.read_limits() is limits.read_limits()


#: Settings under which plans hold something against every row.
PLANS = [
    [],
    ["mode=serverless"],
    ["mode=async"],
    ["mode=batch"],
    ["mode=multi-model"],
    ["front=http-api"],
    ["front=rest-api"],
    ["package=zip"],
    ["cpu=2"],
    ["cpu=4", "memory=4Gi"],
    ["cpu=8", "memory=4Gi"],
    ["dedicated=true"],
    ["memory=512"],
    ["memory=2048"],
    ["memory=4096"],
    ["instance-type=Standard_DS3_v2"],
    ["mode=knative"],
]


def test_no_row_is_idle(package: Package) -> None:
    """A row whose measure no plan fills in protects nobody."""
    checked = {
        limit["limit"]
        for settings in PLANS
        for row in compare_targets(str(package.path), settings)
        for limit in row["limits"]
    }
    assert {row.id for row in ROWS} - checked == set()
