"""What the registry writes: one small JSON document per version and per move of an alias.

A record holds the digest of the record before it (`previous`), so that none can be changed,
exchanged or taken out from between others without the chain showing it. What a chain alone
cannot show is the loss of its newest records; a version that an alias points at is missed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final, Literal, Self, TypeVar

from modelport.core.digest import canonical_json, sha256_bytes
from modelport.core.errors import InputError, IntegrityError, ModelportError, UnsupportedError
from modelport.core.manifest import check_name
from modelport.registry.layout import alias_folder, record_key, versions_folder
from modelport.registry.reference import check_alias
from modelport.registry.stamps import parse_time

#: The format this version writes.
FORMAT: Final = 1

Action = Literal["promote", "rollback"]

_PACKAGE_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_PREVIOUS: Final = re.compile(r"(?:[0-9a-f]{64})?")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What both kinds of record have.

    Parameters
    ----------
    model : str
    at : str
        UTC by the writer's clock, ``2026-01-31T09:30:00.000000Z``.
    by : str
        Who: see `modelport.registry.stamps.actor`.
    previous : str
        SHA-256 of the bytes of the record before this one in its chain; empty for the first.
    """

    kind: ClassVar[str]

    model: str
    at: str
    by: str
    previous: str

    @property
    def number(self) -> int:
        """Its place in its chain, from 1."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """Where it stands in a store."""
        raise NotImplementedError

    @property
    def time(self) -> datetime:
        """`at`, decoded."""
        return parse_time(self.at)

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of its bytes: the `previous` of the next record."""
        return sha256_bytes(self.to_bytes())

    def to_json(self) -> dict[str, Any]:
        """The plain form."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "model": self.model,
            "at": self.at,
            "by": self.by,
            "previous": self.previous,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises
        ------
        KeyError, TypeError, ValueError, InputError
            When a field is missing or is not what it should be.
        """
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """The canonical document, as stored.

        Raises
        ------
        InputError
            When a text or the evidence cannot be written as JSON.
        """
        try:
            return canonical_json(self.to_json())
        except (TypeError, ValueError) as error:
            raise InputError(f"record cannot be written as JSON: {error}") from error

    @classmethod
    def _shared(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        if plain["kind"] != cls.kind:
            raise ValueError(f"kind is {plain['kind']!r}, expected {cls.kind!r}")
        parse_time(_text(plain, "at"))
        return {
            "model": check_name(_text(plain, "model")),
            "at": _text(plain, "at"),
            "by": _text(plain, "by"),
            "previous": _matching(plain, "previous", _PREVIOUS),
        }


@dataclass(frozen=True, kw_only=True)
class VersionRecord(Record):
    """A package became version `version` of `model`.

    Parameters
    ----------
    version : int
        From 1, without gaps.
    manifest : str
        The package digest, ``sha256:…``.
    created : bool
        Not stored. True only in what `push` returns after it made this record; False says
        that the package was registered already.
    """

    kind = "version"

    version: int
    manifest: str
    created: bool = field(default=False, compare=False)

    @property
    def number(self) -> int:
        """The version."""
        return self.version

    @property
    def key(self) -> str:
        """Where it stands in a store."""
        return record_key(versions_folder(self.model), self.version)

    def to_json(self) -> dict[str, Any]:
        """The plain form."""
        return {**super().to_json(), "version": self.version, "manifest": self.manifest}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; raises as `Record.from_json` says."""
        return cls(
            **cls._shared(plain),
            version=_positive(plain, "version"),
            manifest=_matching(plain, "manifest", _PACKAGE_DIGEST),
        )


@dataclass(frozen=True, kw_only=True)
class AliasRecord(Record):
    """Alias `alias` of `model` was pointed at a version.

    Parameters
    ----------
    alias : str
    sequence : int
        From 1, without gaps, for each alias.
    version : int
        Where it points from now on.
    action : str
        ``promote`` or ``rollback``.
    why : str
        The reason given; may be empty.
    evidence : mapping
        Plain facts that the decision rests on; may be empty.
    """

    kind = "alias"

    alias: str
    sequence: int
    version: int
    action: Action
    why: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def number(self) -> int:
        """The sequence number."""
        return self.sequence

    @property
    def key(self) -> str:
        """Where it stands in a store."""
        return record_key(alias_folder(self.model, self.alias), self.sequence)

    def to_json(self) -> dict[str, Any]:
        """The plain form."""
        return {
            **super().to_json(),
            "alias": self.alias,
            "sequence": self.sequence,
            "version": self.version,
            "action": self.action,
            "why": self.why,
            "evidence": self.evidence,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; raises as `Record.from_json` says."""
        action = plain["action"]
        if action not in ("promote", "rollback"):
            raise ValueError(f"action is {action!r}")
        evidence = plain["evidence"]
        if not isinstance(evidence, dict):
            raise TypeError("evidence is not an object")
        return cls(
            **cls._shared(plain),
            alias=check_alias(_text(plain, "alias")),
            sequence=_positive(plain, "sequence"),
            version=_positive(plain, "version"),
            action=action,
            why=_text(plain, "why"),
            evidence=evidence,
        )


AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_record(data: bytes, kind: type[AnyRecord], *, where: str) -> AnyRecord:
    """Decode a record of that kind.

    Raises
    ------
    IntegrityError
        When the bytes are not exactly what a writer of that record wrote.
    UnsupportedError
        When a newer modelport wrote it.
    """
    try:
        plain = json.loads(data)
        format_number = plain["format"]
        if type(format_number) is int and format_number > FORMAT:
            raise UnsupportedError(
                f"registry record of format {format_number} is newer than this modelport "
                f"reads ({FORMAT})",
                where=where,
                hint="upgrade modelport",
            )
        record = kind.from_json(plain)
        canonical = record.to_bytes()
    except UnsupportedError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError, ModelportError) as error:
        raise IntegrityError(f"registry record is damaged: {error!r}", where=where) from error
    if canonical != data:
        raise IntegrityError("registry record is not in its canonical form", where=where)
    return record


def _text(plain: Mapping[str, Any], name: str) -> str:
    value = plain[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a text: {value!r}")
    return value


def _matching(plain: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = _text(plain, name)
    if not pattern.fullmatch(value):
        raise ValueError(f"{name} is {value!r}")
    return value


def _positive(plain: Mapping[str, Any], name: str) -> int:
    value = plain[name]
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}")
    return value
