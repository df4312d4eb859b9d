"""Plain archives: ``.zip``, ``.tar`` and ``.tar.gz`` (SageMaker's ``model.tar.gz``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from modelport.adapters import adapters_of
from modelport.core.errors import InputError, NotFoundError
from modelport.core.source import Source
from modelport.scan.archives.members import inner_source
from modelport.scan.archives.tar_archive import is_tar, read_tar
from modelport.scan.archives.zip_archive import MAGIC, member_names, open_zip
from modelport.scan.base import Finding, Opened, ScanReport
from modelport.scan.magic import FOLDER_MARKS, model_in_zip
from modelport.scan.pickles.compression import compression_of, decompress, peek

# Beside a model there may be its code, its description and some sample data.
_NEVER_MODELS: Final = frozenset(
    {".cfg", ".csv", ".html", ".ipynb", ".md", ".npy", ".npz", ".parquet", ".png", ".py", ".pyc"}
    | {".rst", ".sh", ".toml", ".tsv", ".yaml", ".yml", ".jsonl"}
)
_MOST_NAMED: Final = 10


class ArchiveContainer:
    """Takes the one model out of an archive, in memory; nothing is extracted to disk."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Container.recognises`."""
        if source.content.startswith(MAGIC):
            names = member_names(source.content)
            return bool(names) and not model_in_zip(names)
        kind = compression_of(source.content)
        return is_tar(peek(source.content, kind) if kind else source.content)

    def open(self, source: Source) -> Opened:
        """See `modelport.scan.base.Container.open`."""
        where = str(source.path)
        findings: list[Finding] = []
        if source.content.startswith(MAGIC):
            archive = open_zip(source.content, where)
            findings += archive.findings
            files = {} if findings else {name: archive.read(name) for name in archive.sizes}
        else:
            content, kind = source.content, compression_of(source.content)
            if kind:
                outcome = decompress(content, kind, where=where)
                content = outcome.content
                if outcome.problem:
                    findings.append(
                        Finding("file", f"the {kind} compression", "archive", outcome.problem)
                    )
            files, found = read_tar(content, where)
            findings += found
        report = ScanReport("archive", findings=tuple(findings))
        if findings:
            return Opened(report, None)
        files = {name: content for name, content in files.items() if not _is_debris(name)}
        member = _model_among(source, files)
        return Opened(report, inner_source(source, files, member), _notes(source, files, member))


def _is_debris(name: str) -> bool:
    """What file managers leave in archives."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name in (".DS_Store", "Thumbs.db")


def _model_among(source: Source, files: Mapping[str, bytes]) -> str:
    """The one member that is a model: a file, or the folder that holds its parts."""
    folders = sorted(
        {
            path.parent.as_posix().removeprefix(".")
            for path in map(PurePosixPath, files)
            if path.name in FOLDER_MARKS
        }
    )
    # An MLflow folder may hold a SavedModel: the outer folder is the model.
    outer = [
        folder
        for folder in folders
        if not any(folder != other and _is_below(folder, other) for other in folders)
    ]
    models = outer + [
        name
        for name, content in files.items()
        if not any(_is_below(name, folder) for folder in outer)
        and _is_model(source, files, name, content)
    ]
    if len(models) == 1:
        return models[0]
    if not models and len(files) == 1:
        return next(iter(files))  # its scanner can say what is wrong with it
    if not models:
        raise NotFoundError("model in the archive", "any", sorted(files), where=str(source.path))
    raise InputError(
        f"the archive holds {len(models)} models: {', '.join(sorted(models)[:_MOST_NAMED])}",
        where=str(source.path),
        hint="unpack it, and name one of them",
    )


def _is_below(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


def _is_model(source: Source, files: Mapping[str, bytes], name: str, content: bytes) -> bool:
    if not content or PurePosixPath(name).suffix.lower() in _NEVER_MODELS:
        return False
    inner = inner_source(source, {name: content}, name)
    return any(
        record.load().recognises(inner)
        for kind in ("container", "scanner")
        for record in adapters_of(kind)
        if not record.missing()
    )


def _notes(source: Source, files: Mapping[str, bytes], member: str) -> tuple[str, ...]:
    unused = (
        sorted(name for name in files if name != member and not _is_below(name, member))
        if member
        else []
    )
    if not unused:
        return ()
    shown = ", ".join(unused[:_MOST_NAMED]) + (", …" if len(unused) > _MOST_NAMED else "")
    return (f"not used from {source.name}: {shown}",)
