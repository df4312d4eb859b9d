"""`deploy --compare`: all targets side by side."""

from __future__ import annotations

import math
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from modelport.adapters import adapters_of
from modelport.api.compare import compare_targets
from modelport.core.errors import InputError, NotFoundError
from modelport.core.package import Package


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was measured there."""
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_all_targets_side_by_side(package: Package) -> None:
    rows = compare_targets(str(package.path), load="50 rps, 8h/day")
    assert {row["target"] for row in rows} == {adapter.name for adapter in adapters_of("target")}
    costs = [row["cost"] for row in rows]
    assert costs == sorted(costs, key=lambda cost: math.inf if cost is None else cost)
    for row in rows:
        assert row["fits"] == "yes", row
        assert row["cold_start"]
        assert row["why"]
        own = row["target"] in ("docker", "compose")
        assert (row["cost"] is None) == own, row
        assert row["cost_text"] == "-" if own else row["cost_text"].startswith("$ ")
        assert all(limit["passed"] for limit in row["limits"])
    assert rows == compare_targets(str(package.path), load="50 rps, 8h/day")


@pytest.mark.usefixtures("no_network")
def test_it_takes_less_than_a_second(package: Package) -> None:
    compare_targets(str(package.path), load="50 rps, 8h/day")
    start = time.perf_counter()
    compare_targets(str(package.path), load="50 rps, 8h/day")
    assert time.perf_counter() - start < 1  # the issue's own bar


def test_without_a_load_there_is_no_cost(package: Package) -> None:
    rows = compare_targets(str(package.path))
    assert {(row["cost"], row["cost_text"]) for row in rows} == {(None, "-")}
    assert {row["fits"] for row in rows} == {"yes"}


def test_what_does_not_fit_says_why(package: Package) -> None:
    rows = {r["target"]: r for r in compare_targets(str(package.path), ["timeout=901"])}
    assert rows["lambda"]["fits"] == "no"
    assert "901 s of at most 900 s" in rows["lambda"]["why"]
    assert "https://" in rows["lambda"]["why"]
    assert rows["docker"]["fits"] == "yes"


def test_what_only_the_user_knows_is_named(package: Package) -> None:
    rows = {r["target"]: r for r in compare_targets(str(package.path))}
    assert {"project", "region"} <= set(rows["vertex"]["needs"])
    given = ["project=real-project", "region=europe-west4"]
    told = {r["target"]: r for r in compare_targets(str(package.path), given)}
    assert not {"project", "region"} & set(told["vertex"]["needs"])


def test_what_is_sized_by_the_load_is_planned_for_it(package: Package) -> None:
    rows = {r["target"]: r for r in compare_targets(str(package.path), load="2000 rps")}
    assert "rps=2000" in rows["kubernetes"]["needs"]
    chosen = compare_targets(str(package.path), ["rps=1"], load="2000 rps")
    own = {r["target"]: r for r in chosen}["kubernetes"]
    assert not any(need.startswith("rps") for need in own["needs"])


def test_a_load_that_is_not_carried_does_not_fit(package: Package) -> None:
    rows = compare_targets(str(package.path), load="100000 rps")
    fits = [row["fits"] for row in rows]
    assert fits == sorted(fits, key=("yes", "?", "no").index)
    (sagemaker,) = [row for row in rows if row["target"] == "sagemaker"]
    assert sagemaker["fits"] == "no"
    assert "--set max-instances=" in sagemaker["why"]
    assert sagemaker["cost"] > 0


def test_settings_that_nobody_has_are_refused(package: Package) -> None:
    with pytest.raises(NotFoundError, match="colour"):
        compare_targets(str(package.path), ["colour=red"])
    with pytest.raises(InputError, match="not a setting"):
        compare_targets(str(package.path), ["timeout"])
    with pytest.raises(InputError, match="not a whole number"):
        compare_targets(str(package.path), ["timeout=soon"])
    with pytest.raises(InputError, match="not part of a load"):
        compare_targets(str(package.path), load="some")


def test_a_setting_of_one_target_leaves_the_others_alone(package: Package) -> None:
    rows = {r["target"]: r for r in compare_targets(str(package.path), ["mode=serverless"])}
    assert rows["vertex"]["fits"] == "yes"
    assert rows["sagemaker"]["fits"] == "yes"
