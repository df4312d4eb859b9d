"""Prove that an endpoint gives the answers of a package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.api.run import resolve_models
from modelport.core.errors import InputError
from modelport.core.options import RegistryOptions
from modelport.core.package import open_package
from modelport.core.settings import resolve

if TYPE_CHECKING:
    from modelport.deploy.verify import Verification

Progress = Callable[[str], None]


def _quiet(line: str) -> None:
    """Report nothing."""


def verify(
    url: str,
    model: str,
    *,
    protocol: str = "auto",
    registry: RegistryOptions | None = None,
    report: Progress = _quiet,
) -> Verification:
    """Replay a package's golden records at an endpoint, and compare the answers.

    Parameters
    ----------
    url : str
        Of the server, or of the model's route on it; ``sagemaker://REGION/ENDPOINT``. An API key
        or token comes from ``MODELPORT_API_KEY``.
    model : str
        A package folder, or ``name``, ``name@alias``, ``name@3`` of the registry.
    protocol : str
        How the endpoint is asked; ``auto``: as its address says, or its server shows.
    registry : RegistryOptions, optional
    report : callable, optional

    Returns
    -------
    Verification
        Whose `agrees` is False when an answer differs.

    Raises
    ------
    InputError
        When the package has no records that could be replayed, or the endpoint refuses them.
    UnavailableError
        When nobody answers.
    """
    from modelport.deploy.verify import ask_endpoint

    if "://" in model:
        raise InputError(
            f"not a package: {model!r}", hint=f"the address comes first: modelport verify {model} …"
        )
    spec = resolve_models([model], registry or resolve(RegistryOptions))[0]
    package = open_package(Path(spec.path))
    verification = ask_endpoint(package, url, protocol, report)
    if not verification.records:
        raise InputError(
            f"{url} answers, and nothing can be compared: the package has no golden records that "
            "this protocol carries",
            where=str(package.path),
            hint="pack it with --sample rows.csv, or choose another --protocol",
        )
    return verification


def verification_json(verification: Verification) -> dict[str, Any]:
    """A verification for programs, as plain data."""
    from modelport.deploy.verify import to_json

    return to_json(verification)
