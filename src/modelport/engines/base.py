"""What executes a model: for parity, evaluation, serving and batch alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from modelport.core.signature import Signature
from modelport.core.tensors import Array, Tensors

#: What runs an ``.onnx`` file that is in no package.
BARE_FILE_ENGINE: Final = "onnxruntime"
#: Their files can compute and nothing else; what the others load is scanned again before.
HARMLESS_ENGINES: Final = frozenset({"onnxruntime"})


@dataclass(frozen=True)
class EngineOptions:
    """How a model is executed.

    Parameters
    ----------
    threads : int
        Threads that one execution may use.
    optimize : bool
        False runs the model file operator by operator as written: the reference that
        optimized executions are compared with.
    """

    threads: int = 1
    optimize: bool = True


class LoadedModel(Protocol):
    """A model in memory. `run` may be called from several threads at once."""

    @property
    def signature(self) -> Signature:
        """The signature as the model file itself tells it."""
        ...

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """Execute the model.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Exactly the signature's inputs, checked by the caller.

        Raises
        ------
        EngineError
            When the model fails, with the engine's own message.
        """
        ...


class Engine(Protocol):
    """What an engine adapter does."""

    def load(self, model: Path | bytes, options: EngineOptions) -> LoadedModel:
        """Load a model file.

        Raises
        ------
        EngineError
            When the file is damaged or not for this engine.
        """
        ...
