"""Scanning whatever a person points at: a model, or a folder with models somewhere in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelport.adapters import adapters_of, suffix_of
from modelport.core.errors import ModelportError, NotFoundError, UnsupportedError
from modelport.core.source import Source
from modelport.scan.base import Finding, ScanReport
from modelport.scan.magic import FOLDER_MARKS, folder_looks_like, looks_like
from modelport.scan.stage import COMMON_SUFFIXES, scan

#: Between two lines of progress.
SECONDS = 2.0


@dataclass(frozen=True)
class Verdict:
    """What the scan says of one model.

    Parameters
    ----------
    path : str
        The file or folder, as the person named it.
    size : int
        In bytes.
    report : ScanReport or None
        None when it could not be read.
    findings : tuple of Finding
        Those of the model and of the containers around it that were not allowed by name.
    allowed : tuple of str
        The names of the others.
    error : ModelportError or None
        Why it could not be read.
    """

    path: str
    size: int
    report: ScanReport | None = None
    findings: tuple[Finding, ...] = ()
    allowed: tuple[str, ...] = ()
    error: ModelportError | None = None

    @property
    def verdict(self) -> str:
        """``safe``, ``unsafe`` or ``unreadable``."""
        if self.findings:
            return "unsafe"
        return "unreadable" if self.report is None or _damage(self.report) else "safe"

    @property
    def formats(self) -> tuple[str, ...]:
        """From the outermost container to the model."""
        return tuple(report.format for report in _chain(self.report))

    @property
    def globals(self) -> tuple[str, ...]:
        """What the model and its containers name."""
        return tuple(name for report in _chain(self.report) for name in report.globals)

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know about the containers."""
        return tuple(note for report in _chain(self.report) for note in report.notes)

    def to_json(self) -> dict[str, Any]:
        """The plain form."""
        return {
            "path": self.path,
            "size": self.size,
            "verdict": self.verdict,
            "formats": list(self.formats),
            "findings": [finding.to_json() for finding in self.findings],
            "allowed": list(self.allowed),
            "report": self.report.to_json() if self.report else None,
            "error": self.error.message if self.error else "",
            "hint": self.error.hint if self.error else "",
        }


def inspect_source(source: Source, *, allow: Collection[str] = ()) -> Verdict:
    """Scan one model.

    Raises
    ------
    ModelportError
        When it cannot be read.
    """
    report = scan(source)
    size = len(source.content) + sum(map(len, source.files.values()))
    every = [finding for each in _chain(report) for finding in each.findings]
    findings = tuple(finding for finding in every if finding.what not in allow)
    allowed = dict.fromkeys(finding.what for finding in every if finding.what in allow)
    return Verdict(str(source.path or source.name), size, report, findings, tuple(allowed))


def is_model_folder(folder: Path) -> bool:
    """Whether the folder is itself one model."""
    return any((folder / mark).is_file() for mark in FOLDER_MARKS) or (
        folder.suffix in (".mlpackage", ".mlmodelc")
    )


def sweep(
    folder: Path, *, allow: Collection[str] = (), progress: Callable[[str], None]
) -> list[Verdict]:
    """Scan every model below a folder that is none itself.

    Files are read one at a time. A model that cannot be read does not stop the others.

    Parameters
    ----------
    folder : Path
    allow : collection of str
        Names that are no findings.
    progress : callable
        Told one line for people, every few seconds.

    Returns
    -------
    list of Verdict
        In the order of the paths.
    """
    verdicts: list[Verdict] = []
    told = time.monotonic()
    for seen, path in enumerate(_candidates(folder)):
        if time.monotonic() - told > SECONDS:
            told = time.monotonic()
            progress(f"{seen} files, {len(verdicts)} models; now {path.relative_to(folder)}")
        verdict = _look_at(path, allow)
        if verdict is not None:
            verdicts.append(verdict)
    return verdicts


def _candidates(folder: Path) -> Iterator[Path]:
    """All files, and folders that are models, without going into those."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in list(folders):
            if is_model_folder(Path(parent, name)):
                folders.remove(name)
                yield Path(parent, name)
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file() and path.stat().st_size:
                yield path


def _look_at(path: Path, allow: Collection[str]) -> Verdict | None:
    """None for what is not a model."""
    try:
        source = Source.of(path)
        if not source.is_folder and not _looks_like_a_model(source):
            return None
        return inspect_source(source, allow=allow)
    except NotFoundError:
        return None  # an archive without a model
    except ModelportError as error:
        return Verdict(str(path), _size(path), error=error)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _looks_like_a_model(source: Source) -> bool:
    suffix = suffix_of(Path(source.name))
    records = [
        record
        for kind in ("container", "scanner")
        for record in adapters_of(kind)
        if not record.missing()
    ]
    # The ending first, which costs nothing.
    if suffix not in COMMON_SUFFIXES and any(suffix in record.suffixes for record in records):
        return True
    guess = looks_like(source.content, source.name)
    return bool(guess and guess.hint) or any(r.load().recognises(source) for r in records)


def _chain(report: ScanReport | None) -> Iterator[ScanReport]:
    while report is not None:
        yield report
        report = report.inside


def _damage(report: ScanReport) -> bool:
    return any(each.damage for each in _chain(report))


def refuse_unknown_folder(folder: Path) -> UnsupportedError:
    """What to say of a folder in which there is no model at all."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")][:1000]
    guess = folder_looks_like(names)
    return UnsupportedError(
        "there is no model in the folder" + (f"; it looks like {guess.name}" if guess else ""),
        where=str(folder),
        hint=guess.hint if guess else "",
    )
