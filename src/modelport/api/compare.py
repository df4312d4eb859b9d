"""All targets side by side: what fits, what starts slowly, what a month costs."""

from __future__ import annotations

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
    from modelport.deploy.base import Footprint, Plan
    from modelport.deploy.load import Load

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
        ``50 rps, 8h/day``, or another form that `modelport.deploy.load.read_load` reads; empty:
        nothing is said about costs.
    registry : RegistryOptions, optional

    Returns
    -------
    list of dict
        For each target: ``target``, ``fits`` (``yes``, ``no`` or ``?``), ``why``,
        ``cold_start``, ``limits``, ``needs`` (settings that a deployment needs besides),
        ``cost`` (US dollars a month, or None), ``cost_text``, ``measured`` and ``prices`` (the
        date of the price list).

    Raises
    ------
    NotFoundError
        When no target has such a setting.
    InputError
        When the load or a setting cannot be read.
    """
    from modelport.adapters import adapters_of
    from modelport.deploy.footprint import read_footprint
    from modelport.deploy.load import read_load

    wanted = read_load(load) if load else None
    spec = resolve_models([model], registry or resolve(RegistryOptions))[0]
    package = open_package(Path(spec.path))
    targets = {adapter.name: adapter.load() for adapter in adapters_of("target")}
    own = _assigned(settings, {name: target.settings for name, target in targets.items()})
    footprint = read_footprint(package)
    return [
        {
            "target": name,
            **_row(target, package, own[name], wanted, footprint),
            "cold_start": target.cold_start,
            "measured": footprint.measured,
        }
        for name, target in targets.items()
    ]


def _row(
    target: Any,
    package: Package,
    own: list[str],
    load: Load | None,
    footprint: Footprint,
) -> dict[str, Any]:
    from modelport.deploy.base import Service
    from modelport.deploy.cost import monthly_cost, read_prices
    from modelport.deploy.limits import refuse_exceeded, to_json
    from modelport.deploy.settings import read_settings, service_name

    row: dict[str, Any] = {
        "fits": "?", "why": "", "limits": [], "needs": [], "cost": None, "cost_text": "-",
        "prices": "",
    }  # fmt: skip

    def plan(pairs: Sequence[str]) -> tuple[Plan, Any]:
        chosen = read_settings(target.settings, pairs)
        service = Service(
            service_name(chosen.name or package.manifest.name), package, None, footprint
        )
        return target.plan(service, chosen), chosen

    try:
        known = {**_PLACEHOLDERS, **_OWN_PLACEHOLDERS.get(target.name, {})}
        keys = _keys(target.settings)
        (planned, chosen), row["needs"] = _with_placeholders(
            plan, own, {key: value for key, value in known.items() if key in keys}
        )
    except LimitError as error:
        return {**row, "fits": "no", "why": error.message}
    except ModelportError as error:
        return {**row, "why": str(error)}
    row["limits"] = [to_json(check) for check in planned.checks]
    if load is not None:
        cost = monthly_cost(planned, chosen, load)
        row |= {
            "cost": None if cost.usd is None else round(cost.usd, 2),
            "cost_text": cost.text,
            "why": cost.driver,
            "prices": read_prices()[0],
        }
    try:
        refuse_exceeded(planned.checks)
    except LimitError as error:
        return {**row, "fits": "no", "why": f"{error.message}; {error.hint}"}
    needs = f"needs --set {', '.join(row['needs'])}" if row["needs"] else ""
    why = "; ".join(text for text in (row["why"], needs) if text)
    return {**row, "fits": "yes", "why": why}


def _with_placeholders(
    plan: Any, pairs: list[str], known: Mapping[str, str]
) -> tuple[Any, list[str]]:
    """The plan, and the settings that it would not go without: those that it complains about."""
    needed: list[str] = []
    while True:
        filled = [*pairs, *(f"{key}={known[key]}" for key in needed)]
        try:
            return plan(filled), needed
        except LimitError:
            raise
        except InputError as error:
            chosen = {*map(_key, pairs), *needed}
            missing = [key for key in sorted(known) if key not in chosen]
            complaint = f"{error.message} {error.where} {error.hint}"
            named = [key for key in missing if re.search(rf"(?<![-\w]){key}=", complaint)] or [
                key for key in missing if re.search(rf"(?<![-\w]){key}(?![-\w])", error.message)
            ]
            if not named:
                raise
            needed = sorted([*needed, *named])


def _key(pair: str) -> str:
    return pair.partition("=")[0].strip().replace("_", "-")


def _keys(kind: Any) -> set[str]:
    from dataclasses import fields

    return {item.name.replace("_", "-") for item in fields(kind)}


def _assigned(settings: Sequence[str], kinds: Mapping[str, Any]) -> dict[str, list[str]]:
    """Which target takes which settings: those that it has, and whose value it can read."""
    from modelport.deploy.settings import read_settings

    own: dict[str, list[str]] = {name: [] for name in kinds}
    every = {key for kind in kinds.values() for key in _keys(kind)}
    for pair in settings:
        if "=" not in pair:
            raise InputError(f"not a setting: {pair!r}", hint="--set key=value")
        if _key(pair) not in every:
            raise NotFoundError("setting", _key(pair), sorted(every), where=f"--set {pair}")
        refused: InputError | None = None
        takers = []
        for name, kind in kinds.items():
            if _key(pair) in _keys(kind):
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
