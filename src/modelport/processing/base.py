"""What a processor adapter does, and how steps and a model become one model.

::

    outer inputs → input steps → the model's own inputs → model → its outputs → output steps → outer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from modelport.adapters import find_adapter
from modelport.core.compare import Tolerance
from modelport.core.errors import InputError
from modelport.core.processing import Processing
from modelport.core.signature import Signature
from modelport.core.steps import InputStep, Step
from modelport.core.tensors import STRING, Array, Tensors, TensorSpec


class Model(Protocol):
    """A model in memory; see `modelport.engines.base.LoadedModel`."""

    @property
    def signature(self) -> Signature:
        """The signature."""
        ...

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """Execute the model."""
        ...


@dataclass(frozen=True)
class Facts:
    """What is known of a model while steps are fitted to it.

    Parameters
    ----------
    signature : Signature or None
        The model's own; None before it has been exported, for frameworks that cannot tell
        before.
    files : mapping of str to bytes
        Those that the steps name.
    answers : mapping of str to ndarray
        Outputs of the model on sample rows; empty where there are none.
    """

    signature: Signature | None
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    answers: Tensors = field(default_factory=dict, repr=False)

    @property
    def known(self) -> Signature:
        """The signature, where it must be known: after the export."""
        if self.signature is None:
            raise InputError("the model's signature is not known")
        return self.signature

    @property
    def lead(self) -> int | str:
        """The batch dimension."""
        if self.signature is None:
            return "N"
        shape = self.signature.inputs[0].shape
        return shape[0] if shape else "N"

    def input_for(self, step: str, name: str, ranks: Sequence[int] = ()) -> TensorSpec | None:
        """The model's input that a step makes; None while the signature is unknown.

        Parameters
        ----------
        step : str
            The step's kind, for messages.
        name : str
            As declared; empty: the only input, or the only one of these `ranks`.

        Raises
        ------
        InputError
            When there is none, or no telling which.
        """
        if self.signature is None:
            return None
        specs = self.signature.inputs_by_name
        if name:
            if name not in specs:
                raise InputError(
                    f"the {step} step makes an input {name!r}; the model takes: {', '.join(specs)}"
                )
            return specs[name]
        fitting = [s for s in specs.values() if len(specs) == 1 or len(s.shape) in ranks]
        if len(fitting) == 1:
            return fitting[0]
        raise InputError(
            f"no telling which input the {step} step makes; the model takes: {', '.join(specs)}",
            hint="declare it: 'to'",
        )


class Transform(Protocol):
    """A step that is ready to run, on several threads at once."""

    @property
    def takes(self) -> tuple[TensorSpec, ...]:
        """What it reads: outer inputs, or outputs of the model."""
        ...

    @property
    def gives(self) -> tuple[TensorSpec, ...]:
        """What it writes: inputs of the model, or outer outputs."""
        ...

    @property
    def row_independent(self) -> bool:
        """False when a row's result depends on the rows beside it."""
        ...

    @property
    def library(self) -> str:
        """Name and version of what does the work; empty where NumPy does."""
        ...

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Everything in `gives`.

        Raises
        ------
        InputError
            For values that cannot be processed, naming the row.
        """
        ...


class Processor(Protocol):
    """What a processor adapter does."""

    def fit(self, step: Any, facts: Facts) -> Any:
        """The step with everything filled in that the model tells.

        Raises
        ------
        InputError
            When the step does not fit the model, or leaves open what the model does not tell.
        """
        ...

    def open(self, step: Any, facts: Facts) -> Transform:
        """Make a fitted step ready to run.

        Raises
        ------
        InputError
            When a file of the step is damaged.
        """
        ...


class RankedTransform(Transform, Protocol):
    """An output step that decides between classes."""

    def clear(self, tensors: Tensors, tolerance: Tolerance) -> Array:
        """Per row, whether no error within the tolerance changes the decision."""
        ...


def _processor(step: Step) -> Processor:
    loaded: Processor = find_adapter("processor", step.kind).load()
    return loaded


def fit_inputs(processing: Processing, facts: Facts) -> Processing:
    """Fit the input steps to a model, or to what is known of it."""
    steps = tuple(_fitted(step, facts, "inputs", i) for i, step in enumerate(processing.inputs))
    return replace(processing, inputs=steps)


def fit_outputs(processing: Processing, facts: Facts) -> Processing:
    """Fit the output steps to a model."""
    steps = tuple(_fitted(step, facts, "outputs", i) for i, step in enumerate(processing.outputs))
    return replace(processing, outputs=steps)


def _fitted(step: Any, facts: Facts, side: str, position: int) -> Any:
    try:
        return _processor(step).fit(step, facts)
    except InputError as error:
        error.where = error.where or f"{side}[{position}]"
        raise


def open_inputs(steps: Sequence[InputStep], facts: Facts) -> list[Transform]:
    """Make input steps ready to run.

    Raises
    ------
    InputError
        Also when two steps make one input.
    """
    opened = [_processor(step).open(step, facts) for step in steps]
    made = [spec.name for transform in opened for spec in transform.gives]
    if twice := sorted({name for name in made if made.count(name) > 1}):
        raise InputError(f"two steps make the same input: {', '.join(twice)}")
    return opened


class ProcessedModel:
    """A model with its steps around it, which looks like a model.

    Parameters
    ----------
    model : Model
        The engine's.
    processing : Processing
        Fitted; with the model's own signature.
    files : mapping of str to bytes
    """

    def __init__(self, model: Model, processing: Processing, files: Mapping[str, bytes]) -> None:
        inner = processing.signature or model.signature
        facts = Facts(inner, files)
        self.model = model
        self._inner = inner
        self._inputs = open_inputs(processing.inputs, facts)
        self._outputs = [_processor(step).open(step, facts) for step in processing.outputs]
        made = {spec.name for transform in self._inputs for spec in transform.gives}
        self._passed = tuple(spec for spec in inner.inputs if spec.name not in made)
        dropped = {step.output for step in processing.outputs if not step.keep}
        self._kept = tuple(spec for spec in inner.outputs if spec.name not in dropped)
        taken = [spec for transform in self._inputs for spec in transform.takes]
        given = [spec for transform in self._outputs for spec in transform.gives]
        self.signature = Signature((*taken, *self._passed), (*given, *self._kept))

    @property
    def row_independent(self) -> bool:
        """Whether all steps are."""
        return all(step.row_independent for step in (*self._inputs, *self._outputs))

    @property
    def libraries(self) -> list[str]:
        """Names and versions of what does the work."""
        named = (transform.library for transform in (*self._inputs, *self._outputs))
        return sorted({name for name in named if name})

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `modelport.engines.base.LoadedModel.run`; also raises `InputError`."""
        return self.finish(self.model.run(self.prepare(inputs)))

    def prepare(self, inputs: Tensors) -> dict[str, Array]:
        """The model's own inputs."""
        tensors = {spec.name: inputs[spec.name] for spec in self._passed}
        for transform in self._inputs:
            tensors.update(transform.run(inputs))
        return self._inner.check(tensors)

    def finish(self, answers: Tensors) -> dict[str, Array]:
        """The outer outputs, of the model's own."""
        outputs: dict[str, Array] = {}
        for transform in self._outputs:
            outputs.update(transform.run(answers))
        outputs.update((spec.name, answers[spec.name]) for spec in self._kept)
        return outputs

    def clear(self, answers: Tensors, tolerance: Tolerance) -> Array:
        """Per row, whether no error within the tolerance changes a decision."""
        rows = len(next(iter(answers.values())))
        clear = np.ones(rows, dtype=bool)
        for transform in self._outputs:
            if hasattr(transform, "clear"):
                clear &= transform.clear(answers, tolerance)
        return clear

    @property
    def decisions(self) -> frozenset[str]:
        """Names of the outer outputs that are labels."""
        gives = (spec for transform in self._outputs for spec in transform.gives)
        return frozenset(spec.name for spec in gives if spec.dtype == STRING)


def wrap(model: Model, processing: Processing, files: Mapping[str, bytes]) -> ProcessedModel:
    """A model that takes what clients send and gives what they get.

    Raises
    ------
    InputError
        When the steps do not fit the model, or one of their files is damaged.
    MissingPackageError
        When a step needs a package that is not installed.
    """
    return ProcessedModel(model, processing, files)
