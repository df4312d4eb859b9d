"""What the rounding of a graph's weights to float32 does to its answers.

An exporter writes float64 weights in float32, and the graph's own float64 answers have that error
too. Moving every weight by up to its rounding, at random, shows how far the answers can be off: a
difference of that size is explained, and nothing else is wrong with the graph.
"""

from __future__ import annotations

import copy
from typing import Final

import numpy as np
import onnx

from modelport.convert.diverge.onnx.graph import Graph
from modelport.convert.diverge.onnx.reference import Reference
from modelport.core.compare import Tolerance
from modelport.core.tensors import Array, Tensors

_DRAWS: Final = 6
#: Largest relative error of a number rounded to float32.
_HALF_STEP: Final = 2.0**-24
#: The true rounding is one more draw: it may go a few times as far as those that were made.
_MARGIN: Final = 4.0


class WeightRounding:
    """How far the weights' rounding moves every tensor.

    Parameters
    ----------
    graph : Graph
    observed, inputs : mapping of str to ndarray
        As for `modelport.convert.diverge.onnx.reference.Reference`.
    reference : Reference
        With the weights as they are.
    """

    def __init__(
        self, graph: Graph, observed: Tensors, inputs: Tensors, reference: Reference
    ) -> None:
        generator = np.random.default_rng(20261121)
        self._exact = reference.values
        self._draws = [
            Reference(_moved(graph, generator), observed, inputs).values for _ in range(_DRAWS)
        ]

    def explains(self, name: str, expected: Array, tolerance: Tolerance) -> bool:
        """Whether an output's difference from the source model can be the weights' rounding."""
        exact = self._exact.get(name)
        if exact is None or exact.shape != expected.shape:
            return False
        drawn = [draw[name] for draw in self._draws if name in draw]
        if expected.dtype.kind != "f":
            possible = [np.asarray(value == expected) for value in (exact, *drawn)]
            return bool(np.logical_or.reduce(possible).all())
        allowed = _MARGIN * self.spread(name) + tolerance.relative * np.abs(expected)
        allowed = allowed + tolerance.absolute * max(1.0, float(np.abs(expected).max(initial=0.0)))
        with np.errstate(invalid="ignore"):
            return bool((np.abs(exact - expected) <= allowed).all())

    def spread(self, name: str) -> Array:
        """The largest change of every element of a tensor."""
        exact = self._exact[name]
        apart = [np.abs(draw[name] - exact) for draw in self._draws if name in draw]
        return np.asarray(np.max(apart, axis=0)) if apart else np.zeros(exact.shape)

    def first(self, graph: Graph, tolerance: Tolerance) -> tuple[onnx.NodeProto, str] | None:
        """The first node whose output moves by more than the tolerance."""
        for node in graph.nodes:
            for name in node.output:
                exact = self._exact.get(name)
                if name not in graph.depends or exact is None or exact.dtype.kind != "f":
                    continue
                scale = max(1.0, float(np.abs(exact).max(initial=0.0)))
                allowed = tolerance.relative * np.abs(exact) + tolerance.absolute * scale
                # Moving the weights is a guess at their rounding: half is already too much.
                if (self.spread(name) > 0.5 * allowed).any():
                    return node, name
        return None


def _moved(graph: Graph, generator: np.random.Generator) -> Graph:
    """The graph with every float32 weight moved by up to its rounding."""

    def move(array: Array) -> Array:
        shift = generator.uniform(-_HALF_STEP, _HALF_STEP, size=array.shape)
        return np.asarray(array.astype(np.float64) * (1.0 + shift))

    model = copy.deepcopy(graph.model)
    for initializer in model.graph.initializer:
        if initializer.data_type == onnx.TensorProto.FLOAT:
            moved = move(onnx.numpy_helper.to_array(initializer))
            initializer.CopyFrom(onnx.numpy_helper.from_array(moved, initializer.name))
    result = Graph(model)
    # Attributes are float32 by their type: a weight among them moves by whole steps or not at all.
    for node in model.graph.node:
        for item in node.attribute:
            if item.type == onnx.AttributeProto.FLOATS and len(item.floats) > 1:
                steps = generator.integers(-1, 2, size=len(item.floats))
                values = np.asarray(item.floats, dtype=np.float32)
                up = np.nextafter(values, np.float32(np.inf))
                down = np.nextafter(values, np.float32(-np.inf))
                item.floats[:] = np.choose(steps + 1, [down, values, up]).tolist()
    return result
