"""The scan stage: a source goes in, an audited source or a refusal comes out."""

from __future__ import annotations

from pathlib import PurePath

from modelport.adapters import Adapter, adapters_of, suffix_of
from modelport.core.errors import InputError, UnsafeError, UnsupportedError
from modelport.core.source import AuditedSource, Source
from modelport.scan.base import Scanner, ScanReport
from modelport.scan.magic import looks_like

#: The format of a live object, in which there is nothing to scan.
OBJECT = "object"
_MOST_NAMED = 8


def scan(source: Source) -> ScanReport:
    """Say what loading a source would do, without loading it.

    Parameters
    ----------
    source : Source

    Returns
    -------
    ScanReport
        With the findings, if there are any; `audit` turns them into a refusal.

    Raises
    ------
    InputError
        When the file is empty, damaged or truncated.
    UnsupportedError
        When no scanner knows the format; the message says what the file looks like.
    MissingPackageError
        When the scanner for this file's ending needs a package that is not installed.
    """
    if source.path is None:
        return ScanReport(format=OBJECT)
    return _scanner_for(source).scan(source)


def audit(source: Source, *, trust: bool = False) -> AuditedSource:
    """Let a source pass to its loader, or refuse it.

    Parameters
    ----------
    source : Source
    trust : bool
        Let it pass in spite of findings, and record their names. Damage is never let through.

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
    report = scan(source)
    where = str(source.path or source.name)
    if report.findings and not trust:
        raise _refusal(source.name, report, where)
    if report.damage:
        raise InputError(report.damage, where=where, hint="save the model again")
    names = dict.fromkeys(finding.what for finding in report.findings)
    return AuditedSource(source=source, format=report.format, trusted=tuple(names))


def _refusal(name: str, report: ScanReport, where: str) -> UnsafeError:
    shown = [finding.describe() for finding in report.findings[:_MOST_NAMED]]
    more = len(report.findings) - len(shown)
    if more:
        shown.append(f"and {more} more")
    return UnsafeError(
        f"it is not safe to load {name}: {'; '.join(shown)}",
        where=where,
        hint="--trust loads it all the same, if you made this file yourself",
    )


def _scanner_for(source: Source) -> Scanner:
    where = str(source.path)
    if source.path is not None and source.path.is_dir():
        raise UnsupportedError(
            "a folder cannot be read as a model",
            where=where,
            hint=_supported(adapters_of("scanner")),
        )
    if not source.content:
        raise InputError("the file is empty", where=where)
    suffix = suffix_of(PurePath(source.name))
    # The scanner for the file's ending first: the others may need packages that are not here.
    records = sorted(adapters_of("scanner"), key=lambda record: suffix not in record.suffixes)
    for record in records:
        if suffix in record.suffixes or not record.missing():
            scanner: Scanner = record.load()
            if scanner.recognises(source):
                return scanner
    guess = looks_like(source.content)
    if not guess and suffix in records[0].suffixes:
        # It has the right ending and the wrong content: its scanner can say where it breaks.
        named: Scanner = records[0].load()
        return named
    raise UnsupportedError(
        f"no scanner knows this format; it looks like {guess}" if guess else "unknown format",
        where=where,
        hint=_supported(records),
    )


def _supported(records: list[Adapter]) -> str:
    return "supported: " + "; ".join(record.summary for record in records)
