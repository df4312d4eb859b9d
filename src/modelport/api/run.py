"""From packages to answers: serve, predict."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modelport.api.register import open_registry
from modelport.api.rows import to_rows
from modelport.core.options import ClientOptions, RegistryOptions, ServeOptions
from modelport.core.package import is_package, open_package
from modelport.core.settings import resolve
from modelport.core.tensors import Array

if TYPE_CHECKING:
    from modelport.serve.base import ModelSpec

Progress = Callable[[str], None]


def _quiet(line: str) -> None:
    """Report nothing."""


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
        Package folders, ``.onnx`` files, folders of these, or ``name``, ``name@alias``,
        ``name@3`` of the registry. None: what ``MODELPORT_MODELS`` lists, or what the platform
        that runs this process put here.
    options : ServeOptions, optional
    registry : RegistryOptions, optional
    report : callable, optional
        Told what happens, a line at a time.

    Returns
    -------
    int
        The exit code.
    """
    from modelport.serve.discover import find_in_store, models_here, renamed
    from modelport.serve.platforms import detect
    from modelport.serve.stage import serve as serve_models

    detected = detect(os.environ)
    options = options or resolve(ServeOptions, platform=detected.options)
    registry = registry or resolve(RegistryOptions)
    if detected.platforms:
        report(f"found here: {', '.join(detected.platforms)}")
    specs = (
        resolve_models(models, registry)
        if models
        else models_here(os.environ, detected, none_needed=options.model_control)
    )
    find = find_in_store(options.model_store, partial(_find_registered, registry))
    return serve_models(renamed(specs, options.name), options, report, find)


def predict(
    model: str | Path,
    rows: Any,
    *,
    registry: RegistryOptions | None = None,
) -> dict[str, Array]:
    """Predict with a package, a registered model or a running server.

    Parameters
    ----------
    model : str or Path
        As `serve` takes it, or ``http://host:port/name``, to which ``MODELPORT_API_KEY`` is
        shown.
    rows : str, Path, ndarray, DataFrame, mapping of str to ndarray, or list
        As for `pack`.

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
    model = str(model)
    if urlsplit(model).scheme in ("http", "https"):
        from modelport.serve.client import predict_remotely

        return predict_remotely(model, data, resolve(ClientOptions).api_key)
    from modelport.adapters import find_adapter
    from modelport.engines.base import (
        BARE_FILE_ENGINE,
        HARMLESS_ENGINES,
        Engine,
        EngineOptions,
        LoadedModel,
    )

    path = resolve_models([model], registry or resolve(RegistryOptions))[0].path
    package = open_package(Path(path)) if Path(path).is_dir() else None
    engine_name = package.manifest.engine if package else BARE_FILE_ENGINE
    if package is None or engine_name not in HARMLESS_ENGINES:
        find_adapter("gate", "scan").load().check(package.model_path if package else Path(path))
    engine: Engine = find_adapter("engine", engine_name).load()
    loaded: LoadedModel = engine.load(
        package.model_path if package else Path(path), EngineOptions()
    )
    if package is None:
        return loaded.run(data.bind(loaded.signature))
    inputs = data.bind(package.manifest.signature)
    if package.manifest.processing is not None:
        from modelport.processing.base import wrap

        loaded = wrap(loaded, package.manifest.processing, package.processing_files())
    return loaded.run(inputs)


def resolve_models(models: Sequence[str], registry: RegistryOptions) -> list[ModelSpec]:
    """Find out what each MODEL argument names; fetch what is in the registry."""
    from modelport.serve.discover import models_in, numbered

    specs: list[ModelSpec] = []
    for text in models:
        path = Path(text)
        if path.exists() or "/" in text or path.suffix == ".onnx":
            specs += numbered(models_in(path), specs)
        else:
            specs.append(_from_registry(text, registry))
    return specs


def _find_registered(registry: RegistryOptions, name: str, place: str) -> list[ModelSpec]:
    return [_from_registry(name, registry)]


def _from_registry(reference: str, options: RegistryOptions) -> ModelSpec:
    from modelport.registry.reference import Reference
    from modelport.serve.base import ModelSpec

    parsed = Reference.parse(reference)
    registry = open_registry(options)
    record = registry.resolve(parsed)
    folder = Path(options.cache).expanduser() / record.manifest.replace(":", "-")
    if not is_package(folder):
        registry.pull(Reference(record.model, version=record.version), folder)
    open_package(folder)
    labels = (parsed.alias,) if parsed.alias else ()
    return ModelSpec(record.model, record.version, str(folder), labels, record.manifest)
