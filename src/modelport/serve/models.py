"""The models of one worker: loading, proving, finding."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from modelport.adapters import find_adapter
from modelport.core.compare import OutputComparison
from modelport.core.errors import (
    IntegrityError,
    ModelportError,
    NotFoundError,
    ParityError,
    UnavailableError,
)
from modelport.core.package import Package, open_package
from modelport.core.signature import Signature
from modelport.core.tensors import STRING, Array
from modelport.engines.base import Engine, EngineOptions, LoadedModel
from modelport.processing.base import wrap
from modelport.serve.base import ModelIdentity, ModelSpec
from modelport.serve.batching import Batcher, LatencyModel
from modelport.serve.metrics import Metrics, ModelCounters

BARE_FILE_ENGINE = "onnxruntime"


class State(Enum):
    """Life of a served model, named as TF Serving names it."""

    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    END = "END"


@dataclass
class ServedModel:
    """One version of one model in this worker.

    Parameters
    ----------
    spec : ModelSpec
    counters : ModelCounters
    state : State
    identity : ModelIdentity or None
        None until it is loaded.
    batcher : Batcher or None
        None until it is loaded.
    error : str
        Why it is not available.
    proven : int
        How many golden records it has answered correctly; 0 for a bare file without any.
    """

    spec: ModelSpec
    counters: ModelCounters
    state: State = State.LOADING
    identity: ModelIdentity | None = None
    batcher: Batcher | None = None
    error: str = ""
    proven: int = 0

    def ready(self) -> tuple[ModelIdentity, Batcher]:
        """What is needed to answer.

        Raises
        ------
        UnavailableError
            While it loads, and when it could not be loaded.
        """
        if self.identity is None or self.batcher is None:
            raise UnavailableError(
                f"model {self.spec.name} version {self.spec.version} is not ready: "
                f"{self.error or self.state.value.lower()}"
            )
        return self.identity, self.batcher


@dataclass(frozen=True)
class LoadingOptions:
    """How models are loaded into a worker.

    Parameters
    ----------
    threads : int
        For one execution, and executions at once.
    max_batch, max_queue : int
        See `modelport.core.options.ServeOptions`.
    """

    threads: int = 1
    max_batch: int = 64
    max_queue: int = 1024


@dataclass
class ModelTable:
    """All models of one worker, by name and version.

    Parameters
    ----------
    models : sequence of ServedModel
    metrics : Metrics
        Model ``i`` of `models` has the counters ``i + 1``.
    options : LoadingOptions
    draining : bool
        True once the worker is asked to stop: it answers, and says that it is not ready.
    """

    models: Sequence[ServedModel]
    metrics: Metrics
    options: LoadingOptions = field(default_factory=LoadingOptions)
    draining: bool = False

    #: True when nothing about the models will change any more.
    settled: bool = False

    def __post_init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    @property
    def names(self) -> list[str]:
        """Model names, each once, in the order given."""
        return list(dict.fromkeys(model.spec.name for model in self.models))

    def versions(self, name: str) -> list[ServedModel]:
        """All versions of a model, oldest first.

        Raises
        ------
        NotFoundError
            Listing the models that there are.
        """
        found = [model for model in self.models if model.spec.name == name]
        if not found:
            raise NotFoundError("model", name, self.names)
        return sorted(found, key=lambda model: model.spec.version)

    def get(self, name: str, version: str | None = None, label: str | None = None) -> ServedModel:
        """One version: the one asked for, or the newest that is available.

        Raises
        ------
        NotFoundError
            Listing what there is.
        """
        versions = self.versions(name)
        if label is not None:
            labelled = [model for model in versions if label in model.spec.labels]
            if not labelled:
                labels = sorted({text for model in versions for text in model.spec.labels})
                raise NotFoundError(f"label of model {name}", label, labels)
            return labelled[-1]
        if version is not None:
            for model in versions:
                if str(model.spec.version) == version:
                    return model
            known = [str(model.spec.version) for model in versions]
            raise NotFoundError(f"version of model {name}", version, known)
        available = [model for model in versions if model.state is State.AVAILABLE]
        return (available or versions)[-1]

    def model_ready(self, model: ServedModel) -> bool:
        """Whether every worker can answer for this version."""
        index = next(i for i, other in enumerate(self.models, start=1) if other is model)
        return not self.draining and self.metrics.ready_everywhere(index)

    def ready(self) -> bool:
        """Whether every worker can answer for every model."""
        return all(self.model_ready(model) for model in self.models)

    def load_all(self) -> None:
        """Load and prove every model; called on a thread of its own.

        Raises
        ------
        ModelportError
            The first failure; nothing is served by halves.
        """
        for model in self.models:
            try:
                self._load(model)
            except ModelportError as error:
                model.state = State.END
                model.error = error.line
                raise
        self.settled = True

    def _load(self, model: ServedModel) -> None:
        path = Path(model.spec.path)
        package = open_package(path) if path.is_dir() else None
        if package is not None and model.spec.digest and package.digest != model.spec.digest:
            raise IntegrityError(
                f"package is {package.digest}, expected {model.spec.digest}", where=str(path)
            )
        engine_name = package.manifest.engine if package else BARE_FILE_ENGINE
        engine: Engine = find_adapter("engine", engine_name).load()
        model_path = package.model_path if package else path
        loaded = engine.load(model_path, EngineOptions(threads=self.options.threads))
        if package is not None:
            processed = with_processing(package, loaded)
            model.proven = prove(package, loaded if _golden_inside(package) else processed)
            loaded = processed
        signature = package.manifest.signature if package else loaded.signature
        model.batcher = self._batcher(loaded, signature, package, model.counters)
        platform = f"{engine_name}_{model_path.suffix.removeprefix('.')}"
        model.identity = ModelIdentity(model.spec.name, model.spec.version, signature, platform)
        model.state = State.AVAILABLE
        model.counters.set_ready(True)

    def _batcher(
        self,
        loaded: LoadedModel,
        signature: Signature,
        package: Package | None,
        counters: ModelCounters,
    ) -> Batcher:
        latency = self._latency(loaded, signature, package)
        proven = package is not None and package.manifest.row_independent
        may_share = proven and signature.batch_symbol is not None
        inline = latency is not None and latency.inline and _steady(package)
        max_rows = latency.rows_that_pay(self.options.max_batch) if latency and may_share else 1
        if not inline and self._executor is None:
            self._executor = ThreadPoolExecutor(self.options.threads, "modelport-inference")
        return Batcher(
            loaded.run,
            max_rows=max_rows,
            executor=None if inline else self._executor,
            threads=self.options.threads,
            same_shapes=all(
                isinstance(size, int) for spec in signature.inputs for size in spec.shape[1:]
            ),
            max_queue=self.options.max_queue,
            on_executed=counters.executed,
        )

    def _latency(
        self, loaded: LoadedModel, signature: Signature, package: Package | None
    ) -> LatencyModel | None:
        """Time the model on a golden record, or on zeros where that is possible."""
        golden = package.golden() if package is not None else None
        inside = package is not None and _golden_inside(package)
        if golden is not None and not inside and signature.batch_symbol is not None:
            row: dict[str, Array] | None = {n: a[:1] for n, a in golden.inputs.items()}
        else:
            row = zeros(signature)
        if row is None:
            return None
        try:
            return LatencyModel.measure(loaded.run, row)
        except ModelportError:
            return None  # zeros mean nothing to this model; it runs on threads


def with_processing(package: Package, loaded: LoadedModel) -> LoadedModel:
    """The model with the package's processing steps around it, where it has some.

    Raises
    ------
    IntegrityError
        When steps and manifest contradict each other.
    MissingPackageError
        When a step needs a package that is not installed.
    """
    processing = package.manifest.processing
    if processing is None:
        return loaded
    model = wrap(loaded, processing, package.processing_files())
    if model.signature != package.manifest.signature:
        raise IntegrityError(
            "the processing steps have another signature than the manifest",
            where=str(package.path),
        )
    return model


def _golden_inside(package: Package) -> bool:
    """Whether the golden records are the model's own tensors, not what clients send."""
    processing = package.manifest.processing
    return processing is not None and not processing.proven


