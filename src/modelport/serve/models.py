"""One served model: loading it, proving it, running it. `modelport.serve.table` has them all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from modelport.adapters import find_adapter
from modelport.core.compare import OutputComparison
from modelport.core.errors import (
    IntegrityError,
    ModelportError,
    ParityError,
    UnavailableError,
)
from modelport.core.package import Package, open_package
from modelport.core.signature import Signature
from modelport.core.tensors import STRING, Array
from modelport.engines.base import (
    BARE_FILE_ENGINE,
    HARMLESS_ENGINES,
    Engine,
    EngineOptions,
    LoadedModel,
)
from modelport.processing.base import wrap
from modelport.serve.base import ModelIdentity, ModelSpec
from modelport.serve.batching import Batcher, LatencyModel
from modelport.serve.metrics import Metrics, ModelCounters


class State(Enum):
    """Life of a served model, named as TF Serving names it."""

    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass
class ServedModel:
    """One version of one model in this worker.

    Parameters
    ----------
    spec : ModelSpec
    index : int
        Its number among the `modelport.serve.metrics.Metrics`.
    counters, thread_counters : ModelCounters
        Written by the event loop, and by other threads.
    state : State
    identity : ModelIdentity or None
        None unless it is loaded.
    batcher : Batcher or None
        None unless it is loaded.
    error : str
        Why it is not available.
    proven : int
        How many golden records it has answered correctly; 0 for a bare file without any.
    """

    spec: ModelSpec
    index: int
    counters: ModelCounters
    thread_counters: ModelCounters
    state: State = State.LOADING
    identity: ModelIdentity | None = None
    batcher: Batcher | None = None
    error: str = ""
    proven: int = 0

    @classmethod
    def of(cls, spec: ModelSpec, index: int, metrics: Metrics) -> ServedModel:
        """A model that is to be loaded, with its counters."""
        return cls(spec, index, *metrics.model(index))

    @property
    def in_flight(self) -> int:
        """Requests being answered now."""
        position = ModelCounters.IN_FLIGHT
        return int(self.counters.numbers[position] + self.thread_counters.numbers[position])

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
    max_batch, max_queue, timeout
        See `modelport.core.options.ServeOptions`.
    """

    threads: int = 1
    max_batch: int = 64
    max_queue: int = 1024
    timeout: float = 60.0


class Loader:
    """Loads and proves models; all that run on threads share one pool of them.

    Parameters
    ----------
    options : LoadingOptions
    """

    def __init__(self, options: LoadingOptions) -> None:
        self._options = options
        self._executor: ThreadPoolExecutor | None = None

    def load(self, model: ServedModel) -> None:
        """Load, prove, and open for requests.

        Raises
        ------
        ModelportError
            The model is then at its end, and says why.
        """
        try:
            self._load(model)
        except ModelportError as error:
            model.state = State.END
            model.error = error.line
            raise

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
        if package is None or engine_name not in HARMLESS_ENGINES:
            find_adapter("gate", "scan").load().check(model_path)
        loaded = engine.load(model_path, EngineOptions(threads=self._options.threads))
        if package is not None:
            processed = with_processing(package, loaded)
            model.proven = prove(package, loaded if _golden_inside(package) else processed)
            loaded = processed
        signature = package.manifest.signature if package else loaded.signature
        platform = f"{engine_name}_{model_path.suffix.removeprefix('.')}"
        model.batcher = self._batcher(loaded, signature, package, model)
        model.identity = ModelIdentity(model.spec.name, model.spec.version, signature, platform)
        model.state = State.AVAILABLE
        model.counters.set_ready(True)

    def _batcher(
        self,
        loaded: LoadedModel,
        signature: Signature,
        package: Package | None,
        model: ServedModel,
    ) -> Batcher:
        latency = _latency(loaded, signature, package)
        proven = package is not None and package.manifest.row_independent
        may_share = proven and signature.batch_symbol is not None
        inline = latency is not None and latency.inline and _steady(package)
        max_rows = latency.rows_that_pay(self._options.max_batch) if latency and may_share else 1
        if not inline and self._executor is None:
            self._executor = ThreadPoolExecutor(self._options.threads, "modelport-inference")
        return Batcher(
            loaded.run,
            max_rows=max_rows,
            executor=None if inline else self._executor,
            threads=self._options.threads,
            same_shapes=all(
                isinstance(size, int) for spec in signature.inputs for size in spec.shape[1:]
            ),
            max_queue=self._options.max_queue,
            timeout=self._options.timeout,
            counters=model.counters,
            thread_counters=model.thread_counters,
        )


def _latency(
    loaded: LoadedModel, signature: Signature, package: Package | None
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
