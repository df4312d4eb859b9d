"""From packages to answers: serve, predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from modelport.api.register import open_registry
from modelport.api.rows import to_rows
from modelport.core.errors import NotFoundError
from modelport.core.options import RegistryOptions, ServeOptions
from modelport.core.package import Package, is_package, open_package
from modelport.core.settings import resolve
from modelport.core.source import Source
from modelport.core.tensors import Array

if TYPE_CHECKING:
    from modelport.serve.base import ModelSpec

Progress = Callable[[str], None]

#: Its files can compute and nothing else.
_HARMLESS_ENGINE: Final = "onnxruntime"


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
    model: str | Path,
    rows: Any,
    *,
    registry: RegistryOptions | None = None,
) -> dict[str, Array]:
    """Predict with a package, a registered model or a running server.

    Parameters
    ----------
    model : str or Path
        As `serve` takes it, or ``http://host:port/name``.
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

        return predict_remotely(model, data)
    from modelport.adapters import find_adapter
    from modelport.engines.base import Engine, EngineOptions, LoadedModel

    path = _resolve_models([model], registry or resolve(RegistryOptions))[0].path
    package = open_package(Path(path)) if Path(path).is_dir() else None
    engine: Engine = find_adapter(
        "engine", package.manifest.engine if package else _HARMLESS_ENGINE
    ).load()
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


def _resolve_models(models: Sequence[str], registry: RegistryOptions) -> list[ModelSpec]:
    """Find out what each MODEL argument names; fetch what is in the registry."""
    from modelport.serve.base import ModelSpec

    specs: list[ModelSpec] = []
    for text in models:
        path = Path(text)
        if is_package(path):
            package = _checked(path)
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


def _checked(path: Path) -> Package:
    """Open a package; scan its model file where the engine may be made to run what is in it.

    A digest proves that nobody changed the file since, not that the one who packed it meant well.
    What the packer allowed counts for nothing here: this is another machine.
    """
    package = open_package(path)
    if package.manifest.engine != _HARMLESS_ENGINE:
        from modelport.scan.stage import audit

        audit(Source.of(package.model_path))
    return package


def _bare_name(path: Path) -> str:
    from modelport.core.manifest import check_name
    from modelport.scan.stage import audit

    audit(Source.of(path))
    return check_name(path.stem.lower().replace(" ", "-"))


def _from_registry(reference: str, options: RegistryOptions) -> ModelSpec:
    from modelport.registry.reference import Reference
    from modelport.serve.base import ModelSpec

    parsed = Reference.parse(reference)
    registry = open_registry(options)
    record = registry.resolve(parsed)
    folder = Path(options.cache).expanduser() / record.manifest.replace(":", "-")
    if not is_package(folder):
        registry.pull(Reference(record.model, version=record.version), folder)
    _checked(folder)
    labels = (parsed.alias,) if parsed.alias else ()
    return ModelSpec(record.model, record.version, str(folder), labels, record.manifest)
