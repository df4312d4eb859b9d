"""The parts of a SavedModel's graph that say what it does, read without TensorFlow.

Field numbers are those of ``meta_graph.proto``, ``graph.proto``, ``function.proto``,
``node_def.proto``, ``attr_value.proto`` and ``saved_object_graph.proto`` (TensorFlow 2.0 to 2.21).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from modelport.scan.encodings.protobuf import Messages, Span

#: `Scope.name` of the graph itself, beside those of its functions.
MAIN: Final = ""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation in a graph or a function.

    Parameters
    ----------
    name, op : str
    inputs : tuple of str
        Names of the nodes or arguments; those that only order are left out.
    calls : tuple of str
        Functions that its attributes name.
    texts : dict of str to str
        Its attributes that are text.
    value : tuple of bytes or None
        Of a constant: the texts in it; None for numbers.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    calls: tuple[str, ...]
    texts: dict[str, str]
    value: tuple[bytes, ...] | None


@dataclass(slots=True)
class Scope:
    """The graph itself, or one of its functions."""

    name: str
    arguments: list[str] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)


@dataclass(slots=True)
class MetaGraph:
    """One variant of the model (``serve``, ``train``).

    Parameters
    ----------
    scopes : dict of str to Scope
    saver_input : str
        The node that is given the path of the variables when those are saved or restored.
    assets : dict of str to str
        File name by the node that stands for it.
    asset_names : list of str
        All file names.
    kinds : list of str
        Of the objects in the model: ``asset``, ``variable`` …
    bound : dict of str to list of int
        Objects that are passed to each function behind its caller's arguments.
    metadata : list of str
        What Keras 2 wrote beside its objects, as JSON.
    """

    scopes: dict[str, Scope] = field(default_factory=dict)
    saver_input: str = ""
    assets: dict[str, str] = field(default_factory=dict)
    asset_names: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    bound: dict[str, list[int]] = field(default_factory=dict)
    metadata: list[str] = field(default_factory=list)


_KINDS: Final = {
    4: "user_object",
    5: "asset",
    6: "function",
    7: "variable",
    8: "bare_concrete_function",
    9: "constant",
    10: "resource",
    12: "captured_tensor",
}
_ASSETS_KEY: Final = "saved_model_assets"


def read_saved_model(content: bytes, where: str) -> list[MetaGraph]:
    """The variants in a ``saved_model.pb``.

    Raises
    ------
    InputError
        When it is damaged or truncated.
    """
    messages = Messages(content, where, "a SavedModel")
    return [_Reader(messages).meta_graph(span) for span in messages.inside(messages.whole, 2)]


def read_node(content: bytes, where: str) -> Node:
    """One ``NodeDef``; see `read_saved_model`."""
    messages = Messages(content, where, "an operation of TensorFlow")
    return _Reader(messages).node(messages.whole)


class _Reader:
    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    def meta_graph(self, span: Span) -> MetaGraph:
        graph = MetaGraph(scopes={MAIN: Scope(MAIN)})
        for number, value in self._messages.fields(span):
            if not isinstance(value, Span):
                continue
            if number == 2:
                self._graph(value, graph)
            elif number == 3:
                for inner, place in self._messages.fields(value):
                    if inner == 1:
                        graph.saver_input = _base(self._messages.text(place))
            elif number == 4:
                self._collection(value, graph)
            elif number == 6:
                self._asset(value, graph)
            elif number == 7:
                self._objects(value, graph)
        return graph

    def _graph(self, span: Span, graph: MetaGraph) -> None:
        for number, value in self._messages.fields(span):
            if number == 1 and isinstance(value, Span):
                self._add(graph.scopes[MAIN], value)
            elif number == 2 and isinstance(value, Span):
                for function in self._messages.inside(value, 1):
                    self._function(function, graph)

    def _function(self, span: Span, graph: MetaGraph) -> None:
        scope = Scope("")
        for number, value in self._messages.fields(span):
            if number == 1 and isinstance(value, Span):
                for inner, place in self._messages.fields(value):
                    if inner == 1:
                        scope.name = self._messages.text(place)
                    elif inner == 2 and isinstance(place, Span):
                        names = self._messages.inside(place, 1)
                        scope.arguments.append(self._messages.text(names[-1]) if names else "")
            elif number == 3 and isinstance(value, Span):
                self._add(scope, value)
        if not scope.name or scope.name in graph.scopes:
            raise self._messages.damage(span.start, f"two functions are called {scope.name!r}")
        graph.scopes[scope.name] = scope

    def _add(self, scope: Scope, span: Span) -> None:
        node = self.node(span)
        if node.name in scope.nodes:
            raise self._messages.damage(span.start, f"two operations are called {node.name!r}")
        scope.nodes[node.name] = node

    def node(self, span: Span) -> Node:
        name, op, inputs = "", "", []
        for number, value in self._messages.fields(span):
            if number == 1:
                name = self._messages.text(value)
            elif number == 2:
                op = self._messages.text(value)
            elif number == 3:
                reference = self._messages.text(value)
                if not reference.startswith("^"):
                    inputs.append(_base(reference))
        attributes = dict(self._messages.entries(span, 5))
        calls: list[str] = []
        texts: dict[str, str] = {}
        for key, value in attributes.items():
            self._attribute(key, value, calls, texts)
        constant = self._constant(attributes.get("value")) if op == "Const" else None
        return Node(name, op, tuple(inputs), tuple(calls), texts, constant)

    def _attribute(self, key: str, span: Span, calls: list[str], texts: dict[str, str]) -> None:
        for number, value in self._messages.fields(span):
            if not isinstance(value, Span):
                continue
            if number == 2:
                texts[key] = self._messages.bytes(value).decode(errors="replace")
            elif number == 10:
                calls += map(self._messages.text, self._messages.inside(value, 1))
            elif number == 1:
                for function in self._messages.inside(value, 9):
                    calls += map(self._messages.text, self._messages.inside(function, 1))

    def _constant(self, attribute: Span | None) -> tuple[bytes, ...] | None:
        if attribute is None:
            return None
        kind, texts = 0, []
        for tensor in self._messages.inside(attribute, 8):
            for number, value in self._messages.fields(tensor):
                if number == 1 and isinstance(value, int):
                    kind = value
                elif number == 8 and isinstance(value, Span):
                    texts.append(self._messages.bytes(value))
        return tuple(texts) if kind == 7 else None  # DT_STRING

    def _collection(self, span: Span, graph: MetaGraph) -> None:
        """TensorFlow 1 lists its assets here: CollectionDef.any_list of AssetFileDef."""
        entry = dict(self._messages.fields(span))
        key, value = entry.get(1), entry.get(2)
        if key is None or self._messages.text(key) != _ASSETS_KEY or not isinstance(value, Span):
            return
        for listed in self._messages.inside(value, 5):
            for wrapped in self._messages.inside(listed, 1):
                for asset in self._messages.inside(wrapped, 2):
                    self._asset(asset, graph)

    def _asset(self, span: Span, graph: MetaGraph) -> None:
        node, name = "", ""
        for number, value in self._messages.fields(span):
            if number == 1 and isinstance(value, Span):
                for place in self._messages.inside(value, 1):
                    node = _base(self._messages.text(place))
            elif number == 2:
                name = self._messages.text(value)
        graph.assets[node] = name
        graph.asset_names.append(name)

    def _objects(self, span: Span, graph: MetaGraph) -> None:
        for thing in self._messages.inside(span, 1):
            kind = "none"
            for number, value in self._messages.fields(thing):
                kind = _KINDS.get(number, kind)
                if number == 4 and isinstance(value, Span):
                    places = self._messages.inside(value, 3)
                    graph.metadata += [t for t in map(self._messages.text, places) if t]
            graph.kinds.append(kind)
        for name, value in self._messages.entries(span, 2):
            bound: list[int] = []
            for number, place in self._messages.fields(value):
                if number == 2:
                    bound += self._messages.numbers(place)
            graph.bound[name] = bound


def _base(reference: str) -> str:
    """The name of a node or argument in a reference to one of its outputs."""
    return reference.partition(":")[0]
