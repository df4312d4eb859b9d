"""What an export leaves dynamic, and the signature that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from modelport.convert.frameworks.torch.binding import Binding
from modelport.convert.frameworks.torch.dimensions import BATCH, Dimensions, Exploration
from modelport.convert.frameworks.torch.program import FlatModule
from modelport.convert.frameworks.torch.quiet import repeatable
from modelport.core.errors import UnsupportedError
from modelport.core.signature import Signature
from modelport.core.tensors import TensorSpec, dtype_name

#: The level at which nothing is dynamic.
FROZEN: Final = "frozen"


@dataclass(frozen=True)
class Plan:
    """All that an exporter needs.

    Parameters
    ----------
    binding : Binding
    flat : FlatModule
    tensors : tuple of tensor
        Example rows.
    signature : Signature
    dimensions : Dimensions
        With exactly those symbols that shall be dynamic.
    note : str
        What is not, and could have been.
    """

    binding: Binding
    flat: FlatModule
    tensors: tuple[torch.Tensor, ...]
    signature: Signature
    dimensions: Dimensions
    note: str = ""


@dataclass(frozen=True)
class LazyPlan:
    """A plan that costs a run of the model to make.

    Parameters
    ----------
    level : str
        What is dynamic, for people.
    make : callable
    """

    level: str
    make: Callable[[], Plan]


def plans_for(binding: Binding, flat: FlatModule, explored: Exploration) -> list[LazyPlan]:
    """What may be left dynamic, most first; the example rows are those explored."""
    symbols = set(explored.groups)
    rest = ", ".join(sorted(symbols - {BATCH}))

    def lazy(kept: set[str], note: str = "") -> LazyPlan:
        names = sorted(kept, key=lambda symbol: (symbol != BATCH, symbol))
        level = f"dynamic {', '.join(names)}" if kept else FROZEN
        return LazyPlan(level, lambda: _plan(binding, flat, explored, kept, note))

    if binding.program.settled:
        return [lazy(symbols)]  # its dimensions were settled when it was exported
    plans = [lazy(symbols)] if symbols else []
    if BATCH in symbols and rest:
        note = f"only the number of rows is dynamic: {rest} are frozen at the sample's sizes"
        plans.append(lazy({BATCH}, note))
    return plans


def frozen_plan(binding: Binding, flat: FlatModule, whole: Callable[[], Exploration]) -> LazyPlan:
    """Nothing is dynamic; the example rows are the whole sample."""

    def make() -> Plan:
        explored = whole()
        sizes = sorted({len(tensor) for tensor in explored.tensors if tensor.ndim})
        note = f"nothing is dynamic: the model takes exactly {sizes} rows at once, as the sample"
        return _plan(binding, flat, explored, set(), note)

    return LazyPlan(FROZEN, make)


def _plan(
    binding: Binding, flat: FlatModule, explored: Exploration, kept: set[str], note: str
) -> Plan:
    dimensions = explored.dimensions(kept)
    with repeatable():
        outputs = flat.answers(explored.tensors)
    signature = signature_of(binding, dimensions, outputs)
    return Plan(binding, flat, explored.tensors, signature, dimensions, note)


def signature_of(
    binding: Binding, dimensions: Dimensions, outputs: dict[str, torch.Tensor]
) -> Signature:
    """The signature of a program at these dimensions."""
    names = binding.feed.names
    return Signature(
        tuple(
            TensorSpec(name, _dtype(dtype), shape, _columns(binding, name, shape))
            for name, dtype, shape in zip(names, binding.dtypes, dimensions.inputs, strict=True)
        ),
        tuple(
            TensorSpec(name, _dtype(outputs[name].dtype), shape)
            for name, shape in dimensions.outputs.items()
        ),
    )


def _dtype(dtype: torch.dtype) -> str:
    try:
        return dtype_name(torch.zeros(0, dtype=dtype).numpy())
    except TypeError as error:
        raise UnsupportedError(
            f"the model has inputs or outputs of type {dtype}",
            hint="turn them into float32 inside forward",
        ) from error


def _columns(binding: Binding, name: str, shape: Sequence[int | str]) -> tuple[str, ...]:
    columns = binding.columns.get(name, ())
    return columns if shape and len(columns) == shape[-1] else ()


def notes_of(plan: Plan) -> tuple[str, ...]:
    """What is frozen."""
    constants = [f"{n} is frozen at {v}" for n, v in plan.binding.feed.constants.items()]
    return tuple(note for note in (plan.note, *constants) if note)
