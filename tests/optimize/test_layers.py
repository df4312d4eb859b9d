"""Blocks that change least go, and what is left learns the same answers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelport.optimize.onnx_graph import parse
from modelport.optimize.passes.layers import LayersPass
from modelport.optimize.reduce.blocks import alikeness, blocks_of, without_blocks
from modelport.optimize.reduce.observe import observe_graph
from tests.optimize.networks import Network, agreement, answers, images, quiet, subject_of


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelport.optimize.train.recipe._MOST_STEPS", 120)


def _residual(blocks: int = 4, small: tuple[int, ...] = (1, 2), seed: int = 0) -> bytes:
    """A ResNet whose blocks of these places do hardly anything."""
    network = Network(seed)
    h = network.op("Relu", network.conv(network.input("x", 3, 8, 8), 3, 16))
    for at in range(blocks):
        inner = network.op("Relu", network.conv(h, 16, 16))
        last = network.conv(inner, 16, 16)
        if at in small:
            for item in network.constants[-2:]:
                array = numpy_helper.to_array(item) * np.float32(0.02)
                item.CopyFrom(numpy_helper.from_array(array, item.name))
        h = network.op("Relu", network.op("Add", h, last))
    h = network.op("Flatten", network.op("GlobalAveragePool", h))
    return network.model(network.dense(h, 16, 5))


def _encoder(layers: int, first: bool, seed: int = 0) -> bytes:
    """Encoder layers that normalize first or last."""
    network = Network(seed)
    h = network.input("x", 6, 16)
    ones, zeros = (network.constant(np.full(16, f, np.float32)) for f in (1, 0))

    def norm(x: str) -> str:
        name: str = network.op("LayerNormalization", x, ones, zeros, axis=-1)
        return name

    h = h if first else norm(h)
    for _ in range(layers):
        x = norm(h) if first else h
        q, k, v = (network.linear(x, 16, 16) for _ in range(3))
        scores = network.op("MatMul", q, network.op("Transpose", k, perm=[0, 2, 1]))
        mixed = network.op("MatMul", network.op("Softmax", scores, axis=-1), v)
        h = network.op("Add", h, network.linear(mixed, 16, 16))
        h = h if first else norm(h)
        x = norm(h) if first else h
        inner = network.op("Relu", network.linear(x, 16, 32))
        h = network.op("Add", h, network.linear(inner, 32, 16))
        h = h if first else norm(h)
    return network.model(network.op("ReduceMean", h, axes=[1], keepdims=0))


def test_blocks_of_residual_networks_end_after_their_relu() -> None:
    model, rows = parse(_residual()), {"x": images(4)}
    blocks = blocks_of(model, observe_graph(model, rows))
    assert len(blocks) == 4
    assert all(one.end == other.start for one, other in pairwise(blocks))
    alike = alikeness(model, blocks, rows)
    assert sorted(blocks, key=lambda block: -alike[block])[:2] in (
        [blocks[1], blocks[2]], [blocks[2], blocks[1]],
    )  # fmt: skip
    assert all(alike[blocks[at]] > 0.99 for at in (1, 2))


@pytest.mark.parametrize("first", [True, False])
def test_halves_of_encoder_layers_are_blocks(first: bool) -> None:
    random = np.random.default_rng(0)
    rows = {"x": random.standard_normal((4, 6, 16)).astype(np.float32)}
    model = parse(_encoder(2, first))
    blocks = blocks_of(model, observe_graph(model, rows))
    assert len(blocks) == 4
    before = len(model.graph.node)
    without = without_blocks(model, blocks[1:3])
    assert len(without.graph.node) < before
    onnx.checker.check_model(without)
    (found,) = answers(without.SerializeToString(), rows).values()
    assert found.shape == (4, 16)


def test_a_block_that_adds_nothing_may_go_without_a_trace() -> None:
    network = Network()
    x = network.input("x", 8)
    h = network.op("Relu", network.dense(x, 8, 16))
    zero = network.constant(np.zeros((16, 16), np.float32))
    h = network.op("Add", h, network.op("MatMul", network.op("Relu", h), zero))
    model = parse(network.model(h))
    rows = {"x": np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)}
    (block,) = blocks_of(model, observe_graph(model, rows))
    without = without_blocks(model, [block])
    assert [node.op_type for node in without.graph.node] == ["Gemm", "Relu", "Identity"]
    assert len(without.graph.initializer) == 2
    for one, other in zip(
        answers(model.SerializeToString(), rows).values(),
        answers(without.SerializeToString(), rows).values(),
        strict=True,
    ):
        assert np.array_equal(one, other)


def test_sums_of_two_branches_are_no_blocks() -> None:
    network = Network()
    x = network.input("x", 3, 8, 8)
    h = network.op("Add", network.conv(x, 3, 8), network.conv(x, 3, 8, 1))
    model = parse(network.model(h))
    assert blocks_of(model, observe_graph(model, {"x": images(4)})) == []
    why = LayersPass().refuses(subject_of(network.model(h), {"x": images(40)}))
    assert why == "no block adds to what it gets, so none can be left out"


def test_the_pass_leaves_out_what_hardly_matters_and_learns_the_rest() -> None:
    model, rows, fresh = _residual(), {"x": images(300)}, {"x": images(200, seed=5)}
    subject = subject_of(model, rows)
    one = LayersPass()
    assert one.refuses(subject) == ""
    (first, second) = list(one.variants(subject, quiet))
    assert first.detail["layers"]["multiplications"] <= 0.53
    assert second.detail["layers"]["multiplications"] <= 0.78
    assert len(first.model) < len(second.model) < len(model)
    (expected,) = answers(model, fresh).values()
    (found,) = answers(second.model, fresh).values()
    assert agreement(found, expected) > 0.9
    again = next(one.variants(subject, quiet))
    assert again.model == first.model


def test_an_encoder_keeps_its_shape() -> None:
    random = np.random.default_rng(0)
    rows = {"x": random.standard_normal((100, 6, 16)).astype(np.float32)}
    model = _encoder(3, first=True)
    subject = subject_of(model, rows)
    variant = next(LayersPass().variants(subject, quiet))
    (expected,), (found,) = subject.answers.values(), answers(variant.model, rows).values()
    assert found.shape == expected.shape
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.7
