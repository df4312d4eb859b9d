"""From packages to platforms: plan, deploy, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.api.run import resolve_models
from modelport.core.options import RegistryOptions
from modelport.core.package import Package, open_package
from modelport.core.settings import resolve

if TYPE_CHECKING:
    from modelport.deploy.base import Plan

Progress = Callable[[str], None]


def _quiet(line: str) -> None:
    """Report nothing."""


def plan_deployment(
    model: str,
    target: str,
    settings: Sequence[str] = (),
    *,
    registry: RegistryOptions | None = None,
    measure: bool = False,
    report: Progress = _quiet,
) -> Plan:
    """Say what it takes to run a model on a target, without network and credentials.

    Parameters
    ----------
    model : str
        A package folder, or ``name``, ``name@alias``, ``name@3`` of the registry.
    target : str
        As `targets` lists them.
    settings : sequence of str
        ``key=value`` each.
    registry : RegistryOptions, optional
    measure : bool
        Start the package's server here for a few seconds, to measure what it needs, if that has
        not been done before; otherwise what is not known is estimated from its size.
    report : callable, optional

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        When a setting is missing or wrong.
    LimitError
        When the platform does not take it.
    """
    from modelport.deploy.footprint import measured_footprint, read_footprint
    from modelport.deploy.stage import plan

    package, version = _package(model, registry)
    footprint = measured_footprint(package, report) if measure else read_footprint(package)
    return plan(package, target, settings, footprint=footprint, version=version)


def deploy(
    model: str,
    target: str,
    settings: Sequence[str] = (),
    *,
    registry: RegistryOptions | None = None,
    out: str | Path = "",
    report: Progress = _quiet,
) -> str:
    """Deploy a model: push its image where one is needed, apply the plan, verify, shift traffic.

    Parameters
    ----------
    model, target, settings, registry, report
        As for `plan_deployment`.
    out : str or Path
        Write the plan's files there, too.

    Returns
    -------
    str
        The URL at which it answers; empty where there is none.

    Raises
    ------
    PlatformError
        When the platform refuses; what was created has been taken back.
    ParityError
        When the endpoint gives other answers than the package; likewise.
    """
    from modelport.deploy.stage import apply, write

    package, _ = _package(model, registry)
    settings = _with_image(package, target, settings, report)
    planned = plan_deployment(
        str(package.path), target, settings, registry=registry, measure=True, report=report
    )
    if out:
        write(planned, Path(out))
    return apply(planned, _verified(package, report), report)


def deployment_status(
    model: str,
    target: str,
    settings: Sequence[str] = (),
    *,
    registry: RegistryOptions | None = None,
) -> Mapping[str, Any]:
    """How a deployment is, in the platform's own words.

    Raises
    ------
    NotFoundError
        When there is none.
    """
    from modelport.deploy.stage import status

    return status(plan_deployment(model, target, settings, registry=registry))


def destroy(
    model: str,
    target: str,
    settings: Sequence[str] = (),
    *,
    registry: RegistryOptions | None = None,
    report: Progress = _quiet,
) -> None:
    """Take away all that `deploy` creates with the same arguments."""
    from modelport.deploy.stage import destroy as take_away

    take_away(plan_deployment(model, target, settings, registry=registry), report)


def targets() -> dict[str, list[tuple[str, str, str]]]:
    """Every target's settings: key, default, what it is."""
    from modelport.adapters import adapters_of
    from modelport.deploy.settings import describe_settings

    return {a.name: describe_settings(a.load().settings) for a in adapters_of("target")}


def _package(model: str, registry: RegistryOptions | None) -> tuple[Package, int | None]:
    spec = resolve_models([model], registry or resolve(RegistryOptions))[0]
    package = open_package(Path(spec.path))
    return package, (None if Path(model).exists() else spec.version)


def _with_image(
    package: Package, target: str, settings: Sequence[str], report: Progress
) -> list[str]:
    raise NotImplementedError


def _verified(package: Package, report: Progress) -> Any:
    raise NotImplementedError
