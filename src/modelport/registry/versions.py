"""A model's numbered versions."""

from __future__ import annotations

from dataclasses import replace

from modelport.core.errors import NotFoundError
from modelport.registry.chain import Chain
from modelport.registry.layout import (
    MODELS,
    model_and_alias,
    numbers_by_folder,
    versions_folder,
)
from modelport.registry.records import VersionRecord
from modelport.registry.stamps import actor, now
from modelport.stores.base import Store


def version_chain(store: Store, model: str) -> Chain[VersionRecord]:
    """The chain of a model's version records."""
    return Chain(store, versions_folder(model), VersionRecord)


def register(store: Store, model: str, manifest: str) -> VersionRecord:
    """Give a package the next free version number.

    A package that is a version already, whichever, keeps that one: the same bytes under two
    numbers would only make "what serves?" harder to answer.

    Parameters
    ----------
    store : Store
        Holds the package's blobs already.
    model : str
    manifest : str
        The package digest.

    Returns
    -------
    VersionRecord
        `created` is False for a package that was registered before.

    Raises
    ------
    IntegrityError
        When the chain is broken: a record that nobody can verify is not added.
    """
    chain = version_chain(store, model)
    records = chain.records()
    while True:
        for known in records:
            if known.manifest == manifest:
                return known
        record = VersionRecord(
            model=model,
            version=len(records) + 1,
            manifest=manifest,
            at=now(),
            by=actor(),
            previous=records[-1].digest if records else "",
        )
        if chain.append(record):
            return replace(record, created=True)
        chain.extend(records)


def find_version(store: Store, model: str, version: int) -> VersionRecord:
    """The record of one version.

    Raises
    ------
    NotFoundError
        Listing the versions, or the models, that exist.
    IntegrityError
        When its record is missing from between others, damaged, or does not fit them.
    """
    chain = version_chain(store, model)
    record = chain.find(version) if version > 0 else None
    if record is None:
        known = [str(number) for number in range(1, require_versions(store, model) + 1)]
        raise NotFoundError("version", str(version), known, where=model)
    return record


def newest_version(store: Store, model: str) -> VersionRecord:
    """The record of the newest version; raises as `find_version` does."""
    newest = version_chain(store, model).newest()
    if newest is None:
        raise _unknown_model(store, model)
    return newest


def require_versions(store: Store, model: str) -> int:
    """How many versions a model has.

    Raises
    ------
    NotFoundError
        When it has none, listing the models that exist.
    """
    length = version_chain(store, model).length()
    if not length:
        raise _unknown_model(store, model)
    return length


def _unknown_model(store: Store, model: str) -> NotFoundError:
    owners = [model_and_alias(folder) for folder in numbers_by_folder(store, MODELS)]
    known = sorted({owner[0] for owner in owners if owner is not None} - {model})
    return NotFoundError("model", model, known, where=store.url)
