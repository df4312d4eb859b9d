"""What a framework adapter does: read a source model, predict with it, export it.

The stage does the rest: it compares every export with the source model on the user's rows and
on rows made to hurt, and keeps the first export that gives the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.source import AuditedSource
from modelport.core.tensors import Array


@dataclass(frozen=True)
class Export:
    """A model in a portable format.

    Parameters
    ----------
    model : bytes
        The model file, for the engine.
    signature : Signature
        With the source's knowledge in it, as far as the file cannot tell: column names, the
        batch dimension. The stage finds out by itself whether NaN is refused.
    exporter : str
        Name and version of what wrote the file: ``skl2onnx 1.20.0``.
    opset : mapping of str to int
        Operator set versions by domain; ``""`` is ONNX's own.
    notes : tuple of str
        What people should know about this export: outputs that it leaves out.
    engine : str
        The engine adapter that runs it.
    file_name : str
        How the package calls the file; its ending is what the engine expects.
    """

    model: bytes
    signature: Signature
    exporter: str
    opset: Mapping[str, int]
    notes: tuple[str, ...] = ()
    engine: str = "onnxruntime"
    file_name: str = "model.onnx"


@dataclass(frozen=True)
class Attempt:
    """One way to export a source model.

    Parameters
    ----------
    name : str
        For the report: ``skl2onnx float32``.
    export : callable
        Does it; may raise any exception of the exporter, which the report then quotes.
    """

    name: str
    export: Callable[[], Export]


@dataclass(frozen=True)
class Probe:
    """Rows made to hurt.

    Parameters
    ----------
    name : str
        For the report: ``next to tree thresholds``.
    rows : Rows
        Columns named as the inputs of the export's signature.
    gate : bool
        True where a difference refuses the export; False where it is only reported, because
        the rows cannot be told apart in the served element type (float64 inputs rounded to
        float32).
    special : tuple of (str, str) or None
        The input that holds special values here, and which: ``nan`` or ``infinity``. When the
        source model refuses these rows, the served signature is made to refuse them too.
    """

    name: str
    rows: Rows
    gate: bool = True
    special: tuple[str, str] | None = None


class SourceModel(Protocol):
    """A source model in memory, in its own framework."""

    @property
    def task(self) -> str:
        """See `modelport.core.artifact.Artifact`."""
        ...

    @property
    def framework_version(self) -> str:
        """Name and version: ``scikit-learn 1.9.1``."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know about the source: versions that do not match."""
        ...

    def predict(self, rows: Rows) -> dict[str, Array]:
        """The source model's own answers, by output name, at its own precision.

        `rows` are the user's, or stand under the names of an export's inputs.

        Raises
        ------
        SignatureError
            When the columns do not fit the model.
        InputError
            When the model refuses the values (for example NaN), with its own message.
        """
        ...

    def attempts(self, rows: Rows | None) -> Sequence[Attempt]:
        """Ways to export, best first; `rows` tell the element types of columns.

        Raises
        ------
        UnsupportedError
            When there is none, or when it takes rows to tell.
        """
        ...

    def native(self, rows: Rows | None) -> Attempt | None:
        """The way to package the model for its own framework's engine; None where there is none.

        Tried only when the user asks for it.
        """
        ...

    def made_up_rows(self) -> Rows | None:
        """Rows for a model that came without a sample; None where none can be made."""
        ...

    def probes(self, rows: Rows) -> Sequence[Probe]:
        """Rows made to hurt, derived from the model's own insides and from `rows`.

        The stage adds those that any model gets (`modelport.convert.proof.probes`).
        """
        ...


@runtime_checkable
class Inspectable(Protocol):
    """A source model that shows its intermediate answers; optional.

    With them `modelport.convert.diverge` names the layer where an export parts from its source.
    """

    def layers(self, rows: Rows) -> Iterable[tuple[str, Array]]:
        """The answer of every layer for `rows`, in the order in which they are computed.

        Parameters
        ----------
        rows : Rows
            As `SourceModel.predict` takes them.

        Yields
        ------
        tuple of (str, ndarray)
            The layer's name (``fc2``, ``encoder.layer.0``, ``standardscaler``) and its output,
            at the framework's own precision. Layers without a floating-point output are left
            out; a layer that is called twice appears twice.
        """
        ...


@runtime_checkable
class Inexact(Protocol):
    """A source model that knows how exact its own answers are; optional.

    Deep networks in float32 answer a little differently in other batches, and when their inputs
    move by the last bit. No export can be closer to the source than the source is to itself.
    """

    def own_error(self, rows: Rows) -> Mapping[str, float]:
        """The largest difference among answers to the same rows, by output; 0 where there is none.

        Parameters
        ----------
        rows : Rows
            As `SourceModel.predict` takes them.
        """
        ...


class Framework(Protocol):
    """What a framework adapter does."""

    def recognises(self, audited: AuditedSource) -> bool:
        """Whether this source is for this framework; cheap, loads nothing."""
        ...

    def load(self, audited: AuditedSource) -> SourceModel:
        """Load a source that the scan has passed.

        Every word of people's interest that the framework prints (progress of long exports)
        stays off stdout: that is for data.

        Raises
        ------
        InputError
            When the file is damaged, or holds something that is not a model.
        """
        ...
