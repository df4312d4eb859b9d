"""From a source model to a package: scan, convert, pack."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.api.rows import to_rows
from modelport.core.artifact import Artifact
from modelport.core.errors import ConflictError, InputError
from modelport.core.options import PackOptions
from modelport.core.package import Package, open_package
from modelport.core.source import Source

if TYPE_CHECKING:
    from modelport.core.processing import Declaration
    from modelport.scan.sweep import Verdict

Progress = Callable[[str], None]
Measure = Callable[[str, float], None]


def _quiet(line: str) -> None:
    """Report nothing."""


def _unmeasured(name: str, value: float) -> None:
    """Keep no measurement."""


def scan(
    source: Any, *, allow: str | Collection[str] = (), progress: Progress = _quiet
) -> list[Verdict]:
    """Say what loading a model would run, without loading it.

    Parameters
    ----------
    source : str, Path or object
        A model file or folder; a folder that is no model is searched for models.
    allow : str or collection of str
        Names that are no findings (``package.module.Class``); a text may list several.
    progress : callable, optional
        Told what happens on long searches, a line at a time.

    Returns
    -------
    list of Verdict
        One for each model.

    Raises
    ------
    InputError
        When the source is one model that cannot be read, or there is no model in it.
    """
    from modelport.scan.sweep import (
        inspect_source,
        is_model_folder,
        refuse_unknown_folder,
        sweep,
    )

    names = _names(allow) if isinstance(allow, str) else list(allow)
    folder = Path(source) if isinstance(source, str | Path) and Path(source).is_dir() else None
    if folder is None or is_model_folder(folder):
        return [inspect_source(Source.of(source), allow=names)]
    verdicts = sweep(folder, allow=names, progress=progress)
    if not verdicts:
        raise refuse_unknown_folder(folder)
    return verdicts


def pack(
    source: Any,
    name: str,
    *,
    sample: Any = None,
    out: str | Path = ".",
    options: PackOptions | None = None,
    processing: Mapping[str, Any] | None = None,
    progress: Progress = _quiet,
    measure: Measure = _unmeasured,
) -> Package:
    """Turn a source model into a package that is proven to give the same answers.

    The source is scanned before it is loaded, exported, compared with the original on the
    sample and on rows made to hurt, and written with its golden records.

    Parameters
    ----------
    source : str, Path or object
        A model file, or a live model.
    name : str
        The model's name; the package is written to ``out/name``.
    sample : str, Path, ndarray, DataFrame, mapping of str to ndarray, or list, optional
        Rows like those the model will see. Without them rows are made up, where possible. A list
        holds texts, encoded images (`bytes`), or files (`Path`).
    out : str or Path
        The folder in which the package folder is made.
    options : PackOptions, optional
    processing : mapping, optional
        What the file ``options.processing`` would hold: steps around the model, so that clients
        send images, texts or columns, and get labels.
    progress : callable, optional
        Told what happens, a line at a time.
    measure : callable, optional
        Told what was measured on this machine: ``load_ms``.

    Returns
    -------
    Package

    Raises
    ------
    InputError
        When the source or the sample cannot be used.
    UnsafeError
        When loading the source could run code.
    ParityError
        When no export gives the source's answers.

    Examples
    --------
    >>> package = pack(classifier, "digits", sample=X_test)  # doctest: +SKIP
    """
    from modelport.core.declarations import declare
    from modelport.core.manifest import check_name
    from modelport.package.stage import build_package

    options = options or PackOptions()
    check_name(name)
    declaration = declare(options, processing)
    artifact = _artifact(source, sample, options, progress, declaration, measure)
    return build_package(artifact, name, Path(out), replace=options.replace)


def convert(
    source: Any,
    out: str | Path,
    *,
    sample: Any = None,
    options: PackOptions | None = None,
    progress: Progress = _quiet,
    measure: Measure = _unmeasured,
) -> Artifact:
    """Convert a source model to one ``.onnx`` file, with the same proof as `pack`.

    Parameters
    ----------
    source : str, Path or object
        A model file or folder, or a live model.
    out : str or Path
        The file to write; written beside and renamed, so that it is whole or not there.
    sample : str, Path, ndarray, DataFrame or mapping of str to ndarray, optional
        As for `pack`.
    options : PackOptions, optional
        ``engine`` must be ``onnx``.
    progress : callable, optional
        Told what happens, a line at a time.
    measure : callable, optional
        Told what was measured on this machine: ``load_ms``.

    Returns
    -------
    Artifact
        With the parity report.

    Raises
    ------
    ConflictError
        When `out` exists with other content and ``options.replace`` is not set.
    InputError, UnsafeError, ParityError
        As `pack`.
    """
    from modelport.core.package import write_durably

    options = options or PackOptions()
    path = Path(out)
    if options.engine != "onnx" or path.suffix.lower() != ".onnx":
        raise InputError(
            f"convert writes one .onnx file, not {path.name}", hint="'modelport pack' does more"
        )
    if path.is_dir():
        raise ConflictError(f"a folder stands here: {path}")
    artifact = _artifact(source, sample, options, progress, measure=measure)
    content = artifact.files[artifact.model_file]
    if path.exists() and not options.replace and path.read_bytes() != content:
        raise ConflictError(f"another file exists: {path}", hint="--force replaces it")
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_durably(staged, content)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return artifact


def _artifact(
    source: Any,
    sample: Any,
    options: PackOptions,
    progress: Progress,
    declaration: Declaration | None = None,
    measure: Measure = _unmeasured,
) -> Artifact:
    from modelport.convert.stage import convert as convert_source
    from modelport.scan.stage import audit

    if options.engine not in ("onnx", "native"):
        raise InputError(f"not an engine: {options.engine!r}", hint="onnx or native")
    rows = to_rows(sample) if sample is not None else None
    audited = audit(
        Source.of(source, factory=options.factory, signature=options.signature),
        trust=options.trust,
        allow=_names(options.allow),
    )
    return convert_source(
        audited,
        rows,
        native=options.engine == "native",
        declaration=declaration,
        progress=progress,
        measure=measure,
    )


def _names(text: str) -> list[str]:
    """Names between commas or blanks."""
    return text.replace(",", " ").split()


def inspect(package: str | Path) -> Package:
    """Open a package and verify every byte of it; nothing in it is executed.

    Raises
    ------
    NotFoundError, IntegrityError
    """
    return open_package(Path(package))
