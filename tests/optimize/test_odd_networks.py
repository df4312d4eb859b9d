"""Odd but legal graphs are trained or refused, with a reason; nothing falls over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from modelport.core.errors import ModelportError
from modelport.optimize.onnx_graph import parse
from modelport.optimize.passes.channels import ChannelsPass
from modelport.optimize.passes.layers import LayersPass
from modelport.optimize.passes.network_student import NetworkStudentPass
from modelport.optimize.passes.prune import PrunePass
from modelport.optimize.reduce.sparsity import dense, sparse
from tests.optimize.networks import Network, answers, quiet, subject_of

PASSES: dict[str, Any] = {
    one.name: one for one in (ChannelsPass(), LayersPass(), PrunePass(), NetworkStudentPass())
}
#: What a pass says that does its work.
MADE = "made"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelport.optimize.train.recipe._MOST_STEPS", 15)


def _rows(count: int = 300) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {"x": random.standard_normal((count, 12)).astype(np.float32)}


def _perceptron(network: Network, x: str, width: int = 64) -> str:
    h = network.op("Relu", network.dense(x, 12, width))
    h = network.op("Relu", network.dense(h, width, width))
    return network.dense(h, width, 3)


def _said(model: bytes, rows: dict[str, np.ndarray]) -> dict[str, str]:
    """By pass: why not, or that it made something that answers finite numbers."""
    subject, said = subject_of(model, rows), {}
    for name, one in PASSES.items():
        why = one.refuses(subject)
        try:
            if not why:
                variant = next(one.variants(subject, quiet))
                found = answers(variant.model, rows)
                assert list(found) == list(subject.answers)
                assert all(np.isfinite(array).all() for array in found.values())
                why = MADE
        except ModelportError as error:
            why = error.message
        said[name] = why
    return said


def _scalar(network: Network, y: str) -> list[str]:
    return [y, network.op("ReduceMean", y, keepdims=0)]


def _twice(network: Network, y: str) -> list[str]:
    return [y, network.op("Concat", y, y, axis=0)]


def _empty(network: Network, y: str) -> list[str]:
    zero, one = (network.constant(np.array([number])) for number in (0, 1))
    return [y, network.op("Slice", y, zero, zero, one)]


def _same(network: Network, y: str) -> list[str]:
    nothing = network.op("Mul", y, network.constant(np.float32(0)))
    return [y, network.op("Add", nothing, network.constant(np.float32(5)))]


@pytest.mark.parametrize("outputs", [_scalar, _twice, _empty, _same])
def test_outputs_without_one_answer_per_row(
    outputs: Callable[[Network, str], list[str]],
) -> None:
    network = Network()
    y = _perceptron(network, network.input("x", 12))
    said = _said(network.model(*outputs(network, y)), _rows())
    assert said["prune"] == MADE
    assert said["channels"] == MADE


def test_weights_that_are_stored_sparse() -> None:
    network, rows = Network(), _rows()
    model = parse(network.model(_perceptron(network, network.input("x", 12), 256)))
    random = np.random.default_rng(0)
    for item in model.graph.initializer:
        if list(item.dims) == [256, 256]:
            array = onnx.numpy_helper.to_array(item) * (random.random((256, 256)) < 0.1)
            item.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), item.name))
    stored, count = sparse(model, [item.name for item in model.graph.initializer])
    assert count == 1
    again = {
        item.name: onnx.numpy_helper.to_array(item) for item in dense(stored).graph.initializer
    }
    for item in model.graph.initializer:
        assert np.array_equal(again[item.name], onnx.numpy_helper.to_array(item))
    said = _said(stored.SerializeToString(), rows)
    assert said["channels"] == said["prune"] == MADE


def test_nothing_to_train() -> None:
    network = Network()
    h = network.input("x", 6, 16)
    for _ in range(2):
        scores = network.op("MatMul", h, network.op("Transpose", h, perm=[0, 2, 1]))
        h = network.op("Add", h, network.op("MatMul", network.op("Softmax", scores, axis=-1), h))
    rows = {"x": np.random.default_rng(0).standard_normal((100, 6, 16)).astype(np.float32)}
    said = _said(network.model(network.op("ReduceMean", h, axes=[1], keepdims=0)), rows)
    assert all("no float32 weights" in said[name] for name in ("channels", "layers", "prune"))
    network = Network()
    y = _perceptron(network, network.input("x", 12))
    label = network.op("ArgMax", y, axis=1, keepdims=0)
    said = _said(network.model(network.op("Identity", "x"), label), _rows())
    assert "no float32 weights that its float32 outputs depend on" in said["channels"]


def test_rows_and_answers_that_are_no_numbers() -> None:
    network, rows = Network(), _rows()
    rows["x"][3, 2] = np.nan
    said = _said(network.model(_perceptron(network, network.input("x", 12))), rows)
    assert "NaN or infinite on 1 of 300 rows" in said["channels"]
    network = Network()
    x = network.input("x", 12)
    zero = network.constant(np.float32(0))
    h = network.op("Where", network.op("IsNaN", x), zero, x)
    said = _said(network.model(_perceptron(network, h, 256)), rows)
    assert said["network-student"] == "its input x holds NaN or infinities"


def test_a_part_of_a_split_that_nothing_reads() -> None:
    network = Network()
    h = network.op("Relu", network.dense(network.input("x", 12), 12, 96))
    one, other, _ = network.op("Split", h, outputs=3, axis=1)
    h = network.op("Relu", network.op("Add", one, other))
    assert _said(network.model(network.dense(h, 32, 3)), _rows())["prune"] == MADE


@pytest.mark.parametrize("kind", ["Gather", "Slice"])
def test_channels_that_change_places_stay(kind: str) -> None:
    network = Network()
    h = network.op("Relu", network.dense(network.input("x", 12), 12, 64))
    if kind == "Gather":
        order = network.constant(np.random.default_rng(0).permutation(64))
        h = network.op("Gather", h, order, axis=1)
    else:
        start, end, axis, step = (network.constant(np.array([n])) for n in (63, -65, 1, -1))
        h = network.op("Slice", h, start, end, axis, step)
    h = network.op("Relu", network.dense(h, 64, 64))
    model, rows = network.model(network.dense(h, 64, 3)), _rows()
    assert _said(model, rows)["channels"] == MADE
    variant = next(ChannelsPass().variants(subject_of(model, rows), quiet))
    assert list(variant.detail["channels"]["widths"].values()) == [64, 16, 3]


def test_channels_that_are_enlarged_stay() -> None:
    network = Network()
    h = network.op("Relu", network.conv(network.input("x", 3, 8, 8), 3, 32))
    scales = network.constant(np.array([1, 2, 1, 1], np.float32))
    h = network.op("Resize", h, "", scales, mode="nearest")
    h = network.op("Relu", network.conv(h, 64, 64))
    h = network.op("Flatten", network.op("GlobalAveragePool", h))
    rows = {"x": np.random.default_rng(0).standard_normal((60, 3, 8, 8)).astype(np.float32)}
    model = network.model(network.dense(h, 64, 3))
    variant = next(ChannelsPass().variants(subject_of(model, rows), quiet))
    widths = list(variant.detail["channels"]["widths"].values())
    assert widths[0] == 32
    assert widths[1] < 64


def test_inputs_of_other_types() -> None:
    for kind, dtype in ((TensorProto.DOUBLE, np.float64), (TensorProto.UINT8, np.uint8)):
        network = Network()
        x = network.op("Cast", network.input("x", 12, kind=kind), to=1)
        rows = {"x": np.abs(_rows()["x"]).astype(dtype)}
        said = _said(network.model(_perceptron(network, x)), rows)
        assert said["channels"] == said["prune"] == MADE
        assert said["network-student"] == "a student has one input of float32 numbers"


def test_a_norm_with_a_second_output_ends_no_block() -> None:
    network = Network()
    ones, zeros = (network.constant(np.full(16, f, np.float32)) for f in (1, 0))
    h = network.op("LayerNormalization", network.input("x", 6, 16), ones, zeros, axis=-1)
    parts = []
    for _ in range(2):
        inner = network.op("Relu", network.linear(h, 16, 32))
        h = network.op("Add", h, network.linear(inner, 32, 16))
        h, mean = network.op("LayerNormalization", h, ones, zeros, outputs=2, axis=-1)
        parts.append(mean)
    h = network.op("Add", h, network.op("Add", *parts))
    rows = {"x": np.random.default_rng(0).standard_normal((100, 6, 16)).astype(np.float32)}
    said = _said(network.model(network.op("ReduceMean", h, axes=[1], keepdims=0)), rows)
    assert said["layers"] in (MADE, "no block adds to what it gets, so none can be left out")
