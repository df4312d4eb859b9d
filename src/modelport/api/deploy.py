"""From packages to platforms: plan, deploy, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Deployment:
    """What `deploy` made.

    Parameters
    ----------
    plan : Plan
        As it was applied: with the image pinned by its digest.
    url : str
        Where it answers; empty where only the platform's SDK reaches it.
    verified : bool
        Whether the golden records were replayed there; False where a plan has no address that
        can be asked, such as a batch job.
    """

    plan: Plan
    url: str
    verified: bool


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
    package, version = _package(model, registry)
    return _plan(package, version, target, settings, measure, report)


def deploy(
    model: str,
    target: str,
    settings: Sequence[str] = (),
    *,
    registry: RegistryOptions | None = None,
    out: str | Path = "",
    report: Progress = _quiet,
) -> Deployment:
    """Deploy a model: push its image where one is needed, apply the plan, verify, shift traffic.

    Parameters
    ----------
    model, target, settings, registry, report
        As for `plan_deployment`.
    out : str or Path
        Write the plan's files there, too.

    Returns
    -------
    Deployment

    Raises
    ------
    LimitError
        When the platform does not take it; nothing has been sent then.
    PlatformError
        When the platform refuses; what was created has been taken back.
    ParityError
        When the endpoint gives other answers than the package; likewise.
    """
    from modelport.deploy.stage import apply, write

    package, version = _package(model, registry)
    # Refused before an image is pushed, and planned again once its digest is known.
    planned = _plan(package, version, target, settings, True, report)
    pinned = _with_image(package, planned, settings, report)
    if pinned != list(settings):
        planned = _plan(package, version, target, pinned, True, report)
    if out:
        write(planned, Path(out))
    url = apply(planned, _verified(package, report), report)
    return Deployment(planned, url, verified=bool(planned.verify_at or planned.endpoint))


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


def removal(plan: Plan) -> list[str]:
    """What `destroy` does, in order, in a few words each."""
    from modelport.deploy.stage import removal as calls

    return [call.undo.purpose for call in calls(plan) if call.undo]


def _plan(
    package: Package,
    version: int | None,
    target: str,
    settings: Sequence[str],
    measure: bool,
    report: Progress,
) -> Plan:
    from modelport.deploy.footprint import measured_footprint, read_footprint
    from modelport.deploy.stage import plan

    footprint = measured_footprint(package, report) if measure else read_footprint(package)
    return plan(package, target, settings, footprint=footprint, version=version)


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
    package: Package, planned: Plan, settings: Sequence[str], report: Progress
) -> list[str]:
    """`settings` with an image that is in its registry, named by its digest, or in an archive."""
    from modelport.deploy.settings import key_of

    if not planned.image or "@sha256:" in planned.image:
        return list(settings)
    options = resolve(ImageOptions)
    options = replace(options, platform=planned.platform or options.platform)
    if planned.loads_image:
        if "archive" in map(key_of, settings):
            return list(settings)
        folder = Path(options.cache).expanduser() / "archives"
        folder.mkdir(parents=True, exist_ok=True)
        archive = folder / f"{planned.service.model}-{planned.service.tag}.oci.tar"
        build_image(
            package.path,
            options=replace(options, out=str(archive), push="", replace=True),
            report=report,
        )
        return [*settings, f"archive={archive}"]
    if planned.image.startswith("<"):
        raise InputError(
            f"{planned.target} needs an image in a registry, and no place for it is set",
            hint="--set image=registry/repository: it is built and pushed there",
        )
    pushed = build_image(
        package.path, options=replace(options, push=planned.image, out=""), report=report
    )
    others = [pair for pair in settings if key_of(pair) != "image"]
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
