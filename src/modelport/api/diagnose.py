"""What can run here, and what is wrong with an endpoint or a deployment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.api.run import resolve_models
from modelport.core.options import RegistryOptions
from modelport.core.package import Package, open_package
from modelport.core.settings import resolve

if TYPE_CHECKING:
    from modelport.deploy.diagnosis import Finding

Progress = Callable[[str], None]


def _quiet(line: str) -> None:
    """Report nothing."""


def doctor(*, registry: RegistryOptions | None = None) -> dict[str, Any]:
    """Find out what can run here.

    Returns
    -------
    dict
        ``system``: facts for people; ``adapters``: one record each, ``install`` naming what
        would bring a missing one; ``healthy``: whether everything without an extra is there.
    """
    import platform

    from modelport import __version__
    from modelport.adapters import TABLE
    from modelport.serve.limits import usable_cores

    options = registry or resolve(RegistryOptions)
    adapters = []
    for adapter in TABLE:
        missing = adapter.missing()
        adapters.append(
            {
                "kind": adapter.kind,
                "name": adapter.name,
                "summary": adapter.summary,
                "missing": missing,
                "extra": adapter.extra,
                "install": _install_command(adapter.extra) if missing else "",
            }
        )
    return {
        "system": {
            "modelport": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": usable_cores(),
            "registry": options.registry,
        },
        "adapters": adapters,
        "healthy": not any(a["missing"] and not a["extra"] for a in adapters),
    }


def _install_command(extra: str) -> str:
    return f'pip install "modelport[{extra}]"' if extra else "pip install modelport"


def doctor_url(
    url: str,
    model: str = "",
    *,
    registry: RegistryOptions | None = None,
    report: Progress = _quiet,
) -> list[Finding]:
    """Find out what is wrong with an endpoint.

    Parameters
    ----------
    url : str
        Of the server, or of a route on it. A key comes from ``MODELPORT_API_KEY``.
    model : str
        What it should serve, as for `modelport.api.verify.verify`: then names, signatures and
        answers are compared, too. Empty: only the server is looked at.
    registry : RegistryOptions, optional
    report : callable, optional

    Returns
    -------
    list of Finding
        Empty when nothing was found.

    Raises
    ------
    InputError
        When `url` is no address.
    """
    from modelport.deploy.diagnosis import diagnose_endpoint

    return diagnose_endpoint(url, _package(model, registry), report)


def doctor_target(
    target: str,
    model: str = "",
    settings: Sequence[str] = (),
    *,
    image: str = "",
    message: str = "",
    registry: RegistryOptions | None = None,
) -> list[Finding]:
    """Find out what stands in the way of a deployment, or what a platform's message means.

    Parameters
    ----------
    target : str
    model : str
        What is to be deployed; empty: only the target is looked at.
    settings : sequence of str
        ``key=value`` each.
    image : str
        An OCI image layout to hold against what the target takes.
    message : str
        What the platform said; then only its causes are told.
    registry : RegistryOptions, optional

    Raises
    ------
    NotFoundError
        When there is no such target.
    """
    from modelport.deploy.diagnosis import diagnose_target

    package = _package(model, registry)
    return diagnose_target(target, package, settings, image=image, message=message)


def _package(model: str, registry: RegistryOptions | None) -> Package | None:
    if not model:
        return None
    spec = resolve_models([model], registry or resolve(RegistryOptions))[0]
    return open_package(Path(spec.path))
