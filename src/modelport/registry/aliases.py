"""Movable names for versions: every move is a record, the newest one counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from modelport.core.digest import canonical_json
from modelport.core.errors import ConflictError, InputError, IntegrityError, NotFoundError
from modelport.registry.chain import Chain
from modelport.registry.layout import (
    alias_folder,
    aliases_folder,
    model_and_alias,
    numbers_by_folder,
    place,
)
from modelport.registry.records import Action, AliasRecord, VersionRecord
from modelport.registry.stamps import actor, now
from modelport.registry.versions import find_version, require_versions, version_chain
from modelport.stores.base import Store


def alias_chain(store: Store, model: str, alias: str) -> Chain[AliasRecord]:
    """The chain of one alias's records."""
    return Chain(store, alias_folder(model, alias), AliasRecord)


def alias_names(store: Store, model: str) -> list[str]:
    """The aliases that a model has, sorted."""
    owners = map(model_and_alias, numbers_by_folder(store, aliases_folder(model)))
    return sorted(owner[1] for owner in owners if owner is not None)


def alias_records(store: Store, model: str, alias: str) -> list[AliasRecord]:
    """All records of an alias, oldest first, chain and moves verified; empty if none.

    Raises
    ------
    IntegrityError
        When the chain is broken, or a rollback did not go to where the alias pointed before.
    """
    records = alias_chain(store, model, alias).records()
    _stack(store, records)
    return records


def move_to(
    store: Store, model: str, alias: str, version: int, why: str, evidence: Mapping[str, Any]
) -> AliasRecord:
    """Point an alias at a version; no new record when it points there already.

    Of two that move it at once, the later one wins, and both are on record.

    Raises
    ------
    NotFoundError
        When there is no such model or version, listing those that exist.
    InputError
        When the evidence cannot be written as JSON.
    """
    find_version(store, model, version)
    evidence = _plain(evidence)
    chain = alias_chain(store, model, alias)
    records = alias_records(store, model, alias)
    while True:
        if records and records[-1].version == version:
            return records[-1]
        record = _next(records, model, alias, version, "promote", why, evidence)
        if chain.append(record):
            return record
        chain.extend(records)


def move_back(store: Store, model: str, alias: str, why: str) -> AliasRecord:
    """Point an alias at what it pointed at before its last promotion that still stands.

    Raises
    ------
    NotFoundError
        When there is no such model or alias.
    ConflictError
        When there is nothing to go back to, or somebody moved the alias at the same moment:
        going back from *their* version is not what was asked for.
    """
    records = alias_records(store, model, alias)
    if not records:
        raise unknown_alias(store, model, alias)
    stack = _stack(store, records)
    if len(stack) < 2:
        raise ConflictError(
            f"nothing to roll back to: {model}@{alias} is at version {records[-1].version}, "
            "where it began",
            hint="promote points it at any version",
        )
    record = _next(records, model, alias, stack[-2], "rollback", why, {})
    if not alias_chain(store, model, alias).append(record):
        raise ConflictError(
            f"{model}@{alias} was moved by somebody else at this moment",
            hint="look at its history, and roll back again if that is still right",
        )
    return record


def served_at(store: Store, model: str, alias: str, time: datetime) -> AliasRecord:
    """The record that was the newest at `time`, by the writers' clocks.

    Raises
    ------
    NotFoundError
        When there is no such model or alias, or it did not exist yet.
    InputError
        When `time` has no time zone.
    """
    if time.tzinfo is None:
        raise InputError(f"time has no time zone: {time.isoformat()}", hint="write 09:30+00:00")
    records = alias_records(store, model, alias)
    if not records:
        raise unknown_alias(store, model, alias)
    for record in reversed(records):
        if record.time <= time:
            return record
    raise NotFoundError(
        f"alias at {time.isoformat()}",
        alias,
        where=model,
        hint=f"it exists since {records[0].at}",
    )


def version_behind(store: Store, model: str, alias: str) -> VersionRecord | None:
    """The version that an alias points at now; None when there is no such alias.

    Raises
    ------
    IntegrityError
        When the alias's newest record, or the version it points at, is damaged or missing.
    """
    newest = alias_chain(store, model, alias).newest()
    if newest is None:
        return None
    version = version_chain(store, model).find(newest.version)
    if version is None:
        raise IntegrityError(
            f"alias points at version {newest.version}, whose record is missing",
            where=place(store, newest.key),
        )
    return version


def unknown_alias(store: Store, model: str, alias: str) -> NotFoundError:
    """What to raise for an alias without records.

    Raises
    ------
    NotFoundError
        When the model does not exist either.
    """
    require_versions(store, model)
    return NotFoundError("alias", alias, alias_names(store, model), where=model)


def _stack(store: Store, records: list[AliasRecord]) -> list[int]:
    """Versions that the alias can go back through; the last one is where it points."""
    stack: list[int] = []
    for record in records:
        if record.action == "promote":
            stack.append(record.version)
            continue
        stack[-1:] = []
        if stack[-1:] != [record.version]:
            raise IntegrityError(
                f"rollback goes to version {record.version}, which is not the one before",
                where=place(store, record.key),
            )
    return stack


def _next(
    records: list[AliasRecord],
    model: str,
    alias: str,
    version: int,
    action: Action,
    why: str,
    evidence: Mapping[str, Any],
) -> AliasRecord:
    return AliasRecord(
        model=model,
        alias=alias,
        sequence=len(records) + 1,
        version=version,
        action=action,
        at=now(),
        by=actor(),
        why=why,
        evidence=evidence,
        previous=records[-1].digest if records else "",
    )


def _plain(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader of the record will get."""
    try:
        plain: dict[str, Any] = json.loads(canonical_json(dict(evidence)))
    except (TypeError, ValueError) as error:
        raise InputError(f"evidence cannot be written as JSON: {error}") from error
    return plain
