"""What a scanner does: say, without loading it, what loading a file would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelport.core.source import Source


@dataclass(frozen=True)
class Finding:
    """One thing in a file that could run code when the file is loaded.

    Parameters
    ----------
    kind : str
        ``global``, ``call``, ``state``, ``array``, ``stream``, ``too complex``, ``file``.
    what : str
        Its name: ``os.system``.
    where : str
        The place: ``byte 12``.
    why : str
        Why it is refused.
    """

    kind: str
    what: str
    where: str
    why: str

    @property
    def is_name(self) -> bool:
        """Whether it is a name that a person may know and allow: of a class or an operator."""
        return self.kind == "global" or "::" in self.what

    def describe(self) -> str:
        """One line for people."""
        return f"{self.what} ({self.where}: {self.why})"

    def to_json(self) -> dict[str, str]:
        """The plain form."""
        return {"kind": self.kind, "what": self.what, "where": self.where, "why": self.why}


@dataclass(frozen=True)
class ScanReport:
    """What a scan saw.

    Parameters
    ----------
    format : str
        ``pickle``, ``onnx``, ``torchscript`` …; ``object`` for a live object.
    globals : tuple of str
        Every class and function that the file names, in order of first appearance.
    findings : tuple of Finding
        Empty for a file that is safe to load.
    damage : str
        Non-empty when the file has findings and, besides, cannot be read to its end. A damaged
        file without findings is an `InputError`, not a report.
    external_files : tuple of str
        Files beside this one that it reads, relative to it and inside its folder.
    details : mapping
        Facts about the format: versions, operator sets.
    inside : ScanReport or None
        Of a container: the report about the model inside.
    notes : tuple of str
        Of a container: what people should know, parts of it that are not used.
    """

    format: str
    globals: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    damage: str = ""
    external_files: tuple[str, ...] = ()
    details: Mapping[str, int] = field(default_factory=dict)
    inside: ScanReport | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plain form."""
        return {
            "format": self.format,
            "globals": list(self.globals),
            "findings": [finding.to_json() for finding in self.findings],
            "damage": self.damage,
            "external_files": list(self.external_files),
            "details": dict(self.details),
            "inside": self.inside.to_json() if self.inside else None,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Opened:
    """What is in a container.

    Parameters
    ----------
    report : ScanReport
        About the container itself: members that leave their folder, code that it would run.
    source : Source or None
        The model inside, with the container's path and the member in its name; None when the
        report has findings for which nothing is read from it.
    notes : tuple of str
        What people should know: parts of the container that are not used.
    """

    report: ScanReport
    source: Source | None
    notes: tuple[str, ...] = ()


class Container(Protocol):
    """What a container adapter does: find the model in an archive or a folder."""

    def recognises(self, source: Source) -> bool:
        """Whether the source is such a container; cheap."""
        ...

    def open(self, source: Source) -> Opened:
        """Read the container without running, importing or writing anything.

        Raises
        ------
        InputError
            When it is damaged, or there is not exactly one model in it.
        UnsupportedError
            When its model is of a kind that cannot be converted.
        """
        ...


class Scanner(Protocol):
    """What a scanner does."""

    def recognises(self, source: Source) -> bool:
        """Whether the content is of this scanner's formats; cheap."""
        ...

    def scan(self, source: Source) -> ScanReport:
        """Read the whole file without importing, constructing or calling anything it names.

        Raises
        ------
        InputError
            When the file is damaged or truncated, and nothing in it was suspicious before.
        UnsupportedError
            When it is of a variant that cannot be read.
        """
        ...
