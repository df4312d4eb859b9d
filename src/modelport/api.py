"""The verbs. Each takes plain values, does one thing, and returns a value.

The command line is a thin layer over this module; so is a notebook.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from modelport.core.artifact import Artifact
from modelport.core.errors import ConflictError, InputError, NotFoundError
from modelport.core.options import PackOptions, RegistryOptions, ServeOptions
from modelport.core.package import Package, is_package, open_package
from modelport.core.rows import Rows
from modelport.core.settings import resolve
from modelport.core.source import Source
from modelport.core.tensors import Array

if TYPE_CHECKING:
    from modelport.registry.history import ModelSummary
    from modelport.registry.records import AliasRecord, VersionRecord
    from modelport.registry.stage import Registry
    from modelport.serve.base import ModelSpec

Progress = Callable[[str], None]


def _quiet(line: str) -> None:
    """Report nothing."""


def pack(
    source: Any,
    name: str,
    *,
    sample: Any = None,
    out: str | Path = ".",
    options: PackOptions | None = None,
    progress: Progress = _quiet,
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
    sample : str, Path, ndarray, DataFrame or mapping of str to ndarray, optional
        Rows like those the model will see. Without them rows are made up, where possible.
    out : str or Path
        The folder in which the package folder is made.
    options : PackOptions, optional
    progress : callable, optional
        Told what happens, a line at a time.

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
    from modelport.core.manifest import check_name
    from modelport.package.stage import build_package

    options = options or PackOptions()
    check_name(name)
    artifact = _artifact(source, sample, options, progress)
    return build_package(artifact, name, Path(out), replace=options.replace)


def convert(
    source: Any,
    out: str | Path,
    *,
    sample: Any = None,
    options: PackOptions | None = None,
    progress: Progress = _quiet,
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
    artifact = _artifact(source, sample, options, progress)
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


def _artifact(source: Any, sample: Any, options: PackOptions, progress: Progress) -> Artifact:
    from modelport.convert.stage import convert as convert_source
    from modelport.scan.stage import audit

    if options.engine not in ("onnx", "native"):
        raise InputError(f"not an engine: {options.engine!r}", hint="onnx or native")
    rows = to_rows(sample) if sample is not None else None
    allow = [name for name in options.allow.replace(",", " ").split() if name]
    audited = audit(Source.of(source, factory=options.factory), trust=options.trust, allow=allow)
    return convert_source(audited, rows, native=options.engine == "native", progress=progress)


def inspect(package: str | Path) -> Package:
    """Open a package and verify every byte of it; nothing in it is executed.

    Raises
    ------
    NotFoundError, IntegrityError
    """
    return open_package(Path(package))


def serve(
    models: Sequence[str],
    *,
    options: ServeOptions | None = None,
    registry: RegistryOptions | None = None,
    report: Progress = _quiet,
) -> int:
    """Serve models until SIGTERM or SIGINT.

    Parameters
    ----------
    models : sequence of str
        Package folders, ``.onnx`` files, or ``name``, ``name@alias``, ``name@3`` of the
        registry.
    options : ServeOptions, optional
    registry : RegistryOptions, optional
    report : callable, optional
        Told what happens, a line at a time.

    Returns
    -------
    int
        The exit code.
    """
    from modelport.serve.stage import serve as serve_models

    specs = _resolve_models(models, registry or resolve(RegistryOptions))
    return serve_models(specs, options or resolve(ServeOptions), report)


def predict(
    model: str,
    rows: Any,
    *,
    registry: RegistryOptions | None = None,
) -> dict[str, Array]:
    """Predict with a package, a registered model or a running server.

    Parameters
    ----------
    model : str
        As `serve` takes it, or ``http://host:port/name``.
    rows : str, Path, ndarray, DataFrame or mapping of str to ndarray

    Returns
    -------
    dict of str to ndarray
        The outputs by name.

    Raises
    ------
    SignatureError
        When the rows do not fit the model.
    """
    data = to_rows(rows)
    if urlsplit(model).scheme in ("http", "https"):
        from modelport.serve.client import predict_remotely

        return predict_remotely(model, data)
    from modelport.adapters import find_adapter
    from modelport.engines.base import Engine, EngineOptions

    path = _resolve_models([model], registry or resolve(RegistryOptions))[0].path
    package = open_package(Path(path)) if Path(path).is_dir() else None
    engine: Engine = find_adapter(
        "engine", package.manifest.engine if package else "onnxruntime"
    ).load()
    loaded = engine.load(package.model_path if package else Path(path), EngineOptions())
    signature = package.manifest.signature if package else loaded.signature
    return loaded.run(data.bind(signature))


def push(
    package: str | Path | Package, *, registry: RegistryOptions | None = None
) -> VersionRecord:
    """Register a package as the next version of its model."""
    opened = package if isinstance(package, Package) else open_package(Path(package))
    return _registry(registry).push(opened)


def pull(
    reference: str, out: str | Path = ".", *, registry: RegistryOptions | None = None
) -> Package:
    """Write the package that ``name``, ``name@alias`` or ``name@3`` stands for to ``out/name``."""
    from modelport.registry.reference import Reference

    parsed = Reference.parse(reference)
    return _registry(registry).pull(parsed, Path(out) / parsed.model)


def list_models(*, registry: RegistryOptions | None = None) -> list[ModelSummary]:
    """All registered models."""
    return _registry(registry).models()


def promote(
    reference: str, alias: str, *, why: str = "", registry: RegistryOptions | None = None
) -> AliasRecord:
    """Point an alias at the version that ``name@3`` (or ``name@other-alias``) stands for."""
    opened = _registry(registry)
    record = opened.resolve(reference)
    return opened.promote(record.model, record.version, alias, why)


def rollback(
    name: str, alias: str, *, why: str = "", registry: RegistryOptions | None = None
) -> AliasRecord:
    """Point an alias back at what it pointed at before."""
    return _registry(registry).rollback(name, alias, why)


def history(
    name: str, *, registry: RegistryOptions | None = None
) -> list[VersionRecord | AliasRecord]:
    """All records of a model in time order, verified."""
    return _registry(registry).history(name)


def doctor(*, registry: RegistryOptions | None = None) -> dict[str, Any]:
    """Find out what can run here.

    Returns
    -------
    dict
        ``system``: facts for people; ``adapters``: one record each, ``install`` naming what
        would bring a missing one; ``healthy``: whether everything without an extra is there.
    """
    import platform

    from modelport import __version__
    from modelport.adapters import TABLE
    from modelport.serve.limits import usable_cores

    options = registry or resolve(RegistryOptions)
    adapters = []
    for adapter in TABLE:
        missing = adapter.missing()
        adapters.append(
            {
                "kind": adapter.kind,
                "name": adapter.name,
                "summary": adapter.summary,
                "missing": missing,
                "extra": adapter.extra,
                "install": _install_command(adapter.extra) if missing else "",
            }
        )
    return {
        "system": {
            "modelport": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": usable_cores(),
            "registry": options.registry,
        },
        "adapters": adapters,
        "healthy": not any(a["missing"] and not a["extra"] for a in adapters),
    }


def _install_command(extra: str) -> str:
    return f'pip install "modelport[{extra}]"' if extra else "pip install modelport"


def to_rows(data: Any) -> Rows:
    """Rows of a file, an array, a data frame or a mapping.

    Raises
    ------
    InputError
        When `data` is none of these.
    """
    if isinstance(data, Rows):
        return data
    if isinstance(data, str | Path):
        from modelport.data.base import read_rows

        return read_rows(Path(data))
    if isinstance(data, np.ndarray):
        return Rows({"": data})
    if isinstance(data, Mapping):
        return Rows({str(name): np.asarray(values) for name, values in data.items()})
    if hasattr(data, "columns") and hasattr(data, "to_numpy"):  # pandas and polars alike
        return Rows({str(name): _column(data[name]) for name in data.columns})
    raise InputError(
        f"no rows can be read from a {type(data).__name__}",
        hint="give a file name, a NumPy array, a data frame, or a mapping of columns",
    )


def _column(series: Any) -> Array:
    array = np.asarray(series.to_numpy())
    return array if array.dtype.kind in "biuf" else array.astype(object)


def _registry(options: RegistryOptions | None) -> Registry:
    from modelport.registry.stage import Registry
    from modelport.stores.base import open_store

    return Registry(open_store((options or resolve(RegistryOptions)).registry))


def _resolve_models(models: Sequence[str], registry: RegistryOptions) -> list[ModelSpec]:
    """Find out what each MODEL argument names; fetch what is in the registry."""
    from modelport.serve.base import ModelSpec

    specs: list[ModelSpec] = []
    for text in models:
        path = Path(text)
        if is_package(path):
            package = open_package(path)
            name, digest = package.manifest.name, package.digest
        elif path.suffix == ".onnx":
            if not path.is_file():
                raise NotFoundError(
                    "model file", text, [p.name for p in path.parent.glob("*.onnx")]
                )
            name, digest = _bare_name(path), ""
        elif path.exists() or "/" in text:
            raise NotFoundError(
                "package",
                text,
                [p.name for p in path.parent.glob("*") if is_package(p)],
                hint="a package is a folder made by 'modelport pack'",
            )
        else:
            specs.append(_from_registry(text, registry))
            continue
        taken = [spec.version for spec in specs if spec.name == name]
        specs.append(ModelSpec(name, max(taken, default=0) + 1, str(path), digest=digest))
    return specs


def _bare_name(path: Path) -> str:
    from modelport.core.manifest import check_name
    from modelport.scan.stage import audit

    audit(Source.of(path))
    return check_name(path.stem.lower().replace(" ", "-"))


def _from_registry(reference: str, options: RegistryOptions) -> ModelSpec:
    from modelport.registry.reference import Reference
    from modelport.serve.base import ModelSpec

    parsed = Reference.parse(reference)
    registry = _registry(options)
    record = registry.resolve(parsed)
    folder = Path(options.cache).expanduser() / record.manifest.replace(":", "-")
    if not is_package(folder):
        registry.pull(Reference(record.model, version=record.version), folder)
    labels = (parsed.alias,) if parsed.alias else ()
    return ModelSpec(record.model, record.version, str(folder), labels, record.manifest)
