"""PyTorch models: what the convert stage asks of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from modelport.convert.base import Attempt, Probe
from modelport.convert.frameworks.torch.binding import Binding, bind, first_line
from modelport.convert.frameworks.torch.dimensions import BATCH, Exploration, explore
from modelport.convert.frameworks.torch.export import attempts_for
from modelport.convert.frameworks.torch.loading import FORMATS, is_torch, load_program
from modelport.convert.frameworks.torch.native import native_attempt
from modelport.convert.frameworks.torch.plans import LazyPlan, frozen_plan, plans_for
from modelport.convert.frameworks.torch.probes import probes_of_sizes, probes_of_tables
from modelport.convert.frameworks.torch.program import FlatModule, Program
from modelport.convert.frameworks.torch.quiet import repeatable
from modelport.convert.frameworks.torch.steady import check_steady
from modelport.core.errors import InputError, ModelportError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource
from modelport.core.tensors import Array

#: Rows that a program is explored with: an odd number, unlike most sizes in a model.
_EXPLORED: Final = 3
#: Elements that the source model is given at once; a thousand photographs would not fit.
_AT_ONCE: Final = 2**24
_MADE_UP: Final = 16


class TorchFramework:
    """Modules, exported programs, TorchScript, and weights for which there is a factory."""

    def recognises(self, audited: AuditedSource) -> bool:
        """See `modelport.convert.base.Framework.recognises`."""
        if audited.format == "object":
            return is_torch(audited.source.model)
        return audited.format in FORMATS

    def load(self, audited: AuditedSource) -> TorchSource:
        """See `modelport.convert.base.Framework.load`."""
        return TorchSource(*load_program(audited))


@dataclass(frozen=True)
class _Fitted:
    """A program that has seen rows."""

    binding: Binding
    flat: FlatModule
    explored: Exploration


class TorchSource:
    """A PyTorch model in evaluation mode.

    Parameters
    ----------
    program : Program
    notes : tuple of str
    """

    def __init__(self, program: Program, notes: tuple[str, ...]) -> None:
        self._program = program
        self._notes = notes
        self._fitted: _Fitted | None = None

    @property
    def task(self) -> str:
        """See `modelport.convert.base.SourceModel.task`; a module does not tell."""
        return "unknown"

    @property
    def framework_version(self) -> str:
        """See `modelport.convert.base.SourceModel.framework_version`."""
        return f"PyTorch {torch.__version__}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `modelport.convert.base.SourceModel.notes`."""
        return self._notes

    def predict(self, rows: Rows) -> dict[str, Array]:
        """See `modelport.convert.base.SourceModel.predict`."""
        fitted = self._fit(rows)
        tensors = fitted.binding.tensors(rows)
        pieces = []
        try:
            with repeatable():
                for part in _parts(tensors, BATCH in fitted.explored.groups):
                    answers = fitted.flat.answers(part)
                    pieces.append({name: t.detach().numpy() for name, t in answers.items()})
        except ModelportError:
            raise
        except Exception as error:  # modules raise whatever they like
            raise InputError(
                f"the source model refuses the rows: {first_line(error)}"
            ) from RuntimeError(first_line(error))
        if len(pieces) == 1:
            return {name: array.copy() for name, array in pieces[0].items()}
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def attempts(self, rows: Rows | None) -> Sequence[Attempt]:
        """Both exporters; dynamic as far as the module takes other sizes, then less."""
        return attempts_for(self._plans(self._some(rows)), self._program)

    def native(self, rows: Rows | None) -> Attempt:
        """A program of ``torch.export``, or TorchScript."""
        return native_attempt(self._plans(self._some(rows)))

    def made_up_rows(self) -> Rows | None:
        """The example inputs of an exported program, and more like them where it takes more."""
        exported = self._program.exported
        if exported is None or exported.example_inputs is None:
            return None
        positional, named = exported.example_inputs
        leaves = torch.utils._pytree.tree_leaves((positional, named))
        arrays = [leaf.detach().numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]
        names = [parameter.name for parameter in self._program.parameters]
        if len(arrays) != len(names) or len({a.shape[:1] for a in arrays}) != 1:
            return None
        columns = dict(zip(names, arrays, strict=True))
        try:
            fitted = self._fit(Rows(columns, "example inputs"))
        except InputError:
            return None
        if BATCH in fitted.explored.groups:
            generator = np.random.default_rng(20261121)
            columns = {name: _more(array, generator) for name, array in columns.items()}
        return Rows(columns, "made-up rows")

    def probes(self, rows: Rows) -> Sequence[Probe]:
        """Other lengths and image sizes, and the ends of embedding tables."""
        fitted = self._fit(rows)
        names = fitted.binding.feed.names
        if BATCH not in fitted.explored.groups or not set(names) <= rows.columns.keys():
            return []
        tables = probes_of_tables(rows, names, fitted.binding.dtypes, self._program)
        return [*probes_of_sizes(rows, names, fitted.explored), *tables]

    def own_error(self, rows: Rows) -> dict[str, float]:
        """See `modelport.convert.base.Inexact`: rows one by one, and moved by the last bit."""
        fitted = self._fit(rows)
        tensors = fitted.binding.tensors(rows)
        alone = []
        if BATCH in fitted.explored.groups:
            tensors = [tensor[:_EXPLORED] for tensor in tensors]
            alone = [[t[row : row + 1] for t in tensors] for row in range(len(tensors[0]))]
        moved = [
            torch.nextafter(t, torch.full_like(t, torch.inf)) if t.is_floating_point() else t
            for t in tensors
        ]
        with repeatable():
            whole = fitted.flat.answers(tensors)
            others = [fitted.flat.answers(moved)]
            singles = [fitted.flat.answers(row) for row in alone]
        if singles and all(len(v) == len(singles) for v in whole.values()):
            others.append({name: torch.cat([one[name] for one in singles]) for name in whole})
        return {
            name: max(_distance(answer, other[name]) for other in others)
            for name, answer in whole.items()
            if answer.is_floating_point()
        }

    def layers(self, rows: Rows) -> Iterator[tuple[str, Array]]:
        """See `modelport.convert.base.Inspectable`; TorchScript shows nothing."""
        fitted = self._fit(rows)
        seen: list[tuple[str, Array]] = []

        def watch(name: str, module: nn.Module) -> RemovableHandle:
            def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
                if isinstance(output, torch.Tensor) and output.is_floating_point():
                    seen.append((name, output.detach().numpy().copy()))

            return module.register_forward_hook(keep)

        if self._program.scripted or self._program.exported is not None:
            return
        handles = [watch(n, m) for n, m in self._program.module.named_modules() if n]
        try:
            with repeatable():
                fitted.flat.answers(fitted.binding.tensors(rows))
        finally:
            for handle in handles:
                handle.remove()
        yield from seen

    def _some(self, rows: Rows | None) -> Rows:
        if rows is None:
            raise UnsupportedError(
                "a PyTorch module does not say what it takes: it needs sample rows",
                hint="give some with --sample; arrays by name fit the arguments of forward: "
                "np.savez(path, NAME=array, ...)",
            )
        return rows

    def _fit(self, rows: Rows) -> _Fitted:
        """Settle on the first rows how rows become tensors, and what may vary."""
        if self._fitted is None:
            binding = bind(self._program, rows)
            flat = FlatModule(self._program, binding.feed)
            tensors = binding.tensors(rows)
            few = self._taken(flat, tensors)
            check_steady(self._program, flat, few)
            self._fitted = _Fitted(binding, flat, explore(flat, few))
        return self._fitted

    def _taken(self, flat: FlatModule, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """A few rows, or all of them where the model takes no others."""
        if self._program.settled:
            return tensors
        few = _few(tensors)
        try:
            with repeatable():
                flat.answers(few)
        except Exception:  # modules raise whatever they like
            return tensors
        return few

    def _plans(self, rows: Rows) -> list[LazyPlan]:
        """What to leave dynamic, most first; nothing at last, which costs a run of all rows."""
        fitted = self._fit(rows)
        binding, flat = fitted.binding, fitted.flat
        plans = plans_for(binding, flat, fitted.explored)
        if self._program.settled:
            return plans
        whole = partial(Exploration.of_shapes, flat, binding.tensors(rows))
        return [*plans, frozen_plan(binding, flat, whole)]


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    if one.shape != other.shape or not one.numel():
        return 0.0
    distance = (one.double() - other.double()).abs()
    return float(distance[torch.isfinite(distance)].max()) if distance.isfinite().any() else 0.0


def _few(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Three rows; a single row is repeated: of a size of 1 nothing can be learned."""
    counts = {len(tensor) for tensor in tensors if tensor.ndim}
    if len(counts) != 1:
        return list(tensors)
    count = counts.pop()
    chosen = torch.arange(_EXPLORED) % count
    return [tensor[chosen].contiguous() for tensor in tensors]


def _parts(tensors: Sequence[torch.Tensor], batch: bool) -> list[list[torch.Tensor]]:
    elements = max(tensor.numel() for tensor in tensors)
    if not batch or elements <= _AT_ONCE:
        return [list(tensors)]
    size = max(1, len(tensors[0]) * _AT_ONCE // elements)
    return [[t[start : start + size] for t in tensors] for start in range(0, len(tensors[0]), size)]


def _more(array: Array, generator: np.random.Generator) -> Array:
    chosen = np.arange(max(_MADE_UP, len(array))) % len(array)
    if array.dtype.kind != "f":
        return array[chosen]
    more = generator.normal(size=(len(chosen), *array.shape[1:])).astype(array.dtype)
    more[: len(array)] = array
    return more
