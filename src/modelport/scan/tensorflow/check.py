"""What running a SavedModel's graph would do beyond computing."""

from __future__ import annotations

import re
from typing import Final

from modelport.scan.base import Finding
from modelport.scan.tensorflow.graph import MAIN, MetaGraph, Node
from modelport.scan.tensorflow.rules import (
    ASSET_PATHS,
    CHECKPOINT_PATHS,
    FILE_ATTRIBUTES,
    operation_problem,
)

_MOST_FINDINGS: Final = 100
# Operations between the place where a path enters and the one where it is used.
_PATH_PLUMBING: Final = frozenset(
    {"Identity", "Pack", "Select", "SelectV2", "ShardedFilename", "StringJoin"}
)
_CALLS: Final = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
# What TensorFlow itself adds to the path of a checkpoint while it is written.
_PATH_PARTS = re.compile(rb"(_temp(_[0-9a-f]{32})?/part|\.part)?")
_DEFAULT_PREFIX: Final = (b"model",)


def node_problem(node: Node) -> tuple[str, str]:
    """Name and reason of what is refused about an operation alone; empty texts for nothing."""
    why = operation_problem(node.op)
    if why:
        return node.op, why
    for (op, attribute), harmless in FILE_ATTRIBUTES.items():
        value = node.texts.get(attribute, "")
        if node.op == op and value and value not in harmless:
            return f"{op}.{attribute}", f"it opens {value!r}"
    return "", ""


def graph_findings(graph: MetaGraph) -> list[Finding]:
    """All that is refused about a model's graph and functions."""
    return _Check(graph).run()


class _Check:
    def __init__(self, graph: MetaGraph) -> None:
        self._graph = graph
        self._callers: dict[str, list[tuple[str, Node]]] = {}
        self._findings: dict[tuple[str, str], Finding] = {}

    def run(self) -> list[Finding]:
        for scope in self._graph.scopes.values():
            for node in scope.nodes.values():
                for function in {*node.calls, node.op}:
                    if function in self._graph.scopes:
                        self._callers.setdefault(function, []).append((scope.name, node))
        for scope in self._graph.scopes.values():
            for node in scope.nodes.values():
                self._node(scope.name, node)
        return list(self._findings.values())[:_MOST_FINDINGS]

    def _node(self, scope: str, node: Node) -> None:
        place = f"{scope}/{node.name}" if scope else node.name
        if node.op not in self._graph.scopes:
            what, why = node_problem(node)
            if what:
                self._findings.setdefault((what, why), Finding("global", what, place, why))
        for rule, of_assets in ((CHECKPOINT_PATHS, False), (ASSET_PATHS, True)):
            for number in rule.get(node.op, ()):
                why = self._path_problem(scope, node, number, of_assets)
                if why:
                    key = (node.op, why)
                    self._findings.setdefault(key, Finding("global", node.op, place, why))

    def _path_problem(self, scope: str, node: Node, number: int, of_assets: bool) -> str:
        """Why a path is refused; empty when only the loader itself can have given it.

        The path of a checkpoint must come from the saver's own input, and that of a file of words
        from the model's list of assets; followed backwards through functions and their callers.
        """
        if len(node.inputs) <= number:
            return "it has no path"
        seen: set[tuple[str, str]] = set()
        waiting = [(scope, node.inputs[number])]
        while waiting:
            at = waiting.pop()
            if at in seen:
                continue
            seen.add(at)
            more = self._before(*at, of_assets)
            if isinstance(more, str):
                return more
            waiting += more
        return ""

    def _before(self, scope: str, name: str, of_assets: bool) -> list[tuple[str, str]] | str:
        """Where a value comes from; empty when that is a good end, a text when it is a bad one."""
        body = self._graph.scopes[scope]
        node = body.nodes.get(name)
        if node is None:
            if name not in body.arguments:
                return "its path comes from nowhere"
            return self._passed(scope, body.arguments.index(name), of_assets)
        if scope == MAIN and of_assets and name in self._graph.assets:
            return []
        if scope == MAIN and not of_assets and self._is_saver_input(node):
            return self._default(node)
        if node.op in _PATH_PLUMBING:
            return [(scope, each) for each in self._plumbing(node)]
        if node.op == "Const" and not of_assets:
            texts = node.value or (b"?",)
            good = all(_PATH_PARTS.fullmatch(text) for text in texts)
            return [] if good else f"its path is in the file: {texts[0][:80]!r}"
        if node.op == "ReadVariableOp" and scope == MAIN:
            return self._assigned(node.inputs[:1])
        return f"its path is made by {node.op}"

    def _is_saver_input(self, node: Node) -> bool:
        """Of the model's saver, or of another one that TensorFlow 1 left in the graph."""
        return node.name == self._graph.saver_input or node.op == "PlaceholderWithDefault"

    @staticmethod
    def _plumbing(node: Node) -> tuple[str, ...]:
        """The inputs that are parts of the path: not what chooses, and not shard numbers."""
        if node.op in ("Select", "SelectV2"):
            return node.inputs[1:]
        return node.inputs[:1] if node.op == "ShardedFilename" else node.inputs

    def _default(self, node: Node) -> list[tuple[str, str]] | str:
        """The saver's input: it is fed, and TensorFlow 1 has a default for when it is not."""
        nodes = self._graph.scopes[MAIN].nodes
        for _ in range(len(nodes)):
            if node.op != "PlaceholderWithDefault" or not node.inputs:
                break
            node = nodes.get(node.inputs[0], node)
        if node.op == "Placeholder" or (node.op == "Const" and node.value == _DEFAULT_PREFIX):
            return []
        return "the saver's default path is in the file"

    def _assigned(self, variable: tuple[str, ...]) -> list[tuple[str, str]] | str:
        """What a variable of the graph itself is set to; assets are kept in variables."""
        found = [
            (MAIN, node.inputs[1])
            for node in self._graph.scopes[MAIN].nodes.values()
            if node.op == "AssignVariableOp" and node.inputs[:1] == variable
        ]
        return found if variable and found else "its path is in a variable"

    def _passed(self, function: str, index: int, of_assets: bool) -> list[tuple[str, str]] | str:
        """What the callers of a function pass as one of its arguments."""
        found: list[tuple[str, str]] = []
        for scope, node in self._callers.get(function, []):
            direct = node.op == function or node.op in _CALLS
            if not direct or index >= len(node.inputs):
                return f"its path is passed on by {node.op}"
            found.append((scope, node.inputs[index]))
        bound = self._graph.bound.get(function)
        if bound is not None:
            position = index - len(self._graph.scopes[function].arguments) + len(bound)
            if position < 0:
                return "its path is an input of the model"
            number, kinds = bound[position], self._graph.kinds
            if not of_assets or number >= len(kinds) or kinds[number] != "asset":
                return "its path is in the file"
        elif not found:
            return "its path comes from nowhere"
        return found
