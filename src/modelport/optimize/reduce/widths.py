"""Groups of channels that are kept or removed together, how many of each, and the graph without."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from modelport.core.tensors import Array, Tensors
from modelport.optimize.reduce.labels import Labels
from modelport.optimize.reduce.observe import Observed, channel_moments
from modelport.optimize.reduce.sets import FIXED

#: Channels come in blocks of a vector's length; a width between is computed like the next block.
_BLOCK: Final = 16
_SMALL_BLOCK: Final = 8
#: Ratios of widths that are tried, from all channels down.
_RATIOS: Final = tuple(step / 64 for step in range(63, 3, -1))
_OVER: Final = 1.03


@dataclass(frozen=True)
class Group:
    """Channels that the same nodes make: any of them may go without the others.

    Parameters
    ----------
    nodes : tuple of int
        Places of the nodes that make them.
    channels : tuple of int
        Roots of their labels.
    """

    nodes: tuple[int, ...]
    channels: tuple[int, ...]

    @property
    def block(self) -> int:
        """Of which multiples their number is."""
        return _BLOCK if len(self.channels) >= 2 * _BLOCK else _SMALL_BLOCK

    def width(self, ratio: float) -> int:
        """How many are kept of so large a share, in whole blocks, at least one block."""
        size = len(self.channels)
        return min(size, max(self.block, round(size * ratio / self.block) * self.block))


def groups_of(labels: Labels) -> list[Group]:
    """All groups with more channels than a block, in the order of the graph."""
    makers: dict[int, dict[int, None]] = defaultdict(dict)
    for tie in labels.ties:
        if tie.made:
            for root in tie.labels:
                makers[int(root)][tie.node] = None
    together: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for root, nodes in makers.items():
        if root != FIXED:
            together[tuple(nodes)].append(root)
    return [
        Group(nodes, tuple(channels))
        for nodes, channels in together.items()
        if len(channels) > _SMALL_BLOCK
    ]


def importance(
    model: onnx.ModelProto, labels: Labels, observed: Observed, rows: Tensors
) -> dict[int, float]:
    """What is lost with a channel: its share of the variance of what reads it.

    For a node that reads channel c with weights w: var(c) · |w_c|², divided by the sum over its
    channels; the variance and not the square, since biases take over a mean.

    Parameters
    ----------
    model : ModelProto
    labels : Labels
    observed : Observed
    rows : mapping of str to ndarray
        On which variances are taken; a hundred are enough.

    Returns
    -------
    dict of int to float
        By root, summed over all nodes that read it.
    """
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    readers = [
        tie
        for tie in labels.ties
        if not tie.made
        and model.graph.node[tie.node].op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
        and model.graph.node[tie.node].input[1] == tie.constant
        and tie.node not in labels.depthwise
    ]
    axes = {}
    for tie in readers:
        node = model.graph.node[tie.node]
        axes[node.input[0]] = (
            1 if "Conv" in node.op_type else len(observed.shapes[node.input[0]]) - 1
        )
    moments = channel_moments(model, axes, rows)
    found: dict[int, float] = defaultdict(float)
    for tie in readers:
        weight = arrays[tie.constant].astype(np.float64)
        others = tuple(at for at in range(weight.ndim) if at != tie.axis)
        energy = moments[model.graph.node[tie.node].input[0]][1] ** 2 * (weight**2).sum(axis=others)
        for root, share in zip(tie.labels, energy / max(energy.sum(), 1e-30), strict=True):
            found[int(root)] += float(share)
    return found


def narrower(groups: Sequence[Group], weights: Mapping[int, float], ratio: float) -> frozenset[int]:
    """The channels that go when every group keeps a share of them: the least important ones."""
    gone: list[int] = []
    for group in groups:
        order = sorted(group.channels, key=lambda root: -weights.get(root, 0.0))
        gone += order[group.width(ratio) :]
    return frozenset(gone)


def cost_without(
    labels: Labels, costs: Mapping[int, float], model: onnx.ModelProto, gone: Collection[int]
) -> float:
    """Multiplications per row that are left."""
    left, removed = dict(costs), np.array(sorted(gone), dtype=np.int64)
    for tie in labels.ties:
        node = model.graph.node[tie.node]
        if tie.node in left and tie.constant == node.input[1]:
            left[tie.node] *= 1 - float(np.isin(tie.labels, removed).mean())
    return sum(left.values())


def ratio_for(
    share: float,
    groups: Sequence[Group],
    weights: Mapping[int, float],
    labels: Labels,
    costs: Mapping[int, float],
    model: onnx.ModelProto,
) -> float:
    """The largest ratio of widths with at most that share of the multiplications, or the least."""
    goal = share * sum(costs.values()) * _OVER
    for ratio in _RATIOS:
        gone = narrower(groups, weights, ratio)
        if cost_without(labels, costs, model, gone) <= goal:
            return ratio
    return _RATIOS[-1]


def without_channels(
    model: onnx.ModelProto, labels: Labels, gone: Collection[int]
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The graph without some channels.

    Returns
    -------
    ModelProto
    dict of str to ndarray of bool
        By the name of each node that makes channels: which of them are left.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    removed = np.array(sorted(gone), dtype=np.int64)

    def kept(of: Array) -> Array:
        return ~np.isin(of, removed)

    arrays = {item.name: numpy_helper.to_array(item) for item in copy.graph.initializer}
    done: set[tuple[str, int]] = set()
    left: dict[str, Array] = {}
    for tie in labels.ties:
        if tie.made:
            left[copy.graph.node[tie.node].name] = kept(tie.labels)
        if (tie.constant, tie.axis) not in done:
            done.add((tie.constant, tie.axis))
            arrays[tie.constant] = np.compress(kept(tie.labels), arrays[tie.constant], tie.axis)
    for place, of in labels.depthwise.items():
        node = copy.graph.node[place]
        left[node.name] = kept(of)
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.i = int(kept(of).sum())
    for place, of, position in labels.sizes:
        node = copy.graph.node[place]
        sizes = arrays[node.input[1]].copy()
        sizes[position] = int(kept(of).sum())
        node.input[1] = f"{node.output[0]}__sizes"
        arrays[node.input[1]] = sizes
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    del copy.graph.value_info[:]
    return copy, left
