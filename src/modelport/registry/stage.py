"""The register stage: from packages to names, versions and aliases on any store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from modelport.core.manifest import check_name
from modelport.core.package import Package
from modelport.registry.aliases import (
    move_back,
    move_to,
    served_at,
    unknown_alias,
    version_behind,
)
from modelport.registry.blobs import download, upload
from modelport.registry.history import ModelSummary, read_history, summaries
from modelport.registry.records import AliasRecord, VersionRecord
from modelport.registry.reference import DEFAULT_ALIAS, Reference, check_alias
from modelport.registry.versions import find_version, newest_version, register
from modelport.stores.base import Store


@dataclass(frozen=True)
class Registry:
    """Models on a store, safe under concurrent and dying writers.

    Everything is create-only, so a writer that dies between two steps leaves at most blobs
    that no version names; the next push of that package uses them.

    Parameters
    ----------
    store : Store
    """

    store: Store

    def push(self, package: Package) -> VersionRecord:
        """Upload a package and make it a version of the model that it is named after.

        Returns
        -------
        VersionRecord
            Its `created` is False when this package was a version already, whichever; then
            nothing was added but blobs that had got lost.

        Raises
        ------
        IntegrityError
            When the package was changed since it was opened, or the chain of versions is
            broken.
        """
        upload(self.store, package)
        return register(self.store, package.manifest.name, package.digest)

    def pull(self, reference: str | Reference, out: Path) -> Package:
        """Write the package that `reference` names to the folder `out`, every digest checked.

        Raises
        ------
        NotFoundError
            As `resolve`.
        IntegrityError
            When a record or a blob is damaged or missing; nothing is written then.
        ConflictError
            When something else is at `out`.
        """
        return download(self.store, self.resolve(reference), out)

    def resolve(self, reference: str | Reference) -> VersionRecord:
        """Find the version that ``name``, ``name@alias`` or ``name@3`` stands for.

        A bare name is the alias ``champion`` if it exists, else the newest version. The
        record is checked against its neighbours, not the whole chain: see
        `modelport.registry.chain`.

        Raises
        ------
        InputError
            When `reference` has another form.
        NotFoundError
            Listing the models, versions or aliases that exist.
        IntegrityError
            When a record on the way is damaged or missing.
        """
        if isinstance(reference, str):
            reference = Reference.parse(reference)
        model = reference.model
        if reference.version is not None:
            return find_version(self.store, model, reference.version)
        record = version_behind(self.store, model, reference.alias or DEFAULT_ALIAS)
        if record is not None:
            return record
        if reference.alias is not None:
            raise unknown_alias(self.store, model, reference.alias)
        return newest_version(self.store, model)

    def models(self) -> list[ModelSummary]:
        """All models, by name.

        Raises
        ------
        IntegrityError
            When the newest record of a version or an alias is damaged or missing.
        """
        return summaries(self.store)

    def promote(
        self,
        name: str,
        version: int,
        alias: str,
        why: str = "",
        evidence: Mapping[str, Any] | None = None,
    ) -> AliasRecord:
        """Point an alias at a version, with the reason and its evidence.

        Promoting the version that the alias points at already adds nothing and returns the
        record that stands. Of two promotions at once, the later one wins; both are on record.

        Raises
        ------
        NotFoundError
            Listing the models or versions that exist.
        InputError
            When the alias's name is not allowed, or the evidence is not JSON.
        IntegrityError
            When the version's record or the alias's chain is broken.
        """
        check_name(name)
        return move_to(self.store, name, check_alias(alias), version, why, evidence or {})

    def rollback(self, name: str, alias: str, why: str = "") -> AliasRecord:
        """Point an alias back at what it pointed at before.

        Promotions are a stack: after 1, 2, 3 one rollback leads to 2, the next to 1, and a
        promotion after that continues from there.

        Raises
        ------
        NotFoundError
            Listing the models or aliases that exist.
        ConflictError
            When there is nothing to go back to, or the alias was moved at this moment.
        IntegrityError
            When the alias's chain is broken.
        """
        check_name(name)
        return move_back(self.store, name, check_alias(alias), why)

    def alias_at(self, name: str, alias: str, time: datetime) -> AliasRecord:
        """What served at `time`: the alias's record that was the newest then.

        Times are those of the clocks of the records' writers.

        Parameters
        ----------
        name, alias : str
        time : datetime
            With a time zone.

        Raises
        ------
        NotFoundError
            When there is no such model or alias, or it did not exist yet.
        InputError
            When `time` has no time zone.
        IntegrityError
            When the alias's chain is broken.
        """
        check_name(name)
        return served_at(self.store, name, check_alias(alias), time)

    def history(self, name: str) -> list[VersionRecord | AliasRecord]:
        """All records of a model, versions and aliases, in time order and verified.

        Raises
        ------
        NotFoundError
            Listing the models that exist.
        IntegrityError
            Naming the record that is damaged or missing.
        """
        return read_history(self.store, check_name(name))

    def verify(self, name: str) -> int:
        """Walk every chain of a model and return how many records were verified.

        Raises as `history` does. Blobs are verified when they are pulled.
        """
        return len(self.history(name))
