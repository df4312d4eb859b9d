"""Matrices of 8 and 4 bits."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.passes.weight_only import WeightOnlyPass
from modelport.optimize.quantize.rounding import Order
from modelport.optimize.quantize.weight_only import BLOCKS, blocks, packed
from tests.optimize.subjects import graph, kinds, noise, run, subject, variants
from tests.optimize.test_int8_static import branching, gaussian


def widened(integers: Array, scales: Array, bits: int, inputs: int) -> Array:
    values = (integers - 2 ** (bits - 1)) * scales[:, :, None]
    return values.reshape(len(integers), -1)[:, :inputs]


@pytest.mark.parametrize("bits", BLOCKS)
@pytest.mark.parametrize("inputs", [300, 288])
@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
def test_the_engine_reads_what_was_written(bits: int, inputs: int, kind: str) -> None:
    weight = gaussian(inputs, 256)
    names = ["x", "w"] if kind == "MatMul" else ["x", "w", "b"]
    weights = {"w": weight} if kind == "MatMul" else {"w": weight, "b": gaussian(256)}
    shapes = {"x": ["N", inputs]}, {"y": ["N", 256]}
    model = graph([helper.make_node(kind, names, ["y"])], weights, *shapes)
    rows = {"x": gaussian(200, inputs)}
    found = variants(WeightOnlyPass(), subject(model, rows))
    variant = found[f"weight-only, {bits} bits"]
    assert kinds(variant.model)["MatMulNBits"] == 1
    assert len(variant.model) < len(model) * (0.34 if bits == 8 else 0.2)
    assert noise(run(model, rows)["y"], run(variant.model, rows)["y"]) < (-36 if bits == 8 else -16)
    assert variant.row_independent


@pytest.mark.parametrize("bits", BLOCKS)
def test_no_weight_is_further_off_than_half_a_step(bits: int) -> None:
    weight = gaussian(7, 100)
    weight[3] = 0
    integers, scales = blocks(weight, bits, 32, None)
    assert integers.shape == (7, 4, 32)
    assert integers.min() >= 0
    assert integers.max() <= 2**bits - 1
    error = np.abs(widened(integers, scales, bits, 100) - weight)
    steps = np.repeat(np.abs(scales), 32, axis=1)[:, :100]
    # What is opposite to the largest weight has one step less.
    assert np.all(error <= steps * 1.0001)
    assert np.mean(error <= steps / 2 * 1.0001) > 0.95


def test_errors_cancel_where_inputs_go_together() -> None:
    weight = gaussian(16, 64)
    inputs = np.cumsum(gaussian(500, 64), axis=1)
    order = Order.of((inputs.T @ inputs).astype(np.float64)[None] / len(inputs))

    def error(integers: Array, scales: Array) -> float:
        return float(np.sum((inputs @ (widened(integers, scales, 4, 64) - weight).T) ** 2))

    assert error(*blocks(weight, 4, 32, order)) < error(*blocks(weight, 4, 32, None)) / 4


def test_two_numbers_per_byte() -> None:
    numbers = np.arange(16).reshape(1, 1, 16)
    assert packed(numbers, 8).tolist() == [[list(range(16))]]
    assert packed(numbers, 4)[0, 0].tolist() == [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]


def test_branches() -> None:
    model = branching(gaussian(512, 256))
    rows = {"x": gaussian(20, 512)}
    found = variants(WeightOnlyPass(), subject(model, rows))
    for bits in BLOCKS:
        variant = found[f"weight-only, {bits} bits"]
        assert kinds(variant.model)["MatMulNBits"] == 2
        wanted = run(model, rows)["y"]
        assert noise(wanted, run(variant.model, rows)["y"]) < (-36 if bits == 8 else -16)


def test_small_matrices_are_refused() -> None:
    shapes = {"x": ["N", 64]}, {"y": ["N", 64]}
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": gaussian(64, 64)}, *shapes)
    with pytest.raises(UnsupportedError, match="has 4,096 numbers; it pays from 65,536 on"):
        variants(WeightOnlyPass(), subject(model, {"x": gaussian(20, 64)}))
