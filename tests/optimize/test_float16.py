"""Half the bytes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.optimize.onnx_graph import parse
from modelport.optimize.passes.float16 import Float16Pass
from tests.optimize.subjects import graph, kinds, noise, run, subject, variants
from tests.optimize.test_int8_static import branching, dense, gaussian


def test_weights_are_rounded_and_nothing_else_changes() -> None:
    model = dense(gaussian(64, 64))
    rows = {"x": gaussian(50, 64)}
    found = variants(Float16Pass(), subject(model, rows))
    assert list(found) == ["float16", "float16, everything"]
    narrow = found["float16"].model
    assert len(narrow) < len(model) * 0.55
    assert kinds(narrow, optimized=True) == {"MatMul": 1}  # the Cast is folded
    rounded = dense(gaussian(64, 64).astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(run(narrow, rows)["y"], run(rounded, rows)["y"])
    everything = found["float16, everything"].model
    assert noise(run(model, rows)["y"], run(everything, rows)["y"]) < -55
    assert len(everything) < len(model) * 0.55


def test_what_float16_cannot_hold_becomes_bfloat16() -> None:
    weight = gaussian(64, 64) * 1e5
    rows = {"x": gaussian(50, 64)}
    model = dense(weight)
    found = variants(Float16Pass(), subject(model, rows))["float16"].model
    assert len(found) < len(model) * 0.55
    assert -60 < noise(run(model, rows)["y"], run(found, rows)["y"]) < -45
    with pytest.raises(UnsupportedError, match="beyond float16's range"):
        variants(Float16Pass(), subject(dense(weight, opset=11), rows))


def test_constant_nodes_and_branches() -> None:
    made = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(gaussian(64, 32))),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    rows = {"x": gaussian(50, 64)}
    for model in (
        graph(made, {}, {"x": ["N", 64]}, {"y": ["N", 32]}), branching(gaussian(64, 32))
    ):  # fmt: skip
        found = variants(Float16Pass(), subject(model, rows))["float16"].model
        assert len(found) < len(model) * 0.6
        assert noise(run(model, rows)["y"], run(found, rows)["y"]) < -55


def test_weights_that_are_inputs_with_a_default() -> None:
    """As graphs of the first versions have them."""
    model = parse(dense(gaussian(64, 64), opset=9))
    model.ir_version = 3
    value = helper.make_tensor_value_info("w", 1, [64, 64])
    model.graph.input.append(value)
    rows = {"x": gaussian(50, 64)}
    about = subject(model.SerializeToString(), rows)
    found = variants(Float16Pass(), about)["float16"].model
    wanted = run(about.variant.model, rows)["y"]
    assert noise(wanted, run(found, rows)["y"]) < -55


def test_everything_only_where_it_loads() -> None:
    made = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softsign", ["z"], ["y"]),  # has no kernel for float16 on processors
    ]
    model = graph(made, {"w": gaussian(64, 64)}, {"x": ["N", 64]}, {"y": ["N", 64]})
    rows = {"x": gaussian(50, 64)}
    for variant in variants(Float16Pass(), subject(model, rows)).values():
        assert noise(run(model, rows)["y"], run(variant.model, rows)["y"]) < -50


def test_nothing_to_narrow() -> None:
    about = subject(dense(gaussian(4, 4)), {"x": gaussian(5, 4)})
    assert Float16Pass().refuses(about) == "no float32 weights of at least 1024 numbers"
