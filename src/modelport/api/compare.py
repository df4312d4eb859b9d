"""All targets side by side: what fits, what starts slowly, what a month costs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelport.api.run import resolve_models
from modelport.core.errors import InputError, LimitError, ModelportError, NotFoundError
from modelport.core.options import RegistryOptions
from modelport.core.package import Package, open_package
from modelport.core.settings import resolve

if TYPE_CHECKING:
    from modelport.deploy.base import Plan
    from modelport.deploy.cost import Load
    from modelport.deploy.service import Footprint

#: What settings could be that only the user knows, so that a plan can be made without them. No
#: such thing exists anywhere.
_PLACEHOLDERS: Final = {
    "account": "123456789012",
    "bucket": "example-bucket",
    "destination": "gs://example-bucket/predictions",
    "environment": "example",
    "host": "example.invalid",
    "image": "registry.example/model",
    "input": "s3://example-bucket/in/",
    "key-secret": "example/key",
    "location": "westeurope",
    "models": "s3://example-bucket/models/",
    "output": "s3://example-bucket/out/",
    "plan": "example",
    "project": "example-project",
    "region": "us-east-1",
    "registry": "example",
    "resource-group": "example",
    "role": "arn:aws:iam::123456789012:role/example",
    "source": "gs://example-bucket/rows.jsonl",
    "storage": "exampleaccount",
    "subscription": "00000000-0000-0000-0000-000000000000",
    "workspace": "example",
}
_GOOGLE: Final = {"region": "europe-west1"}
_OWN_PLACEHOLDERS: Final = {"cloudrun": _GOOGLE, "vertex": _GOOGLE}


def compare_targets(
    model: str,
    settings: Sequence[str] = (),
    *,
    load: str = "",
    registry: RegistryOptions | None = None,
) -> list[dict[str, Any]]:
    """Compare all targets for a model; in under a second, without network and credentials.

    Parameters
    ----------
    model : str
        As for `modelport.api.deploy.plan_deployment`.
    settings : sequence of str
        ``key=value``; each counts for the targets that have such a setting.
    load : str
        ``50 rps, 8h/day``, or another form that `modelport.deploy.cost.read_load` reads; empty:
        nothing is said about costs.
    registry : RegistryOptions, optional

    Returns
    -------
    list of dict
        For each target: ``target``, ``fits`` (``yes``, ``no`` or ``?``), ``why``,
        ``cold_start``, ``limits``, ``needs`` (settings that a deployment needs besides),
        ``cost`` (US dollars a month, or None), ``cost_text``, ``measured`` (whether time and
        memory were), ``prices`` (the date of the price list) and ``prices_read`` (whether all
        prices in it were held against the vendor's page). What fits comes first, the cheapest
        before others, and before what has no list price.

    Raises
    ------
    NotFoundError
        When no target has such a setting.
    InputError
        When the load or a setting cannot be read.
    """
    from modelport.adapters import adapters_of
    from modelport.deploy.cost import read_load
    from modelport.deploy.footprint import read_footprint

    wanted = read_load(load) if load else None
    spec = resolve_models([model], registry or resolve(RegistryOptions))[0]
    package = open_package(Path(spec.path))
    targets = {adapter.name: adapter.load() for adapter in adapters_of("target")}
    own = _assigned(settings, {name: target.settings for name, target in targets.items()})
    footprint = read_footprint(package)
    rows = [
        {
            "target": name,
            **_row(target, package, own[name], wanted, footprint),
            "cold_start": target.cold_start,
            "measured": footprint.measured,
        }
        for name, target in targets.items()
    ]
    return sorted(rows, key=_rank)


def _rank(row: Mapping[str, Any]) -> tuple[int, float]:
    cost = row["cost"]
    return ("yes", "?", "no").index(row["fits"]), math.inf if cost is None else float(cost)


def _row(
    target: Any,
    package: Package,
    own: list[str],
    load: Load | None,
    footprint: Footprint,
) -> dict[str, Any]:
    from modelport.deploy.cost import monthly_cost, read_prices
    from modelport.deploy.limits import refuse_exceeded, to_json
    from modelport.deploy.service import Service
    from modelport.deploy.settings import read_settings, service_name

    row: dict[str, Any] = {
        "fits": "?", "why": "", "limits": [], "needs": [], "cost": None, "cost_text": "-",
        "prices": "", "prices_read": True,
    }  # fmt: skip

    def plan(pairs: Sequence[str]) -> tuple[Plan, Any]:
        chosen = read_settings(target.settings, pairs)
        service = Service(
            service_name(chosen.name or package.manifest.name), package, None, footprint
        )
        return target.plan(service, chosen), chosen

    sized = _sized(target, own, load)
    try:
        known = {**_PLACEHOLDERS, **_OWN_PLACEHOLDERS.get(target.name, {})}
        keys = _keys(target.settings)
        (planned, chosen), row["needs"] = _with_placeholders(
            plan, [*own, *sized], {key: value for key, value in known.items() if key in keys}
        )
    except LimitError as error:
        return {**row, "fits": "no", "why": error.message}
    except ModelportError as error:
        return {**row, "why": "; ".join(text for text in (error.line, error.hint) if text)}
    row["needs"] += sized
    row["limits"] = [to_json(check) for check in planned.checks]
    short = ""
    if load is not None:
        cost = monthly_cost(planned, chosen, load)
        short = cost.short
        row |= {
            "cost": None if cost.usd is None else round(cost.usd, 2),
            "cost_text": cost.text,
            "why": cost.driver,
            "prices": read_prices().date,
            "prices_read": cost.read,
        }
    try:
        refuse_exceeded(planned.checks)
    except LimitError as error:
        return {**row, "fits": "no", "why": f"{error.message}; {error.hint}"}
    if short:
        return {**row, "fits": "no", "why": f"{short}; then {row['why']}"}
    needed = ", ".join(need if "=" in need else f"{need}=…" for need in row["needs"])
    needs = f"needs --set {needed}" if needed else ""
    why = "; ".join(text for text in (row["why"], needs) if text)
    return {**row, "fits": "yes", "why": why}


def _sized(target: Any, own: Sequence[str], load: Load | None) -> list[str]:
    """The load as a setting, of targets whose servers are sized by it."""
    from modelport.deploy.settings import key_of

    if load is None or "rps" not in _keys(target.settings) or "rps" in map(key_of, own):
        return []
    return [f"rps={load.rps:.6g}"]


def _with_placeholders(
    plan: Any, pairs: list[str], known: Mapping[str, str]
) -> tuple[Any, list[str]]:
    """The plan, and the settings that it would not go without: those that it complains about."""
    from modelport.deploy.settings import key_of

    needed: list[str] = []
    while True:
        filled = [*pairs, *(f"{key}={known[key]}" for key in needed)]
        try:
            return plan(filled), needed
        except LimitError:
            raise
        except InputError as error:
            chosen = {*map(key_of, pairs), *needed}
            missing = [key for key in sorted(known) if key not in chosen]
            complaint = f"{error.message} {error.where} {error.hint}"
            named = [key for key in missing if re.search(rf"(?<![-\w]){key}=", complaint)] or [
                key for key in missing if re.search(rf"(?<![-\w]){key}(?![-\w])", error.message)
            ]
            if not named:
                raise
            needed = sorted([*needed, *named])


def _keys(kind: Any) -> set[str]:
    from dataclasses import fields

    return {item.name.replace("_", "-") for item in fields(kind)}


def _assigned(settings: Sequence[str], kinds: Mapping[str, Any]) -> dict[str, list[str]]:
    """Which target takes which settings: those that it has, and whose value it can read."""
    from modelport.deploy.settings import key_of, read_settings

    own: dict[str, list[str]] = {name: [] for name in kinds}
    every = {key for kind in kinds.values() for key in _keys(kind)}
    for pair in settings:
        if "=" not in pair:
            raise InputError(f"not a setting: {pair!r}", hint="--set key=value")
        if key_of(pair) not in every:
            raise NotFoundError("setting", key_of(pair), sorted(every), where=f"--set {pair}")
        refused: InputError | None = None
        takers = []
        for name, kind in kinds.items():
            if key_of(pair) in _keys(kind):
                try:
                    read_settings(kind, [pair])
                    takers.append(name)
                except InputError as error:
                    refused = error
        if not takers and refused is not None:
            raise refused
        for name in takers:
            own[name].append(pair)
    return own
