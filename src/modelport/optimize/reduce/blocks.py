"""Blocks of a graph that add something to what they get, so that they may go without a trace.

A block starts at a tensor and ends at the sum of that tensor and what was computed from it
(residual networks, halves of encoder layers), or at what follows such a sum where the same follows
the one before: the ReLU of a ResNet, the norm of an encoder that normalizes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import helper

from modelport.core.tensors import Array, Tensors
from modelport.optimize.reduce.observe import Observed
from modelport.optimize.session import Probe, batches

#: What may follow a sum as a part of its block.
_CLOSING: Final = frozenset(
    {"Clip", "Gelu", "HardSwish", "LayerNormalization", "LeakyRelu", "PRelu", "Relu"}
)
_BATCH: Final = 8


@dataclass(frozen=True)
class Block:
    """What may be left out.

    Parameters
    ----------
    start, end : str
        Tensors of one shape; without the block, the end is the start.
    """

    start: str
    end: str


def blocks_of(model: onnx.ModelProto, observed: Observed) -> list[Block]:
    """All blocks with weights, in the order of the graph."""
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    before = _ancestors(model)
    found = []
    for node in model.graph.node:
        if node.op_type != "Add" or not all(name in observed.shapes for name in node.input):
            continue
        one, other = node.input
        if other in before.get(one, ()):
            one, other = other, one
        if one not in before.get(other, ()) or observed.shapes[one] != observed.shapes[other]:
            continue
        end = node.output[0]
        after = readers.get(end, [])
        closing = len(after) == 1 and after[0].op_type in _CLOSING and len(after[0].output) == 1
        if closing and one in makers and makers[one].op_type == after[0].op_type:
            end = after[0].output[0]
        found.append(Block(one, end))
    return found


def _ancestors(model: onnx.ModelProto) -> dict[str, frozenset[str]]:
    """By tensor: all that it is computed from by way of at least one product."""
    constants = {item.name for item in model.graph.initializer}
    every: dict[str, frozenset[str]] = {}
    weighted: dict[str, frozenset[str]] = {}
    for node in model.graph.node:
        read = [name for name in node.input if name and name not in constants]
        mine = frozenset(read).union(*(every.get(name, frozenset()) for name in read))
        product = node.op_type in ("Conv", "Gemm", "MatMul")
        past = frozenset[str]().union(*(weighted.get(name, frozenset()) for name in read))
        for name in node.output:
            every[name] = mine
            weighted[name] = mine if product else past
    return weighted


def alikeness(model: onnx.ModelProto, blocks: Sequence[Block], rows: Tensors) -> dict[Block, float]:
    """The mean cosine of the angle between a block's start and its end.

    Along the last axis of sequences (one minus the "block influence" of Men et al., "ShortGPT",
    2024, section 3.2), of whole rows otherwise.
    """
    names = list(dict.fromkeys(name for block in blocks for name in (block.start, block.end)))
    given = {value.name for value in model.graph.input}
    probe = Probe(model, [name for name in names if name not in given])
    sums = dict.fromkeys(blocks, 0.0)
    count = 0
    for batch in batches(model, rows, _BATCH):
        found = {**probe.run(batch, [name for name in names if name not in given]), **batch}
        count += 1
        for block in blocks:
            one, other = (_lines(found[name]) for name in (block.start, block.end))
            lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
            sums[block] += float(np.mean((one * other).sum(axis=1) / np.maximum(lengths, 1e-30)))
    return {block: total / count for block, total in sums.items()}


def _lines(array: Array) -> Array:
    wide = array.astype(np.float64)
    return wide.reshape(-1, wide.shape[-1]) if wide.ndim == 3 else wide.reshape(len(wide), -1)


def without_blocks(model: onnx.ModelProto, gone: Sequence[Block]) -> onnx.ModelProto:
    """The graph without some blocks, and without all that only they needed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    instead = {block.end: block.start for block in gone}
    outputs = {value.name for value in copy.graph.output}
    kept = []
    for node in copy.graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = _resolved(name, instead)
        if node.output[0] not in instead:
            kept.append(node)
        elif node.output[0] in outputs:
            source = _resolved(node.output[0], instead)
            kept.append(helper.make_node("Identity", [source], [node.output[0]], name=node.name))
    needed = set(outputs)
    live = []
    for node in reversed(kept):
        if needed & set(node.output):
            live.append(node)
            needed |= set(node.input)
    del copy.graph.node[:]
    copy.graph.node.extend(reversed(live))
    constants = [item for item in copy.graph.initializer if item.name in needed]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(constants)
    del copy.graph.value_info[:]
    return copy


def _resolved(name: str, instead: Mapping[str, str]) -> str:
    while name in instead:
        name = instead[name]
    return name
