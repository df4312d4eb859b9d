"""From packages to platforms: plan, deploy, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.api.image import build_image
from modelport.api.run import resolve_models
from modelport.core.errors import InputError
from modelport.core.options import ImageOptions, RegistryOptions
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


def write_plan(plan: Plan, folder: str | Path) -> list[Path]:
    """Write a plan's files below a folder; the paths."""
    from modelport.deploy.stage import write

    return write(plan, Path(folder))


def plan_text(plan: Plan) -> str:
    """A plan for people: the same plan, the same text."""
    from modelport.deploy.show import to_text

    return to_text(plan)


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan for programs, as plain data."""
    from modelport.deploy.show import to_json

    return to_json(plan)


def _with_image(
    package: Package, target: str, settings: Sequence[str], report: Progress
) -> list[str]:
    """`settings` with an image that is in its registry, named by its digest."""
    from modelport.adapters import find_adapter
    from modelport.deploy.settings import read_settings

    adapter = find_adapter("target", target).load()
    image = read_settings(adapter.settings, settings).image
    if not adapter.needs_image or "@sha256:" in image:
        return list(settings)
    if not image:
        raise InputError(
            f"{target} needs an image in a registry, and no place for it is set",
            hint="--set image=registry/repository: it is built and pushed there",
        )
    options = replace(resolve(ImageOptions), push=image, out="")
    pushed = build_image(package.path, options=options, report=report)
    others = [pair for pair in settings if pair.partition("=")[0].strip() != "image"]
    return [*others, f"image={pushed.reference}"]


def _verified(package: Package, report: Progress) -> Callable[[Plan, str, Mapping[str, str]], None]:
    """What proves that an endpoint gives the package's answers."""
    from modelport.deploy.verify import verify_endpoint

    def verify(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        if not url:
            report("not verified: the plan has no address that can be asked from here")
            return
        report(f"replaying the golden records at {url}")
        verify_endpoint(package, url, plan.protocol, report, headers=headers or None)

    return verify
