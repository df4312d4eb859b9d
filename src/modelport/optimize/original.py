"""A package's model in this process: what prepares rows for variants, and finishes answers."""

from __future__ import annotations

import os
from collections.abc import Mapping

from modelport.adapters import find_adapter
from modelport.core.package import Package
from modelport.core.signature import Signature
from modelport.core.tensors import Tensors
from modelport.engines.base import Engine, EngineOptions, LoadedModel
from modelport.optimize.base import Variant
from modelport.processing.base import ProcessedModel, wrap


def variant_of(name: str, package: Package) -> Variant:
    """A package's model as something to measure."""
    return Variant(name, package.model_path.read_bytes(), engine=package.manifest.engine)


def one_core() -> set[int]:
    """The core on which processes are measured; empty where the system does not pin them."""
    return {max(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else set()


class Original:
    """A package's model, with the processing around it.

    Parameters
    ----------
    package : Package
    threads : int
    """

    def __init__(self, package: Package, threads: int) -> None:
        engine: Engine = find_adapter("engine", package.manifest.engine).load()
        loaded: LoadedModel = engine.load(package.model_path, EngineOptions(threads=threads))
        self.task = package.manifest.task
        self.signature: Signature = loaded.signature
        self._processing = package.manifest.processing
        # It may take ten times its file.
        self._loaded = loaded if self._processing is not None else None
        self._files = package.processing_files()
        self._wrapped = self._wrap({})

    def _wrap(self, files: Mapping[str, bytes]) -> ProcessedModel | None:
        if self._processing is None or self._loaded is None:
            return None
        return wrap(self._loaded, self._processing, {**self._files, **files})

    def prepare(self, variant: Variant, rows: Tensors) -> Tensors:
        """The engine's inputs."""
        wrapped = self._wrap(variant.files) if variant.files else self._wrapped
        return rows if wrapped is None else wrapped.prepare(rows)

    def finish(self, answers: Tensors) -> Tensors:
        """What clients get."""
        return answers if self._wrapped is None else self._wrapped.finish(answers)

    @property
    def fixed(self) -> int:
        """The only batch size that the model takes; 0: it takes any."""
        return self.signature.fixed_batch