def _steady(package: Package | None) -> bool:
    """Whether one request costs about as much as another of as many rows.

    However fast the golden records are, one large photograph must not hold the event loop.
    """
    processing = package.manifest.processing if package is not None else None
    return processing is None or processing.steady


def prove(package: Package, loaded: LoadedModel) -> int:
    """Replay a package's golden records.

    Returns
    -------
    int
        How many records were answered correctly; 0 when the package has none.

    Raises
    ------
    ParityError
        With the first output that differs.
    """
    golden = package.golden()
    if golden is None:
        return 0
    comparisons = golden.replay(
        loaded.run, package.manifest.tolerance, in_parts=package.manifest.row_independent
    )
    wrong: list[OutputComparison] = [item for item in comparisons if not item.agrees]
    if wrong:
        raise ParityError(
            f"golden records are not answered as the source model did: {wrong[0].describe()}",
            where=str(package.path),
            hint="the package, or this machine's engine, differs from where it was packed",
        )
    return golden.rows


def zeros(signature: Signature) -> dict[str, Array] | None:
    """One row of zeros (empty strings); None when a dimension other than the batch is unknown."""
    row = {}
    for spec in signature.inputs:
        if not spec.shape or any(not isinstance(size, int) for size in spec.shape[1:]):
            return None
        sizes = [size if isinstance(size, int) else 1 for size in spec.shape]
        row[spec.name] = np.full(sizes, "" if spec.dtype == STRING else 0, spec.numpy_dtype)
    return row
