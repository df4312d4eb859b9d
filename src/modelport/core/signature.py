"""The named, typed, shaped inputs and outputs of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from modelport.core.errors import SignatureError
from modelport.core.tensors import Array, Tensors, TensorSpec

_ROWS: Final = "rows"


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives.

    Parameters
    ----------
    inputs, outputs : tuple of TensorSpec
        In the model's own order; names are unique on each side.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        for side, specs in (("input", self.inputs), ("output", self.outputs)):
            names = [spec.name for spec in specs]
            if not names:
                raise SignatureError(f"a model needs at least one {side}")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise SignatureError(f"{side} names repeat: {', '.join(twice)}")

    @cached_property
    def inputs_by_name(self) -> dict[str, TensorSpec]:
        """Inputs by name, in order."""
        return {spec.name: spec for spec in self.inputs}

    @cached_property
    def outputs_by_name(self) -> dict[str, TensorSpec]:
        """Outputs by name, in order."""
        return {spec.name: spec for spec in self.outputs}

    @cached_property
    def batch_symbol(self) -> str | None:
        """The symbol that leads every input and every output, if there is one."""
        return self._lead if isinstance(self._lead, str) else None

    @cached_property
    def fixed_batch(self) -> int:
        """The number that leads every input and every output; 0: a symbol does, or nothing."""
        return self._lead if isinstance(self._lead, int) else 0

    @cached_property
    def _lead(self) -> int | str:
        leads = {spec.shape[0] if spec.shape else 0 for spec in (*self.inputs, *self.outputs)}
        return leads.pop() if len(leads) == 1 else 0

    def of_any_rows(self) -> Signature:
        """What fits a whole file, also where the model takes a fixed number of rows at a time."""
        if not self.fixed_batch:
            return self
        inputs, outputs = (
            tuple(replace(spec, shape=(_ROWS, *spec.shape[1:])) for spec in specs)
            for specs in (self.inputs, self.outputs)
        )
        return Signature(inputs, outputs)

    def check(self, tensors: Tensors) -> dict[str, Array]:
        """Check that `tensors` are exactly this signature's inputs.

        Returns
        -------
        dict of str to ndarray
            The same arrays, in signature order, each as `TensorSpec.check` returns it.

        Raises
        ------
        SignatureError
            Missing or extra names, a wrong element type or shape, or two inputs that give
            one symbolic dimension two sizes.
        """
        specs = self.inputs_by_name
        if tensors.keys() != specs.keys():
            missing = [name for name in specs if name not in tensors]
            extra = [name for name in tensors if name not in specs]
            parts = []
            if missing:
                parts.append(f"missing input: {', '.join(missing)}")
            if extra:
                parts.append(f"unknown input: {', '.join(extra)}")
            raise SignatureError(f"{'; '.join(parts)}; the model takes: {', '.join(specs)}")
        checked = {name: spec.check(tensors[name]) for name, spec in specs.items()}
        if len(checked) > 1:
            self._check_symbols(checked)
        return checked

    def _check_symbols(self, tensors: Tensors) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for spec in self.inputs:
            for size, dimension in zip(tensors[spec.name].shape, spec.shape, strict=True):
                if isinstance(dimension, str):
                    first, owner = sizes.setdefault(dimension, (size, spec.name))
                    if first != size:
                        raise SignatureError(
                            f"dimension {dimension} is {first} in input {owner} "
                            f"and {size} in input {spec.name}",
                            where=spec.name,
                        )

    def to_json(self) -> dict[str, Any]:
        """The plain form that the manifest stores."""
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Signature:
        """The inverse of `to_json`."""
        return cls(
            inputs=tuple(TensorSpec.from_json(item) for item in plain["inputs"]),
            outputs=tuple(TensorSpec.from_json(item) for item in plain["outputs"]),
        )
