"""All models of one worker: finding them, and loading and unloading them while others answer."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from modelport.core.errors import (
    ConflictError,
    DeadlineError,
    ExhaustedError,
    ModelportError,
    NotFoundError,
    UnavailableError,
)
from modelport.serve.base import ModelSpec
from modelport.serve.limits import free_memory
from modelport.serve.metrics import Metrics, model_labels
from modelport.serve.models import Loader, LoadingOptions, ServedModel, State

#: Given a model's name and the place that a client names for it (or nothing), what to load.
#: Raises `NotFoundError`.
Finder = Callable[[str, str], Sequence[ModelSpec]]

#: Seconds that an unload waits for requests that still run.
_DRAIN_SECONDS: Final = 60.0
#: What loading takes beside the file itself: the engine's own copy, and its work space.
_TIMES_ITS_SIZE: Final = 2


class ModelTable:
    """The models of one worker, by name and version.

    Parameters
    ----------
    specs : sequence of ModelSpec
        Spec ``i`` has the metrics ``i + 1``. The first is the default model.
    metrics : Metrics
    options : LoadingOptions
    find : callable or None
        How `load` finds what a client names; None: clients may not load and unload.
    """

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        metrics: Metrics,
        options: LoadingOptions | None = None,
        find: Finder | None = None,
    ) -> None:
        #: Replaced as a whole, never changed: requests are answered meanwhile.
        self.models = [
            ServedModel.of(spec, index, metrics) for index, spec in enumerate(specs, start=1)
        ]
        self.metrics = metrics
        #: True once the worker is asked to stop: it answers, and says that it is not ready.
        self.draining = False
        #: Grows with every change of `models`.
        self.generation = 0
        self._loader = Loader(options or LoadingOptions())
        self._find = find
        #: The event loop that answers requests; see `attach`.
        self.loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        #: By name: who holds off others, and how many hold or wait.
        self._busy: dict[str, tuple[threading.Lock, int]] = {}
        self._on_change: list[Callable[[], object]] = []

    @property
    def names(self) -> list[str]:
        """Model names, each once, in the order given."""
        return list(dict.fromkeys(model.spec.name for model in self.models))

    def versions(self, name: str) -> list[ServedModel]:
        """All versions of a model, oldest first; an empty name: of the default model.

        Raises
        ------
        NotFoundError
            Listing the models that there are.
        """
        models = self.models
        if not name and models:
            name = models[0].spec.name
        found = [model for model in models if model.spec.name == name]
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
        return not self.draining and self.metrics.ready_everywhere(model.index)

    def ready(self) -> bool:
        """Whether every worker can answer for every model that is not unloaded."""
        wanted = [model for model in self.models if model.state is not State.END or model.error]
        return not self.draining and all(self.model_ready(model) for model in wanted)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which event loop answers requests, so that other threads can join its queues."""
        self.loop = loop
        for model in self.models:
            if model.batcher is not None:
                model.batcher.attach(loop)

    def on_change(self, forget: Callable[[], object]) -> None:
        """Have `forget` called, on any thread, when `models` has changed."""
        self._on_change.append(forget)

    def load_all(self) -> None:
        """Load and prove every model; called on a thread of its own.

        Raises
        ------
        ModelportError
            The first failure; nothing is served by halves.
        """
        for model in self.models:
            self._loader.load(model)
            if self.loop is not None and model.batcher is not None:
                model.batcher.attach(self.loop)
        self._changed()

    def load(self, name: str, place: str = "", *, again: bool = True) -> list[ServedModel]:
        """Load a model that a client names, and prove it, while others are served.

        Parameters
        ----------
        name : str
        place : str
            Where the client says that it is; empty: wherever models of that name are.
        again : bool
            What is loaded already stays and answers; False: that is an error.

        Returns
        -------
        list of ServedModel
            All versions that were found, available.

        Raises
        ------
        ConflictError
            It is loaded already, and `again` is false.
        ExhaustedError
            When there is no memory for it.
        ModelportError
            It cannot be found, read or proven; what was served is served as before.
        """
        find = self._controlled()
        with self._alone(name):
            loaded = [m for m in self.models if m.spec.name == name and m.state is State.AVAILABLE]
            if loaded and not again:
                raise ConflictError(f"model {name} is loaded already")
            specs = self._specs_of(name, place, find)
            kept = {model.spec for model in loaded}
            fresh = [self._load_beside(spec) for spec in specs if spec not in kept]
            replaced = {(model.spec.name, model.spec.version) for model in fresh}
            self._replace(
                lambda models: [
                    *(m for m in models if (m.spec.name, m.spec.version) not in replaced),
                    *fresh,
                ]
            )
            return [model for model in self.models if model.spec.name == name]

    def unload(self, name: str, version: str | None = None, *, forget: bool = False) -> None:
        """End a model: refuse new requests, finish those that run, give back the memory.

        Parameters
        ----------
        name : str
        version : str or None
            None: all versions.
        forget : bool
            Forget the name, too; otherwise `load` finds the model again where it was.

        Raises
        ------
        NotFoundError
            When no such model is loaded.
        """
        self._controlled()
        with self._alone(name):
            chosen = [
                model
                for model in (self.versions(name) if version is None else [self.get(name, version)])
                if model.state is not State.END
            ]
            if not chosen:
                raise NotFoundError("loaded model", name, self._available())
            for model in chosen:
                self._end(model)
            if forget:
                self._replace(lambda models: [m for m in models if m not in chosen])
                for model in chosen:
                    self.metrics.remove(model.index)
            else:
                self._changed()
            _give_back_memory()

    def _controlled(self) -> Finder:
        if self._find is None:
            raise UnavailableError(
                "explicit model load / unload is not allowed",
                hint="start the server with --model-control",
            )
        return self._find

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Hold off others who load or unload the same model; other models are not concerned."""
        with self._lock:
            lock, users = self._busy.get(name) or (threading.Lock(), 0)
            self._busy[name] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:  # clients may name whatever they like: nothing of it is kept
            with self._lock:
                users = self._busy[name][1] - 1
                self._busy[name] = (lock, users)
                if not users:
                    del self._busy[name]

    def _specs_of(self, name: str, place: str, find: Finder) -> Sequence[ModelSpec]:
        if not place:
            known = [model.spec for model in self.models if model.spec.name == name]
            if known:
                return known
        specs = find(name, place)
        if not specs:
            raise NotFoundError("model", name, self.names)
        return specs

    def _load_beside(self, spec: ModelSpec) -> ServedModel:
        needed = _size_of(Path(spec.path)) * _TIMES_ITS_SIZE
        free = free_memory()
        if free is not None and needed > free:
            raise ExhaustedError(
                f"not enough memory for model {spec.name}: it needs about {needed >> 20} MiB, "
                f"{free >> 20} MiB are free"
            )
        label = model_labels(spec.name, spec.version)
        model = ServedModel.of(spec, self.metrics.add(label), self.metrics)
        try:
            self._loader.load(model)
        except (ModelportError, MemoryError) as error:
            if all(other.index != model.index for other in self.models):
                self.metrics.remove(model.index)
            if isinstance(error, ModelportError):
                raise
            raise ExhaustedError(f"not enough memory for model {spec.name}") from error
        if self.loop is not None and model.batcher is not None:
            model.batcher.attach(self.loop)
        return model

    def _end(self, model: ServedModel) -> None:
        model.state = State.UNLOADING
        model.error = "unloaded"
        model.counters.set_ready(False)
        model.identity = None
        deadline = time.monotonic() + _DRAIN_SECONDS
        while model.in_flight:
            if time.monotonic() > deadline:
                raise DeadlineError(
                    f"model {model.spec.name} still answers requests after {_DRAIN_SECONDS:g} s"
                )
            time.sleep(0.005)
        model.batcher = None
        model.state = State.END
        model.error = ""

    def _replace(self, change: Callable[[list[ServedModel]], list[ServedModel]]) -> None:
        with self._lock:
            self.models = change(self.models)
        self._changed()

    def _changed(self) -> None:
        self.generation += 1
        for forget in self._on_change:
            forget()

    def _available(self) -> list[str]:
        return [model.spec.name for model in self.models if model.state is State.AVAILABLE]


def _size_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _give_back_memory() -> None:
    """Free what the unloaded model held, down to the system where the C library can."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone
        ctypes.CDLL(None).malloc_trim(0)
