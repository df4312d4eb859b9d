"""Names, versions and aliases: the registry's verbs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelport.core.options import RegistryOptions
from modelport.core.package import Package, open_package
from modelport.core.settings import resolve

if TYPE_CHECKING:
    from modelport.registry.history import ModelSummary
    from modelport.registry.records import AliasRecord, VersionRecord
    from modelport.registry.stage import Registry


def push(
    package: str | Path | Package, *, registry: RegistryOptions | None = None
) -> VersionRecord:
    """Register a package as the next version of its model."""
    opened = package if isinstance(package, Package) else open_package(Path(package))
    return open_registry(registry).push(opened)


def pull(
    reference: str, out: str | Path = ".", *, registry: RegistryOptions | None = None
) -> Package:
    """Write the package that ``name``, ``name@alias`` or ``name@3`` stands for to ``out/name``."""
    from modelport.registry.reference import Reference

    parsed = Reference.parse(reference)
    return open_registry(registry).pull(parsed, Path(out) / parsed.model)


def list_models(*, registry: RegistryOptions | None = None) -> list[ModelSummary]:
    """All registered models."""
    return open_registry(registry).models()


def promote(
    reference: str, alias: str, *, why: str = "", registry: RegistryOptions | None = None
) -> AliasRecord:
    """Point an alias at the version that ``name@3`` (or ``name@other-alias``) stands for."""
    opened = open_registry(registry)
    record = opened.resolve(reference)
    return opened.promote(record.model, record.version, alias, why)


def rollback(
    name: str, alias: str, *, why: str = "", registry: RegistryOptions | None = None
) -> AliasRecord:
    """Point an alias back at what it pointed at before."""
    return open_registry(registry).rollback(name, alias, why)


def history(
    name: str, *, registry: RegistryOptions | None = None
) -> list[VersionRecord | AliasRecord]:
    """All records of a model in time order, verified."""
    return open_registry(registry).history(name)


def open_registry(options: RegistryOptions | None) -> Registry:
    """The registry that the options, or the settings, name."""
    from modelport.registry.stage import Registry
    from modelport.stores.base import open_store

    return Registry(open_store((options or resolve(RegistryOptions)).registry))
