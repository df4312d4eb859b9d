"""Static int8: what becomes of graphs, and how near their answers stay."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.base import Subject
from modelport.optimize.onnx_graph import parse, serialize
from modelport.optimize.passes import int8_static
from modelport.optimize.passes.int8_static import Int8StaticPass
from modelport.optimize.quantize.correction import correct
from modelport.optimize.quantize.ranges import METHODS, Range, observe
from modelport.optimize.quantize.rounding import Rounder
from modelport.optimize.quantize.static import (
    activations,
    quantize,
    source_graph,
    weighted_nodes,
)
from modelport.optimize.session import Probe, Walk, served
from tests.optimize.subjects import (
    convolutions,
    graph,
    images,
    kinds,
    noise,
    run,
    same_labels,
    subject,
    variants,
)


@pytest.fixture(scope="module")
def network() -> bytes:
    return convolutions()


@pytest.fixture(scope="module")
def about(network: bytes) -> Subject:
    return subject(network, {"x": images()[0][1200:1400]})


@pytest.fixture(scope="module")
def unseen() -> dict[str, Array]:
    return {"x": images()[0][1400:]}


def test_labels_stay_and_bytes_go(about: Subject, network: bytes, unseen: dict[str, Array]) -> None:
    found = variants(Int8StaticPass(), about)
    assert list(found) == ["int8-static", "int8-static, 1 float"]
    wanted = run(network, unseen)
    for variant in found.values():
        assert len(variant.model) < len(network) / 2.5
        answers = run(variant.model, unseen)
        assert same_labels(wanted, answers, "scores") >= 0.98
        assert noise(wanted["scores"], answers["scores"]) < -25
        assert variant.row_independent
    assert found["int8-static"].detail["int8-static"]["left_float"] == []
    (left,) = found["int8-static, 1 float"].detail["int8-static"]["left_float"]
    assert left == "/stem/stem.0/Conv"


def test_no_clip_is_left_between_bytes(about: Subject) -> None:
    plain = variants(Int8StaticPass(), about)["int8-static"].model
    assert not kinds(plain).keys() & {"Clip", "Relu", "BatchNormalization"}
    as_it_runs = kinds(plain, optimized=True)
    assert as_it_runs["QLinearConv"] == 4
    assert as_it_runs["Conv"] == 0


def test_the_same_bytes_every_time(about: Subject) -> None:
    one, other = (next(Int8StaticPass().variants(about, lambda line: None)) for _ in range(2))
    assert one.model == other.model


@pytest.fixture(scope="module")
def prepared(about: Subject) -> tuple[onnx.ModelProto, dict[str, Range]]:
    source = source_graph(about.variant.model)
    return source, observe(source, activations(source), about.rows, histograms=50)


def test_rounding_and_correction_lower_the_noise(
    about: Subject, prepared: tuple[onnx.ModelProto, dict[str, Range]], unseen: dict[str, Array]
) -> None:
    source, ranges = prepared
    nodes = weighted_nodes(source)
    wanted = served(source, unseen)["scores"]

    def decibels(model: onnx.ModelProto) -> float:
        return noise(wanted, served(model, unseen)["scores"])

    nearest = quantize(source, ranges, "minmax")
    rounded = quantize(source, ranges, "minmax")
    assert Rounder(source, nodes, about.rows).apply(rounded) == len(nodes) == 6
    assert decibels(rounded) < decibels(nearest)
    before = decibels(rounded)
    assert correct(source, rounded, nodes, about.rows) == 6
    assert decibels(rounded) < before


def test_biases_move_means_back(
    about: Subject, prepared: tuple[onnx.ModelProto, dict[str, Range]]
) -> None:
    source, ranges = prepared
    nodes = weighted_nodes(source)
    coarse = {
        name: item if name == "scores" else Range(item.low * 0.7, item.high * 0.7)
        for name, item in ranges.items()
    }
    model = quantize(source, coarse, "minmax")
    wanted = served(source, about.rows)["scores"].mean(axis=0)
    before = np.abs(served(model, about.rows)["scores"].mean(axis=0) - wanted).max()
    correct(source, model, nodes, about.rows)
    after = np.abs(served(model, about.rows)["scores"].mean(axis=0) - wanted).max()
    assert after < before / 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_calibration(
    method: str, prepared: tuple[onnx.ModelProto, dict[str, Range]], unseen: dict[str, Array]
) -> None:
    source, ranges = prepared
    answers = served(quantize(source, ranges, method), unseen)
    assert same_labels(served(source, unseen), answers, "scores") > 0.95


def test_a_node_left_in_float32_stays_so(
    prepared: tuple[onnx.ModelProto, dict[str, Range]],
) -> None:
    """ONNX Runtime would quantize it all the same, with one scale for all its weights."""
    source, ranges = prepared
    depthwise = weighted_nodes(source)[2].name
    found = serialize(quantize(source, ranges, "minmax", [depthwise]))
    as_it_runs = kinds(found, optimized=True)
    assert as_it_runs["QLinearConv"] == 3
    assert as_it_runs["Conv"] == 1


def test_seven_bits_where_sums_would_saturate(
    prepared: tuple[onnx.ModelProto, dict[str, Range]], about: Subject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source, ranges = prepared
    model = quantize(source, ranges, "minmax", narrow=True)
    Rounder(source, weighted_nodes(source), about.rows).apply(model)
    integers = [
        onnx.numpy_helper.to_array(item)
        for item in model.graph.initializer
        if item.data_type == onnx.TensorProto.INT8 and len(item.dims) > 1
    ]
    assert len(integers) == 6
    assert max(np.abs(array.astype(int)).max() for array in integers) <= 64
    monkeypatch.setattr(int8_static, "_multiplies_bytes", lambda: False)
    found = variants(Int8StaticPass(), about)["int8-static"]
    assert found.detail["int8-static"]["weight_bits"] == 7


def test_sensitive_nodes_are_left_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, about: Subject
) -> None:
    """As long as the calibration rows lose more than half of the budget."""
    losses = iter([0.3, 0.3, 0.2, 0.0, 0.0])
    monkeypatch.setattr(int8_static, "_loss", lambda expected, found: next(losses))
    found = variants(Int8StaticPass(), about)
    counts = [len(item.detail["int8-static"]["left_float"]) for item in found.values()]
    assert counts == list(range(len(counts)))
    assert 2 <= len(counts) <= 4


def test_one_walk_computes_what_the_whole_graph_computes(
    prepared: tuple[onnx.ModelProto, dict[str, Range]], unseen: dict[str, Array]
) -> None:
    source, _ = prepared
    rows = {"x": unseen["x"][:10]}
    walk = Walk(source, rows, 4)
    whole = Probe(source, [node.output[0] for node in source.graph.node]).run(rows)
    for node in source.graph.node:
        parts = walk.to(node.output[0])
        assert [len(part) for part in parts] == [4, 4, 2]
        np.testing.assert_allclose(np.concatenate(parts), whole[node.output[0]], atol=1e-5)


def test_what_it_refuses(about: Subject) -> None:
    one = Int8StaticPass()
    tree = graph([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": ["N", 4]}, {"y": ["N", 4]})
    rows = {"x": np.ones((8, 4), dtype=np.float32)}
    assert one.refuses(subject(tree, rows)) == "no convolutions and no matrices"
    quantized = variants(one, about)["int8-static"]
    again = subject(quantized.model, about.rows)
    assert one.refuses(again) == "it is quantized already"
    made = [
        helper.make_node("MatMul", ["x", "w"], ["keys"]),
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["keys", "turned"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    shapes = {"x": ["N", 5, 16]}, {"y": ["N", 5, 5]}
    attention = graph(made, {"w": gaussian(16, 16)}, *shapes)
    rows = {"x": np.random.default_rng(0).normal(size=(8, 5, 16)).astype(np.float32)}
    assert one.refuses(subject(attention, rows)).startswith("transformers have outliers")


def dense(weight: Array, *, opset: int = 17, softmax: bool = False) -> bytes:
    made = [helper.make_node("MatMul", ["x", "w"], ["z" if softmax else "y"])]
    if softmax:
        made.append(helper.make_node("Softmax", ["z"], ["y"]))
    shapes = {"x": ["N", weight.shape[0]]}, {"y": ["N", weight.shape[1]]}
    return graph(made, {"w": weight}, *shapes, opset=opset)


def gaussian(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("opset", [9, 12, 17])
def test_perceptrons_of_any_opset(softmax: bool, opset: int) -> None:
    rows = {"x": gaussian(100, 32)}
    model = dense(gaussian(32, 8), opset=opset, softmax=softmax)
    found = variants(Int8StaticPass(), subject(model, rows))["int8-static"].model
    assert "DequantizeLinear" in kinds(found)
    assert noise(run(model, rows)["y"], run(found, rows)["y"]) < -30


def branch(weight: Array) -> onnx.GraphProto:
    inner = helper.make_node("MatMul", ["x", "inner"], ["inside"])
    value = helper.make_tensor_value_info("inside", onnx.TensorProto.FLOAT, ["N", weight.shape[1]])
    return helper.make_graph(
        [inner], "branch", [], [value], [onnx.numpy_helper.from_array(weight, "inner")]
    )


def branching(weight: Array) -> bytes:
    """The weights are in the branches of an If."""
    made = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "limit"], ["there"]),
        helper.make_node(
            "If", ["there"], ["y"], then_branch=branch(weight), else_branch=branch(-weight)
        ),
    ]
    shapes = {"x": ["N", weight.shape[0]]}, {"y": ["N", weight.shape[1]]}
    return graph(made, {"limit": np.zeros((), dtype=np.float32)}, *shapes)


def reaching_out(sign: int) -> onnx.GraphProto:
    made = [
        helper.make_node("MatMul", ["x", "w"], [f"inside_{sign}"]),
        helper.make_node("Mul", [f"inside_{sign}", "h"], [f"out_{sign}"]),
    ]
    value = helper.make_tensor_value_info(f"out_{sign}", onnx.TensorProto.FLOAT, ["N", 64])
    return helper.make_graph(made, "branch", [], [value])


def sharing() -> bytes:
    """The branches of an If use weights, an input and a hidden layer of what is around them."""
    made = [
        helper.make_node("Gemm", ["x", "w", "b"], ["g"]),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "limit"], ["there"]),
        helper.make_node(
            "If", ["there"], ["z"], then_branch=reaching_out(1), else_branch=reaching_out(2)
        ),
        helper.make_node("Add", ["z", "h"], ["y"]),
    ]
    weights = {"w": gaussian(32, 64), "b": gaussian(64), "limit": np.zeros((), dtype=np.float32)}
    return graph(made, weights, {"x": ["N", 32]}, {"y": ["N", 64]})


def test_branches_that_read_what_is_around_them() -> None:
    model, rows = sharing(), {"x": gaussian(60, 32)}
    found = variants(Int8StaticPass(), subject(model, rows))["int8-static"].model
    assert "DequantizeLinear" in kinds(found)
    assert noise(run(model, rows)["y"], run(found, rows)["y"]) < -30


def test_weights_only_in_branches() -> None:
    about = subject(branching(gaussian(32, 8)), {"x": gaussian(40, 32)})
    with pytest.raises(UnsupportedError, match="constant float32 weights outside branches"):
        variants(Int8StaticPass(), about)


def test_a_fixed_number_of_rows() -> None:
    weight = gaussian(32, 8)
    made = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = graph(made, {"w": weight}, {"x": [4, 32]}, {"y": [4, 8]})
    rows = {"x": gaussian(4, 32)}
    about = subject(model, rows)
    for count in (42, 3):
        more = replace(about, rows={"x": gaussian(count, 32)})
        found = variants(Int8StaticPass(), more)["int8-static"].model
        assert noise(run(model, rows)["y"], run(found, rows)["y"]) < -20


def test_weights_of_float64_are_refused() -> None:
    double = onnx.TensorProto.DOUBLE
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"])]
    model = helper.make_model(
        helper.make_graph(
            nodes, "double", [helper.make_tensor_value_info("x", double, ["N", 32])],
            [helper.make_tensor_value_info("y", double, ["N", 8])],
            [onnx.numpy_helper.from_array(gaussian(32, 8).astype(np.float64), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    about = subject(model.SerializeToString(), {"x": gaussian(60, 32).astype(np.float64)})
    with pytest.raises(UnsupportedError, match="constant float32 weights"):
        variants(Int8StaticPass(), about)


def test_weights_and_biases_of_several_nodes() -> None:
    """What one of them needs would be wrong for the other."""
    made = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"], "first"),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("Gemm", ["r", "w", "b"], ["y"], "second"),
    ]
    weights = {"w": gaussian(32, 32), "b": gaussian(32)}
    model = graph(made, weights, {"x": ["N", 32]}, {"y": ["N", 32]})
    rows = {"x": gaussian(60, 32)}
    found = variants(Int8StaticPass(), subject(model, rows))["int8-static"].model
    assert noise(run(model, rows)["y"], run(found, rows)["y"]) < -30


def test_what_has_shrunk_grows_again(
    about: Subject, prepared: tuple[onnx.ModelProto, dict[str, Range]]
) -> None:
    source, ranges = prepared
    model = quantize(source, ranges, "minmax")
    for item in model.graph.initializer:
        if item.name.endswith("weight_scale") or item.name.endswith("_quantized_scale"):
            array = onnx.numpy_helper.to_array(item)
            item.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array * 0.97), item.name))

    def slope(found: onnx.ModelProto) -> float:
        one, other = (served(item, about.rows)["scores"] for item in (source, found))
        one, other = one - one.mean(axis=0), other - other.mean(axis=0)
        return float(np.sum(one * other) / np.sum(one**2))

    assert slope(model) < 0.95
    correct(source, model, weighted_nodes(source), about.rows)
    assert abs(slope(model) - 1) < 0.01


def test_no_time_to_look_at_all_rows(about: Subject) -> None:
    """Weights are not fitted to the few that there was time for."""
    source = source_graph(about.variant.model)
    nodes = weighted_nodes(source)
    rounder = Rounder(source, nodes, about.rows, deadline=time.monotonic())
    ranges = observe(source, activations(source), about.rows, histograms=0)
    assert rounder.apply(quantize(source, ranges, "minmax")) == 0


def test_a_narrow_start_is_left_in_float32() -> None:
    """The stem, its depthwise convolution, and the few channels that they end in."""
    sizes = {"stem": (16, 3, 3, 3), "each": (16, 1, 3, 3), "few": (8, 16, 1, 1),
             "wide": (64, 8, 1, 1), "last": (8, 64, 1, 1)}  # fmt: skip
    made, last = [], "x"
    for name in sizes:
        group = 16 if name == "each" else 1
        pads = [1, 1, 1, 1] if sizes[name][2] == 3 else [0] * 4
        made.append(helper.make_node("Conv", [last, name], [f"{name}_out"], name,
                                     group=group, pads=pads))  # fmt: skip
        last = f"{name}_out"
    made.append(helper.make_node("Identity", [last], ["y"]))
    weights = {name: gaussian(*size) for name, size in sizes.items()}
    model = graph(made, weights, {"x": ["N", 3, 8, 8]}, {"y": ["N", 8, 8, 8]})
    found = variants(Int8StaticPass(), subject(model, {"x": gaussian(20, 3, 8, 8)}))
    left = found["int8-static, 3 float"].detail["int8-static"]["left_float"]
    assert left == ["stem", "each", "few"]
    as_it_runs = kinds(found["int8-static, 3 float"].model, optimized=True)
    assert as_it_runs["QLinearConv"] == 2


def test_several_inputs() -> None:
    made = [
        helper.make_node("MatMul", ["a", "w"], ["left"]),
        helper.make_node("MatMul", ["b", "v"], ["right"]),
        helper.make_node("Add", ["left", "right"], ["y"]),
    ]
    weights = {"w": gaussian(32, 8), "v": gaussian(16, 8)}
    model = graph(made, weights, {"a": ["N", 32], "b": ["N", 16]}, {"y": ["N", 8]})
    rows = {"a": gaussian(60, 32), "b": gaussian(60, 16) * 3}
    found = variants(Int8StaticPass(), subject(model, rows))["int8-static"].model
    assert noise(run(model, rows)["y"], run(found, rows)["y"]) < -30


@pytest.mark.parametrize(
    "change",
    [{"pads": [1, 0, 2, 1]}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, {"dilations": [2, 1]},
     {"group": 2}, {"auto_pad": "SAME_LOWER"}],
    ids=str,
)  # fmt: skip
def test_convolutions_of_every_kind(change: dict[str, object]) -> None:
    groups = 2 if "group" in change else 1
    weight = gaussian(6, 4 // groups, 3, 3)
    node = helper.make_node("Conv", ["x", "w"], ["y"], **change)
    shape = {"x": ["N", 4, 9, 9]}, {"y": ["N", 6, "height", "width"]}
    model = graph([node], {"w": weight}, *shape)
    rows = {"x": np.cumsum(gaussian(40, 4, 9, 9), axis=3)}
    source = source_graph(model)
    ranges = observe(source, activations(source), rows, histograms=0)
    nearest = quantize(source, ranges, "minmax")
    rounded = quantize(source, ranges, "minmax")
    Rounder(source, weighted_nodes(source), rows).apply(rounded)
    correct(source, rounded, weighted_nodes(source), rows)
    wanted = run(model, rows)["y"]
    assert noise(wanted, served(rounded, rows)["y"]) < noise(wanted, served(nearest, rows)["y"])


def test_an_histogram_may_cut_an_outlier() -> None:
    values = gaussian(4000, 1)
    values[0] = 1000
    model = parse(graph(
        [helper.make_node("Identity", ["x"], ["y"])], {}, {"x": ["N", 1]}, {"y": ["N", 1]}
    ))  # fmt: skip
    found = observe(model, ["x"], {"x": values}, histograms=4000)["x"]
    assert found.cut("minmax")[1] == 1000
    for method, most in (("percentile", 1000), ("entropy", 200), ("mse", 1000)):
        low, high = found.cut(method)
        assert low <= 0 <= high <= most


def test_the_range_with_the_least_squares_of_errors() -> None:
    """Against the errors of a quantizer that really cuts and rounds."""
    values = np.random.default_rng(0).standard_t(4, size=(20000, 1)).astype(np.float32)
    model = parse(graph(
        [helper.make_node("Identity", ["x"], ["y"])], {}, {"x": ["N", 1]}, {"y": ["N", 1]}
    ))  # fmt: skip
    item = observe(model, ["x"], {"x": values}, histograms=20000)["x"]

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        return float(np.mean((np.round(np.clip(values, low, high) / step) * step - values) ** 2))

    best = min(
        error(item.low * one, item.high * other)
        for one in np.linspace(0.2, 1, 17) for other in np.linspace(0.2, 1, 17)
    )  # fmt: skip
    assert error(*item.cut("mse")) < best * 1.02
    assert error(*item.cut("mse")) < error(*item.cut("minmax")) * 0.96


def test_fewer_rows_where_tensors_are_large(
    monkeypatch: pytest.MonkeyPatch, about: Subject
) -> None:
    source = source_graph(about.variant.model)

    def counts() -> tuple[int, ...]:
        return tuple(len(rows["x"]) for rows in int8_static._limited(source, about.rows))

    assert counts() == (200, 200)  # all that there are
    monkeypatch.setattr(int8_static, "_BYTES", 32 * 8 * 8 * 4 * 40)
    assert counts() == (80, 40)
    monkeypatch.setattr(int8_static, "_BYTES", 1)
    assert counts() == (64, 16)


def test_answers_are_never_cut() -> None:
    """One class of very many has a large score, and that is the answer."""
    model = source_graph(dense(gaussian(32, 8)))
    rows = {"x": gaussian(100, 32)}
    ranges = observe(model, activations(model), rows, histograms=100)
    rare = np.ones_like(ranges["y"].histogram)
    rare[len(rare) // 2] = 10**9
    ranges["y"] = replace(ranges["y"], histogram=rare)
    assert ranges["y"].cut("mse")[1] < ranges["y"].high * 0.5
    wanted = served(model, rows)["y"]
    found = served(quantize(model, ranges, "mse"), rows)["y"]
    assert np.abs(found - wanted).max() < np.abs(wanted).max() * 0.05
