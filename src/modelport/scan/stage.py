"""The scan stage: a source goes in, an audited source or a refusal comes out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Final

from modelport.adapters import Adapter, adapters_of, suffix_of
from modelport.core.errors import InputError, NotFoundError, UnsafeError, UnsupportedError
from modelport.core.source import AuditedSource, Source
from modelport.scan.base import Container, Finding, Scanner, ScanReport
from modelport.scan.magic import Guess, folder_looks_like, looks_like

#: The format of a live object, in which there is nothing to scan.
OBJECT = "object"
#: Endings that many other files have too; only their content tells.
COMMON_SUFFIXES: Final = frozenset(
    {".bin", ".ckpt", ".gz", ".json", ".model", ".pb", ".tar", ".tgz", ".txt", ".zip"}
)
_MOST_NAMED = 8
#: Containers inside containers: an archive with an MLflow folder with a TorchServe archive.
_MOST_NESTED = 4
# Names that a hint repeats, to be copied.
_FEW = 4


def scan(source: Source) -> ScanReport:
    """Say what loading a source would do, without loading it.

    Parameters
    ----------
    source : Source

    Returns
    -------
    ScanReport
        With the findings, if there are any; `audit` turns them into a refusal. The report about
        a container holds the one about the model inside.

    Raises
    ------
    InputError
        When the file is empty, damaged or truncated.
    UnsupportedError
        When no scanner knows the format; the message says what the file looks like.
    MissingPackageError
        When the scanner for this file's ending needs a package that is not installed.
    """
    return _read(source, _MOST_NESTED).report


def audit(source: Source, *, trust: bool = False, allow: Collection[str] = ()) -> AuditedSource:
    """Let a source pass to its loader, or refuse it.

    Parameters
    ----------
    source : Source
    trust : bool
        Let it pass in spite of findings, and record their names. Damage is never let through.
    allow : collection of str
        Findings that may pass, by their exact names (``package.module.Class``); recorded.

    Returns
    -------
    AuditedSource

    Raises
    ------
    UnsafeError
        When loading could run code, with every name and its place.
    InputError
        As `scan`, and for a file with findings that is damaged besides.
    """
    read = _read(source, _MOST_NESTED)
    where = str(source.path or source.name)
    findings = [finding for report in read.reports for finding in report.findings]
    refused = [finding for finding in findings if finding.what not in allow]
    if refused and not trust:
        raise _refusal(source.name, refused, where)
    damage = next((report.damage for report in read.reports if report.damage), "")
    if damage:
        raise InputError(damage, where=where, hint="save the model again")
    *containers, innermost = read.reports
    return AuditedSource(
        source=_with_external_files(read.source, innermost.external_files),
        format=innermost.format,
        trusted=tuple(dict.fromkeys(finding.what for finding in findings)),
        containers=tuple(report.format for report in containers),
        notes=read.notes,
        globals=innermost.globals,
    )


@dataclass(frozen=True)
class _Reading:
    """The reports from the outermost container to the model, and the model itself."""

    reports: tuple[ScanReport, ...]
    source: Source

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(note for report in self.reports for note in report.notes)

    @property
    def report(self) -> ScanReport:
        report = self.reports[-1]
        for outer in reversed(self.reports[:-1]):
            report = replace(outer, inside=report)
        return report


def _read(source: Source, nested: int) -> _Reading:
    if source.path is None:
        return _Reading((ScanReport(format=OBJECT),), source)
    for record in adapters_of("container"):
        if record.missing():
            continue
        container: Container = record.load()
        if not container.recognises(source):
            continue
        if not nested:
            raise UnsupportedError(
                f"archives are nested more than {_MOST_NESTED} deep", where=str(source.path)
            )
        opened = container.open(source)
        report = replace(opened.report, notes=opened.notes)
        if opened.source is None:
            return _Reading((report,), source)
        inner = _read(opened.source, nested - 1)
        return _Reading((report, *inner.reports), inner.source)
    return _Reading((_scanner_for(source).scan(source),), source)


def _with_external_files(source: Source, wanted: Collection[str]) -> Source:
    """Read the files beside the model that it refers to; the scan has checked their names.

    Other files beside it are not a part of it.
    """
    if source.path is None or source.is_folder:
        return source
    folder = source.path.parent
    files = {name: content for name, content in source.files.items() if name in wanted}
    for name in wanted:
        path = folder / name
        if name in files:
            continue
        if not path.is_file():
            near = sorted(p.name for p in folder.glob("*")) if folder.is_dir() else []
            raise NotFoundError("file that the model refers to", name, near, where=str(folder))
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UnsafeError(f"a link leaves the model's folder: {name}", where=str(folder))
        files[name] = path.read_bytes()
    return replace(source, files=files)


def _refusal(name: str, findings: list[Finding], where: str) -> UnsafeError:
    shown = [finding.describe() for finding in findings[:_MOST_NAMED]]
    more = len(findings) - len(shown)
    if more:
        shown.append(f"and {more} more")
    names = list(dict.fromkeys(finding.what for finding in findings if finding.is_name))
    exactly = "that pass" if len(names) == 1 else "those pass"
    few = f"--allow {','.join(names)} lets exactly {exactly}; " if 0 < len(names) <= _FEW else ""
    return UnsafeError(
        f"it is not safe to load {name}: {'; '.join(shown)}",
        where=where,
        hint=f"{few}--trust loads it all the same, if you made this file yourself",
    )


def _scanner_for(source: Source) -> Scanner:
    where = str(source.path)
    if not source.content and not source.is_folder:
        raise InputError("the file is empty", where=where)
    suffix = suffix_of(PurePath(source.name))
    # The scanner for the file's ending first: the others may need packages that are not here,
    # or that take long to import.
    records = sorted(
        adapters_of("scanner"),
        key=lambda record: (suffix not in record.suffixes, bool(record.requires)),
    )
    for record in records:
        if suffix in record.suffixes or not record.missing():
            scanner: Scanner = record.load()
            if scanner.recognises(source):
                return scanner
    if source.is_folder:
        guess = folder_looks_like(source.files)
        known = f"; it looks like {guess.name}" if guess else ""
        raise UnsupportedError(
            f"the folder holds no model that is known{known}",
            where=where,
            hint=_hint(guess, [*records, *adapters_of("container")]),
        )
    guess = looks_like(source.content, source.name)
    if not guess and suffix in records[0].suffixes and suffix not in COMMON_SUFFIXES:
        # It has the right ending and the wrong content: its scanner can say where it breaks.
        named: Scanner = records[0].load()
        return named
    raise UnsupportedError(
        f"no scanner knows this format; it looks like {guess.name}" if guess else "unknown format",
        where=where,
        hint=_hint(guess, records),
    )


def _hint(guess: Guess | None, records: list[Adapter]) -> str:
    """What to do instead; what is supported, where nothing better is known."""
    if guess is not None and guess.hint:
        return guess.hint
    return "supported: " + "; ".join(record.summary for record in records)
