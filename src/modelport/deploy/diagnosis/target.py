"""What stands, or could stand, in the way of a deployment to a target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from modelport.adapters import find_adapter
from modelport.core.errors import InputError, LimitError, ModelportError
from modelport.core.package import Package
from modelport.deploy.base import Plan
from modelport.deploy.diagnosis.base import FAULT, NOTE, WARNING, Finding
from modelport.deploy.diagnosis.failures import failures_of
from modelport.deploy.diagnosis.image import diagnose_image
from modelport.deploy.footprint import read_footprint
from modelport.deploy.limits import Check
from modelport.deploy.service import Service
from modelport.deploy.settings import read_settings, service_name

#: Graviton's machines: ml.c7g.large, ml.m6gd.xlarge; those with GPUs (ml.g5) begin with a g.
_GRAVITON: Final = re.compile(r"ml\.[a-z]+\d+g")
#: A value beyond this part of its limit is worth a word.
_NEAR: Final = 0.8


def diagnose_target(
    target: str,
    package: Package | None,
    pairs: Sequence[str],
    *,
    image: str = "",
    message: str = "",
) -> list[Finding]:
    """What is wrong with a deployment before it is made, or what a platform's message means.

    Parameters
    ----------
    target : str
    package : Package or None
        Its plan is made and held against the limits.
    pairs : sequence of str
        Settings, ``key=value``.
    image : str
        An OCI image layout to look at; empty: none.
    message : str
        What the platform said: the failures that it tells of are looked for. Empty, without
        `package` and `image`: all that the target is known for are listed.

    Raises
    ------
    NotFoundError
        When there is no such target.
    """
    adapter = find_adapter("target", target)
    missing = adapter.missing()
    if missing:
        return [_not_installed(target, missing, adapter.extra)]
    found: list[Finding] = []
    if image:
        found += diagnose_image(Path(image), target, _architecture(pairs))
    if package is not None:
        found += _diagnose_plan(target, package, pairs)
    asked = message or not (package or image)
    known = failures_of(target, message) if asked else []
    if message and not known:
        found.append(
            Finding(
                message.strip().splitlines()[-1][:200] if message.strip() else "no message",
                "it is none of the failures that modelport knows",
                "'modelport doctor URL PACKAGE' looks at the running endpoint",
                NOTE,
            )
        )
    return [*found, *(failure.finding(FAULT if message else NOTE) for failure in known)]


def _architecture(pairs: Sequence[str]) -> str:
    """Of the machines that are set: Lambda's by its name, SageMaker's by Graviton's ``g``."""
    chosen = dict(pair.replace("_", "-", 1).partition("=")[::2] for pair in pairs)
    machine = chosen.get("instance-type", "")
    arm = "arm64" in chosen.get("architecture", "") or _GRAVITON.match(machine)
    return "arm64" if arm else "amd64"


def _diagnose_plan(target: str, package: Package, pairs: Sequence[str]) -> list[Finding]:
    adapter = find_adapter("target", target).load()
    try:
        settings = read_settings(adapter.settings, pairs)
        name = service_name(settings.name or package.manifest.name)
        footprint = read_footprint(package)
        plan: Plan = adapter.plan(Service(name, package, None, footprint), settings)
    except LimitError as error:
        return [Finding(error.message, "the platform's limit", error.hint)]
    except InputError as error:
        remedy = error.hint or f"modelport deploy --settings {target} lists the settings"
        return [Finding(error.message, f"a setting of {target} is missing or wrong", remedy)]
    found = [_limited(check) for check in plan.checks if not check.passed or _is_near(check)]
    if not footprint.measured:
        found.append(
            Finding(
                "memory and time of this package are estimated from its size",
                "it has not been measured on this machine",
                f"modelport deploy {package.path} --to {target} --plan --measure",
                NOTE,
            )
        )
    return [*found, *_diagnose_applier(plan)]


def _diagnose_applier(plan: Plan) -> list[Finding]:
    if not plan.applier:
        return []
    try:
        adapter = find_adapter("applier", plan.applier)
    except ModelportError as error:
        return [Finding(str(error), "modelport has no such applier", "run the plan's commands")]
    missing = adapter.missing()
    return [_not_installed(plan.target, missing, adapter.extra, WARNING)] if missing else []


def _not_installed(target: str, missing: list[str], extra: str, weight: str = FAULT) -> Finding:
    return Finding(
        f"{', '.join(missing)} cannot be imported",
        f"the platform's SDK for {target} is not installed",
        f'pip install "modelport[{extra}]"',
        weight,
    )


def _is_near(check: Check) -> bool:
    most = check.limit.most
    return most is not None and check.limit.unit != "count" and check.value > _NEAR * most


def _limited(check: Check) -> Finding:
    if check.passed:
        cause = "it fits, with little to spare"
        return Finding(check.describe(), cause, check.limit.remedy, WARNING, check.limit.source)
    cause = "the platform's limit"
    return Finding(check.describe(), cause, check.limit.remedy, FAULT, check.limit.source)
