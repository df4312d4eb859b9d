"""Which dimensions of a program's inputs may vary, found out by varying them.

A module does not say which sizes it takes. So it is called with the user's rows made longer and
shorter along each axis: an axis that the module takes in another size is dynamic. Axes that only
vary together (token ids and their mask) share a symbol. How the outputs follow tells their
symbols.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import torch

from modelport.convert.frameworks.torch.program import FlatModule
from modelport.convert.frameworks.torch.quiet import repeatable

BATCH: Final = "N"
#: The usual names of the axes behind the batch, by the number of dimensions.
_USUAL: Final = {2: ("L",), 3: ("L", "F"), 4: ("C", "H", "W"), 5: ("C", "D", "H", "W")}
#: Modules that take a size only in multiples take twice the size.
_FACTORS: Final = (2.0, 0.5)

#: So many axes of one size are still tried in every combination.
_MOST_COMBINED: Final = 6

Shape = tuple[int | str, ...]
Axis = tuple[int, int]


@dataclass(frozen=True)
class Dimensions:
    """Shapes of inputs and outputs, with symbols for what may vary.

    Parameters
    ----------
    inputs : tuple of tuple of int or str
        In the order of the feed.
    outputs : dict of str to tuple of int or str
    """

    inputs: tuple[Shape, ...]
    outputs: Mapping[str, Shape]

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols of the inputs, the batch first."""
        found = dict.fromkeys(d for shape in self.inputs for d in shape if isinstance(d, str))
        return tuple(sorted(found, key=lambda symbol: symbol != BATCH))

    def dynamic_axes(self) -> list[dict[int, str]]:
        """Per input its symbols by axis."""
        return [
            {axis: d for axis, d in enumerate(shape) if isinstance(d, str)} for shape in self.inputs
        ]


