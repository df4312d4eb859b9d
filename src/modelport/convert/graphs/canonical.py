"""One form for one graph: nodes in an order and under names that follow from the graph alone.

Exporters number their inner names from one model to the next, and some order nodes by those
names or by hash. The same model would give other bytes in another process, and so another digest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, MutableSequence
from typing import Final

import onnx

from modelport.convert.graphs.edits import all_nodes, subgraphs

#: What tf2onnx appends to names: a number that counts on, and the output's.
_NUMBERED: Final = re.compile(r"__\d+")


def canonicalise(graph: onnx.GraphProto) -> None:
    """Order the nodes from the outputs backwards, and number all inner names in that order.

    Nodes and weights that no output needs are left out.
    Names keep their words (``sequential/dense/MatMul``), for messages that name a node.
    """
    _sort(graph)
    fixed = {value.name for value in (*graph.input, *graph.output)}
    _Renaming({name: name for name in fixed}).apply(graph)
    used = [name for node in all_nodes(graph) for name in node.input]
    used += [value.name for value in graph.output]
    first_use = {name: place for place, name in reversed(list(enumerate(used)))}
    initializers = [i for i in graph.initializer if i.name in first_use]
    initializers.sort(key=lambda initializer: first_use[initializer.name])
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def _sort(graph: onnx.GraphProto) -> None:
    """Depth first from the outputs, in the order of each node's inputs."""
    for node in graph.node:
        for inner in subgraphs(node):
            _sort(inner)
    maker = {name: node for node in graph.node for name in node.output if name}
    ordered: list[onnx.NodeProto] = []
    done: set[int] = set()
    # A stack of its own: graphs are deeper than Python's recursion limit.
    stack = [(maker[v.name], False) for v in reversed(graph.output) if v.name in maker]
    while stack:
        node, ready = stack.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            ordered.append(node)
            continue
        stack.append((node, True))
        needs = [maker[name] for name in _needs(node) if name in maker]
        stack += [(needed, False) for needed in reversed(needs) if id(needed) not in done]
    del graph.node[:]
    graph.node.extend(ordered)


def _needs(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node takes, also those that its subgraphs take from outside."""
    yield from node.input
    for inner in subgraphs(node):
        for nested in inner.node:
            yield from _needs(nested)
        yield from (value.name for value in inner.output)


class _Renaming:
    """Old inner names → new ones, given at first sight.

    Parameters
    ----------
    names : dict of str to str
        What is decided already.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self._names = {"": "", **names}
        self._taken = set(names.values())
        self._nodes: set[str] = set()

    def apply(self, graph: onnx.GraphProto) -> None:
        # Weights get their names where they are used first, like all tensors.
        for node in graph.node:
            self._rename_node(node)
        for value in (*graph.initializer, *graph.input, *graph.output):
            value.name = self._tensor(value.name)
        del graph.value_info[:]

    def _rename_node(self, node: onnx.NodeProto) -> None:
        _each(node.input, self._tensor)
        for inner in subgraphs(node):
            inner.name = _fresh(inner.name, self._nodes)
            for value in inner.input:
                self._tensor(value.name)
            self.apply(inner)
        _each(node.output, self._tensor)
        node.name = _fresh(node.name or node.op_type, self._nodes)

    def _tensor(self, name: str) -> str:
        if name not in self._names:
            self._names[name] = _fresh(name, self._taken)
        return self._names[name]


def _fresh(name: str, taken: set[str]) -> str:
    base = _NUMBERED.sub("", name).removesuffix(":0") or "tensor"
    number, fresh = 0, base
    while fresh in taken:
        number += 1
        fresh = f"{base}_{number}"
    taken.add(fresh)
    return fresh


def _each(names: MutableSequence[str], rename: Callable[[str], str]) -> None:
    for position, name in enumerate(names):
        names[position] = rename(name)
