"""An ONNX graph whose tensors can be seen."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from modelport.adapters import find_adapter
from modelport.core.errors import ModelportError
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import Engine, EngineOptions, LoadedModel

#: Operators whose outputs are no tensors, or whose insides have names of their own.
_NOT_FOLLOWED: Final = {
    "ZipMap", "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase",
    "SplitToSequence", "SequenceMap", "Optional", "DictVectorizer", "CastMap",
}  # fmt: skip
#: Operators that draw numbers.
RANDOM: Final = {
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
    "Bernoulli",
}  # fmt: skip
#: From this opset on batch normalization has a training mode.
_TRAINING_MODE: Final = 14
_CONTROL: Final = {"If", "Loop", "Scan", "SequenceMap"}


class Graph:
    """An ONNX model, with its nodes in topological order.

    Parameters
    ----------
    model : onnx.ModelProto
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.outputs: list[str] = [value.name for value in model.graph.output]

    @cached_property
    def _opset(self) -> int:
        return next((o.version for o in self.model.opset_import if not o.domain), 1)

    @cached_property
    def constants(self) -> dict[str, Array]:
        """Values of initializers, and of what is computed from nothing else, by name."""
        values = {i.name: numpy_helper.to_array(i) for i in self.model.graph.initializer}
        for node in self.nodes:
            if node.output[0] in self.depends or node.op_type in RANDOM or is_control(node):
                continue
            with contextlib.suppress(Exception):  # the reference implementation has not all
                made = self.run_node(node, values_for(node, {}, values))
                values.update(zip((o for o in node.output if o), made, strict=True))
        return values

    @cached_property
    def inputs(self) -> list[str]:
        """Names of what is fed."""
        given = {i.name for i in self.model.graph.initializer}
        return [value.name for value in self.model.graph.input if value.name not in given]

    @cached_property
    def depends(self) -> dict[str, frozenset[str]]:
        """Tensor → all tensors that it is computed from, where it depends on an input."""
        known: dict[str, frozenset[str]] = {name: frozenset() for name in self.inputs}
        for node in self.nodes:
            taken = [name for name in inputs_of(node) if name in known]
            if taken:
                before = frozenset(taken).union(*(known[name] for name in taken))
                known.update(dict.fromkeys((o for o in node.output if o), before))
        return known

    @cached_property
    def visible(self) -> list[str]:
        """Tensors that depend on an input, and that can be made outputs; in order."""
        return [
            name
            for node in self.nodes
            if node.op_type not in _NOT_FOLLOWED
            for name in node.output
            if name in self.depends
        ]

    @cached_property
    def maker(self) -> dict[str, onnx.NodeProto]:
        """Tensor → the node that computes it."""
        return {name: node for node in self.nodes for name in node.output if name}

    def label(self, node: onnx.NodeProto) -> str:
        """The node for people: ``/fc2/Gemm (Gemm)``."""
        name = node.name or f"number {self._number(node)} of {len(self.nodes)}"
        return f"{name} ({node.op_type})"

    def _number(self, node: onnx.NodeProto) -> int:
        return next(i for i, other in enumerate(self.nodes, 1) if other.output == node.output)

    def between(self, start: Iterable[str], end: Iterable[str]) -> list[onnx.NodeProto]:
        """The nodes that compute `end` from `start` and constants, in order."""
        stop = set(start)
        wanted, chosen = set(end) - stop, []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                chosen.append(node)
                wanted |= {name for name in inputs_of(node) if name in self.depends} - stop
        return chosen[::-1]

    def load(self, *, optimize: bool, expose: Sequence[str] = ()) -> LoadedModel:
        """Load it into the engine, with more of its tensors as outputs.

        Raises
        ------
        EngineError
        """
        model = copy.deepcopy(self.model)
        for name in expose:
            if name not in self.outputs:
                # The engine infers the type.
                model.graph.output.append(onnx.ValueInfoProto(name=name))
        engine: Engine = find_adapter("engine", "onnxruntime").load()
        return engine.load(model.SerializeToString(), EngineOptions(optimize=optimize))

    def observe(self, inputs: Tensors) -> dict[str, Array]:
        """Every visible tensor, computed operator by operator as the graph is written.

        Raises
        ------
        EngineError
            When the model fails on the inputs.
        """
        return {**inputs, **self._observer.run(inputs)}

    @cached_property
    def _observer(self) -> LoadedModel:
        try:
            return self.load(optimize=False, expose=self.visible)
        except ModelportError:
            # A tensor of a type that cannot be an output: then the outputs must do.
            return self.load(optimize=False)

    def run_node(self, node: onnx.NodeProto, values: Sequence[Array | None]) -> list[Array]:
        """One node by ONNX's own reference implementation, in the precision of `values`.

        Raises
        ------
        Exception
            Whatever the reference implementation raises; it has not all operators.
        """
        if node.op_type == "BatchNormalization" and self._opset < _TRAINING_MODE:
            return [_normalized(node, values)]
        fed = {f"in{i}": value for i, value in enumerate(values) if value is not None}
        alone = copy.deepcopy(node)
        del alone.input[:]
        alone.input.extend(f"in{i}" if f"in{i}" in fed else "" for i in range(len(values)))
        kept = [i for i, name in enumerate(node.output) if name]
        del alone.output[:]
        alone.output.extend(f"out{i}" if i in kept else "" for i in range(len(node.output)))
        graph = onnx.GraphProto(name="node")
        graph.node.append(alone)
        graph.input.extend(onnx.ValueInfoProto(name=name) for name in fed)
        graph.output.extend(onnx.ValueInfoProto(name=f"out{i}") for i in kept)
        model = onnx.ModelProto(ir_version=self.model.ir_version, graph=graph)
        model.opset_import.extend(self.model.opset_import)
        return [np.asarray(made) for made in ReferenceEvaluator(model).run(None, fed)]


def _normalized(node: onnx.NodeProto, values: Sequence[Array | None]) -> Array:
    """Batch normalization before opset 14, which the reference implementation gets wrong."""
    x, scale, bias, mean, variance = (np.asarray(value) for value in values[:5])
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    shape = (-1, *[1] * (x.ndim - 2))
    scale = scale / np.sqrt(variance + epsilon)
    return np.asarray((x - mean.reshape(shape)) * scale.reshape(shape) + bias.reshape(shape))


def inputs_of(node: onnx.NodeProto) -> list[str]:
    """What a node takes, with what its inner graphs take from outside."""
    names = [name for name in node.input if name]
    for item in node.attribute:
        for inner in (item.g, *item.graphs) if item.type in _GRAPHS else ():
            names += [name for each in inner.node for name in inputs_of(each)]
    return names


_GRAPHS: Final = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def is_control(node: onnx.NodeProto) -> bool:
    """Whether it holds inner graphs, which are not followed."""
    return node.op_type in _CONTROL


def values_for(
    node: onnx.NodeProto, known: Mapping[str, Array], constants: Mapping[str, Array]
) -> list[Array | None]:
    """The values of a node's inputs; None for those left out.

    Raises
    ------
    KeyError
        When one is not known.
    """
    return [
        None if not name else constants[name] if name in constants else known[name]
        for name in node.input
    ]