def resized(tensor: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """The same values, cropped or repeated along an axis."""
    positions = torch.arange(size) % tensor.shape[axis]
    return tensor.index_select(axis, positions).contiguous()


@dataclass(frozen=True)
class _Variation:
    """The shapes of the outputs when some axes have another size."""

    size: int
    outputs: Mapping[str, torch.Size]

    def moves(self, name: str, axis: int, shape: torch.Size) -> bool:
        """Whether an output has another size there than in `shape`."""
        return len(self.outputs[name]) != len(shape) or self.outputs[name][axis] != shape[axis]

    def follows(self, name: str, axis: int) -> bool:
        """Whether an output has the varied size there."""
        return tuple(self.outputs[name][axis : axis + 1]) == (self.size,)


@dataclass(frozen=True)
class Exploration:
    """What varying the inputs of a program has shown.

    Parameters
    ----------
    tensors : tuple of tensor
        The rows that were varied.
    groups : mapping of str to list of (int, int)
        By symbol the axes, as (input, axis), that vary together.
    """

    tensors: tuple[torch.Tensor, ...]
    groups: Mapping[str, Sequence[Axis]]
    _base: Mapping[str, torch.Size]
    _varied: Mapping[str, _Variation]

    def dimensions(self, kept: Collection[str]) -> Dimensions:
        """Shapes with the symbols in `kept`, and with sizes where others could be."""
        inputs = [list[int | str](tensor.shape) for tensor in self.tensors]
        for symbol in kept:
            for number, axis in self.groups[symbol]:
                inputs[number][axis] = symbol
        outputs = {name: self._follow(name, kept) for name in self._base}
        return Dimensions(tuple(tuple(shape) for shape in inputs), outputs)

    @classmethod
    def of_shapes(cls, flat: FlatModule, tensors: Sequence[torch.Tensor]) -> Exploration:
        """Nothing varied: only the shapes of these rows and of their answers."""
        return cls(tuple(tensors), {}, _Explorer(flat, list(tensors)).base, {})

    def size(self, symbol: str) -> int:
        """How large the explored rows are along the axes of a symbol."""
        number, axis = self.groups[symbol][0]
        return self.tensors[number].shape[axis]

    def _follow(self, name: str, kept: Collection[str]) -> Shape:
        """The symbols of one output's dimensions."""
        shape = self._base[name]
        varied = {symbol: self._varied[symbol] for symbol in self.groups if symbol in kept}
        result: list[int | str] = []
        for axis, size in enumerate(shape):
            moved = [s for s, v in varied.items() if v.moves(name, axis, shape)]
            if not moved:
                result.append(size)
                continue
            symbol = moved[0]
            follows = size == self.size(symbol) and varied[symbol].follows(name, axis)
            result.append(symbol if len(moved) == 1 and follows else f"{name}_{axis}")
        return tuple(result)


def explore(flat: FlatModule, tensors: Sequence[torch.Tensor]) -> Exploration:
    """Vary every axis of the inputs, alone and then together with others of its size.

    Parameters
    ----------
    flat : FlatModule
    tensors : sequence of tensor
        Some rows that it takes, at least two where it takes several.
    """
    explorer = _Explorer(flat, list(tensors))
    varied: dict[str, _Variation] = {}
    groups: dict[str, Sequence[Axis]] = {}
    batch = [(number, 0) for number, tensor in enumerate(tensors) if tensor.ndim]
    variation = explorer.vary(batch) if batch else None
    if variation is not None:
        groups[BATCH], varied[BATCH] = batch, variation
    left: list[Axis] = []
    for number, tensor in enumerate(tensors):
        for axis in range(tensor.ndim):
            if (number, axis) in groups.get(BATCH, ()):
                continue
            variation = explorer.vary([(number, axis)])
            if variation is None or explorer.mixes(variation, varied.get(BATCH)):
                left.append((number, axis))
                continue
            symbol = _symbol_for((number, axis), tensors, groups)
            groups[symbol], varied[symbol] = [(number, axis)], variation
    for size in dict.fromkeys(tensors[number].shape[axis] for number, axis in left):
        same = [(n, a) for n, a in left if tensors[n].shape[a] == size]
        for group, variation in explorer.largest_that_varies(same):
            symbol = _symbol_for(group[0], tensors, groups)
            groups[symbol], varied[symbol] = group, variation
    return Exploration(tuple(tensors), groups, explorer.base, varied)


class _Explorer:
    def __init__(self, flat: FlatModule, tensors: list[torch.Tensor]) -> None:
        self._flat = flat
        self._tensors = tensors
        self.base = self._shapes(tensors)

    def _shapes(self, tensors: Sequence[torch.Tensor]) -> dict[str, torch.Size]:
        with repeatable():
            return {name: t.shape for name, t in self._flat.answers(tensors).items()}

    def vary(self, group: Sequence[Axis]) -> _Variation | None:
        """Call the module with these axes in another size; None when it takes none."""
        number, axis = group[0]
        size = self._tensors[number].shape[axis]
        if size < 2:
            return None  # a size of 1 may be stretched, or squeezed out: too little to tell
        for other in (int(size * factor) for factor in _FACTORS):
            changed = list(self._tensors)
            for n, a in group:
                changed[n] = resized(changed[n], a, other)
            try:
                shapes = self._shapes(changed)
            except Exception:  # noqa: S112 - that it does not take the size is the answer
                continue
            if shapes.keys() == self.base.keys():
                return _Variation(other, shapes)
        return None

    def mixes(self, variation: _Variation, batch: _Variation | None) -> bool:
        """Whether another size turns into more rows: ``reshape(-1, features)`` does that."""
        return batch is not None and any(
            batch.moves(name, 0, shape) and variation.moves(name, 0, shape)
            for name, shape in self.base.items()
            if len(shape)
        )

    def largest_that_varies(
        self, axes: Sequence[Axis]
    ) -> Iterator[tuple[Sequence[Axis], _Variation]]:
        """The largest group of axes of one size that the module takes varied together."""
        sizes = [len(axes)] if len(axes) > _MOST_COMBINED else range(len(axes), 1, -1)
        for count in sizes:
            for group in combinations(axes, count):
                variation = self.vary(group)
                if variation is not None:
                    yield group, variation
                    return


def _symbol_for(
    first: Axis, tensors: Sequence[torch.Tensor], groups: Mapping[str, Sequence[Axis]]
) -> str:
    number, axis = first
    usual = _USUAL.get(tensors[number].ndim, ())
    symbol = usual[axis - 1] if 0 < axis <= len(usual) else f"D{axis}"
    if symbol not in groups:
        return symbol
    return f"{symbol}{sum(known.startswith(symbol) for known in groups) + 1}"
