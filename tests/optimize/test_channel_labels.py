"""Channels that depend on each other go together, and the narrower graph is a sound one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelport.core.tensors import Tensors
from modelport.optimize.onnx_graph import parse
from modelport.optimize.reduce.labels import Labels
from modelport.optimize.reduce.observe import observe_graph
from modelport.optimize.reduce.widths import (
    cost_without,
    groups_of,
    importance,
    narrower,
    ratio_for,
    without_channels,
)
from tests.optimize.networks import Network, answers, images


def _plain(network: Network, x: str) -> str:
    h = network.op("Relu", network.conv(x, 3, 32))
    h = network.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    h = network.op("Clip", network.conv(h, 32, 64), network.constant(np.float32(0)),
                   network.constant(np.float32(6)))  # fmt: skip
    h = network.op("Flatten", h)
    h = network.op("Relu", network.dense(h, 64 * 16, 48))
    return network.dense(h, 48, 5)


def _residual(network: Network, x: str) -> str:
    h = network.op("Relu", network.conv(x, 3, 32))
    for _ in range(2):
        inner = network.op("Relu", network.conv(h, 32, 64))
        h = network.op("Relu", network.op("Add", h, network.conv(inner, 64, 32)))
    return network.dense(network.op("ReduceMean", h, axes=[2, 3], keepdims=0), 32, 5)


def _inverted(network: Network, x: str) -> str:
    """Depthwise, squeeze and excitation, a sigmoid gate, a branch that is joined on."""
    h = network.op("Relu", network.conv(x, 3, 64, 1))
    h = network.op("HardSwish", network.conv(h, 64, 64, group=64))
    gate = network.op("Relu", network.conv(network.op("GlobalAveragePool", h), 64, 16, 1))
    gate = network.op("Sigmoid", network.conv(gate, 16, 64, 1))
    h = network.op("Mul", h, gate)
    other = network.op("Relu", network.conv(x, 3, 32))
    h = network.op("Concat", h, other, axis=1)
    h = network.op("Transpose", network.op("GlobalAveragePool", h), perm=[0, 2, 3, 1])
    h = network.op("Reshape", h, network.constant(np.array([-1, 96], dtype=np.int64)))
    return network.dense(h, 96, 5)


def _normed(network: Network, x: str) -> str:
    h = network.conv(x, 3, 32)
    ones, more = (network.constant(np.ones(32, dtype=np.float32)) for _ in range(2))
    h = network.op("InstanceNormalization", h, ones, more)
    slope = network.constant(np.full((32, 1, 1), 0.1, dtype=np.float32))
    h = network.op("PRelu", h, slope)
    h = network.op("ConvTranspose", h, network.weight(32, 48, 2, 2), strides=[2, 2])
    h = network.op("Squeeze", network.op("GlobalMaxPool", network.op("Relu", h)),
                   network.constant(np.array([2, 3], dtype=np.int64)))  # fmt: skip
    return network.dense(h, 48, 5)


GRAPHS: dict[str, Callable[[Network, str], str]] = {
    "plain": _plain, "residual": _residual, "inverted": _inverted, "normed": _normed,
}  # fmt: skip


def _model(name: str) -> onnx.ModelProto:
    network = Network()
    x = network.input("x", 3, 8, 8)
    return parse(network.model(GRAPHS[name](network, x)))


def _labels(model: onnx.ModelProto, rows: Tensors) -> tuple[Labels, dict[int, float]]:
    observed = observe_graph(model, rows)
    return Labels(model, observed), observed.multiplications(model)


def _widths(model: onnx.ModelProto) -> dict[str, int]:
    """Output channels by node."""
    arrays = {item.name: tuple(item.dims) for item in model.graph.initializer}
    return {
        node.name: arrays[node.input[1]][1 if node.op_type in ("MatMul", "ConvTranspose") else 0]
        for node in model.graph.node
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and node.input[1] in arrays
    }


@pytest.mark.parametrize("name", GRAPHS)
def test_a_narrower_graph_runs_with_the_widths_that_were_chosen(name: str) -> None:
    model, rows = _model(name), {"x": images(6)}
    labels, costs = _labels(model, rows)
    groups = groups_of(labels)
    before = _widths(model)
    gone = narrower(groups, {}, 0.5)
    narrow, kept = without_channels(model, labels, gone)
    after = _widths(narrow)
    assert {node: int(mask.sum()) for node, mask in kept.items()} == {
        node: width for node, width in after.items() if node in kept
    }
    last = list(before)[-1]
    assert after[last] == before[last] == 5
    for node, width in after.items():
        if node != last:
            assert width % (16 if before[node] >= 32 else 8) == 0, node
            assert width < before[node] or before[node] <= 16, node
    (found,) = answers(narrow.SerializeToString(), rows).values()
    assert found.shape == (6, 5)
    onnx.checker.check_model(narrow)
    left = cost_without(labels, costs, model, gone)
    assert left == sum(observe_graph(narrow, rows).multiplications(narrow).values())


@pytest.mark.parametrize("name", ["plain", "residual", "inverted"])
def test_channels_that_do_nothing_go_first_and_nothing_changes(name: str) -> None:
    model, rows = _model(name), {"x": images(6)}
    labels, _ = _labels(model, rows)
    dead = narrower(groups_of(labels), dict.fromkeys(range(10_000), 1.0), 0.5)
    # Every reader of such a channel gets zeros for weights: it may go without any difference.
    for tie in labels.ties:
        node = model.graph.node[tie.node]
        reads = not tie.made and node.input[1] == tie.constant and tie.node not in labels.depthwise
        if reads and node.op_type in ("Conv", "Gemm"):
            item = next(i for i in model.graph.initializer if i.name == tie.constant)
            array = numpy_helper.to_array(item).copy()
            array[:, np.isin(tie.labels, list(dead))] = 0
            item.CopyFrom(numpy_helper.from_array(array, item.name))
    weights = importance(model, labels, observe_graph(model, rows), rows)
    gone = narrower(groups_of(labels), weights, 0.5)
    assert gone == dead
    narrow, _ = without_channels(model, labels, gone)
    (expected,) = answers(model.SerializeToString(), rows).values()
    (found,) = answers(narrow.SerializeToString(), rows).values()
    assert np.allclose(found, expected, atol=1e-4)


def test_sums_and_gates_tie_channels_together() -> None:
    model, rows = _model("residual"), {"x": images(4)}
    groups = groups_of(_labels(model, rows)[0])
    assert sorted((len(g.nodes), len(g.channels)) for g in groups) == [(1, 64), (1, 64), (3, 32)]


def test_the_ratio_reaches_the_share_of_the_multiplications() -> None:
    model, rows = _model("residual"), {"x": images(4)}
    labels, costs = _labels(model, rows)
    groups = groups_of(labels)
    for share in (0.75, 0.5, 0.3):
        ratio = ratio_for(share, groups, {}, labels, costs, model)
        gone = narrower(groups, {}, ratio)
        assert cost_without(labels, costs, model, gone) <= 1.03 * share * sum(costs.values())


def test_channels_that_something_unknown_reads_stay() -> None:
    network = Network()
    x = network.input("x", 3, 8, 8)
    h = network.op("Relu", network.conv(x, 3, 32))
    h = network.op("LRN", h, size=3)
    h = network.op("Relu", network.conv(h, 32, 64))
    h = network.op("Flatten", network.op("GlobalAveragePool", h))
    model = parse(network.model(network.dense(h, 64, 5)))
    labels, _ = _labels(model, {"x": images(4)})
    (group,) = groups_of(labels)
    assert [model.graph.node[place].name for place in group.nodes] == ["n3"]


def test_weights_that_two_nodes_share_shrink_for_both() -> None:
    network = Network()
    x = network.input("x", 32)
    shared = network.weight(32, 32)
    h = network.op("Relu", network.op("Gemm", x, network.weight(32, 32), transB=1))
    h = network.op("Relu", network.op("Gemm", h, shared, transB=1))
    h = network.op("Relu", network.op("Gemm", h, shared, transB=1))
    model = parse(network.model(network.dense(h, 32, 5)))
    rows = {"x": np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)}
    labels, _ = _labels(model, rows)
    (group,) = groups_of(labels)
    narrow, _ = without_channels(model, labels, narrower([group], {}, 0.5))
    dims = {tuple(item.dims) for item in narrow.graph.initializer if len(item.dims) == 2}
    assert dims == {(16, 32), (16, 16), (5, 16)}
    (found,) = answers(narrow.SerializeToString(), rows).values()
    assert found.shape == (4, 5)


def test_of_an_encoder_the_inner_neurons_go_and_the_stream_stays() -> None:
    network = Network()
    x = network.input("x", 6, 32)
    q, k, v = (network.linear(x, 32, 32) for _ in range(3))
    scores = network.op("MatMul", q, network.op("Transpose", k, perm=[0, 2, 1]))
    mixed = network.op("MatMul", network.op("Softmax", scores, axis=-1), v)
    ones, zeros = (network.constant(np.full(32, f, np.float32)) for f in (1, 0))
    h = network.op("LayerNormalization", network.op("Add", x, network.linear(mixed, 32, 32)),
                   ones, zeros, axis=-1)  # fmt: skip
    inner = network.linear(h, 32, 128)
    gate = network.op("Mul", inner, network.op("Sigmoid", inner))
    h = network.op("LayerNormalization", network.op("Add", h, network.linear(gate, 128, 32)),
                   ones, zeros, axis=-1)  # fmt: skip
    model = parse(network.model(h))
    rows = {"x": np.random.default_rng(0).standard_normal((4, 6, 32)).astype(np.float32)}
    labels, _ = _labels(model, rows)
    groups = groups_of(labels)
    assert [len(group.channels) for group in groups] == [128]
    narrow, _ = without_channels(model, labels, narrower(groups, {}, 0.25))
    (found,) = answers(narrow.SerializeToString(), rows).values()
    assert found.shape == (4, 6, 32)
    assert 32 in _widths(narrow).values()
    assert 128 not in _widths(narrow).values()


def test_maps_that_are_enlarged_and_joined() -> None:
    """As segmenting networks do; the size may be told by scales, but not by sizes."""
    network = Network()
    x = network.input("x", 3, 8, 8)
    h = network.op("Relu", network.conv(x, 3, 32))
    low = network.op("Relu", network.conv(h, 32, 64, strides=[2, 2]))
    scales = network.constant(np.array([1, 1, 2, 2], np.float32))
    up = network.op("Resize", low, "", scales, mode="linear")
    h = network.op("Concat", h, up, axis=1)
    model = parse(network.model(network.conv(h, 96, 2, 1)))
    rows = {"x": images(4)}
    groups = groups_of(_labels(model, rows)[0])
    assert sorted(len(group.channels) for group in groups) == [32, 64]
    narrow, _ = without_channels(model, _labels(model, rows)[0], narrower(groups, {}, 0.5))
    (found,) = answers(narrow.SerializeToString(), rows).values()
    assert found.shape == (4, 2, 8, 8)
