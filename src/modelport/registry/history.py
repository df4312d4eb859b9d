"""What there is, and how it came to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import merge

from modelport.core.errors import IntegrityError
from modelport.registry.aliases import alias_chain, alias_names, alias_records
from modelport.registry.layout import (
    MODELS,
    model_and_alias,
    numbers_by_folder,
    place,
    versions_folder,
)
from modelport.registry.records import AliasRecord, Record, VersionRecord
from modelport.registry.versions import require_versions, version_chain
from modelport.stores.base import Store


@dataclass(frozen=True)
class ModelSummary:
    """One line of the list of models.

    Parameters
    ----------
    name : str
    versions : int
        How many there are.
    newest : int
        The newest version's number.
    pushed_at : str
        When that was, UTC.
    aliases : mapping of str to int
        Where each alias points.
    """

    name: str
    versions: int
    newest: int
    pushed_at: str
    aliases: Mapping[str, int]


def summaries(store: Store) -> list[ModelSummary]:
    """All models, by name.

    Lists once, and reads the newest records with their neighbours.

    Raises
    ------
    IntegrityError
        When one of those is damaged or missing.
    """
    aliases: dict[str, dict[str, set[int]]] = {}
    listing = numbers_by_folder(store, MODELS)
    for folder, numbers in listing.items():
        if owner := model_and_alias(folder):
            model, alias = owner
            of_model = aliases.setdefault(model, {})
            if alias:
                of_model[alias] = numbers
    return [
        _summary(store, model, listing.get(versions_folder(model)), aliases[model])
        for model in sorted(aliases)
    ]


def _summary(
    store: Store, model: str, numbers: set[int] | None, aliases: Mapping[str, set[int]]
) -> ModelSummary:
    newest = version_chain(store, model).newest(numbers)
    if newest is None:
        raise IntegrityError(
            "model has aliases, and its version records are missing",
            where=place(store, versions_folder(model)),
        )
    pointers = {
        alias: alias_chain(store, model, alias).newest(sequence)
        for alias, sequence in sorted(aliases.items())
    }
    return ModelSummary(
        name=model,
        versions=newest.version,
        newest=newest.version,
        pushed_at=newest.at,
        aliases={alias: record.version for alias, record in pointers.items() if record},
    )


def read_history(store: Store, model: str) -> list[VersionRecord | AliasRecord]:
    """All records of a model in time order, after checking every link between them.

    The order is that of the writers' clocks, except that no clock puts a record before one
    that it follows in its chain. Within one second, versions come before aliases, and aliases by
    name.

    Raises
    ------
    NotFoundError
        When there is no such model.
    IntegrityError
        Naming the record that is damaged or missing.
    """
    # Aliases first: what they point at was written before them, so it is found after.
    moves = [alias_records(store, model, alias) for alias in alias_names(store, model)]
    versions = version_chain(store, model).records()
    for record in (record for records in moves for record in records):
        if record.version > len(versions):
            raise IntegrityError(
                f"alias points at version {record.version}, whose record is missing",
                where=place(store, record.key),
            )
    if not versions:
        require_versions(store, model)
    chains: list[Iterable[VersionRecord | AliasRecord]] = [versions, *moves]
    return list(merge(*chains, key=_order))


def _order(record: Record) -> tuple[str, bool]:
    return record.at, isinstance(record, AliasRecord)
