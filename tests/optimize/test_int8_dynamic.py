"""Dynamic int8: transformers, recurrent networks, embeddings, branches."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.base import Subject, Variant
from modelport.optimize.onnx_graph import parse, serialize
from modelport.optimize.passes.int8_dynamic import Int8DynamicPass
from modelport.optimize.quantize.dynamic import Plan, quantize_dynamically
from modelport.optimize.quantize.products import observe_products
from modelport.optimize.quantize.smoothing import smoothing
from modelport.optimize.session import simplified
from tests.optimize.subjects import (
    cosines,
    exported,
    graph,
    images,
    kinds,
    noise,
    run,
    same_labels,
    subject,
    trained,
    variants,
)
from tests.optimize.test_int8_static import branching, gaussian, sharing

WIDTH = 64


def first(model: bytes, rows: dict[str, Array]) -> Variant:
    return variants(Int8DynamicPass(), subject(model, rows))["int8-dynamic"]


class Encoder(nn.Module):
    """Embedding, one layer of attention, a mean; a few columns have outliers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(512, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, 32)
        with torch.no_grad():
            self.norm.weight[::16] *= 30

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.table(ids))
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 800
        x = torch.softmax(scores, dim=-1) @ self.value(x) + x
        return nn.functional.normalize(self.out(x).mean(dim=1), dim=1)


@pytest.fixture(scope="module")
def encoder() -> bytes:
    return exported(Encoder(), {"ids": torch.zeros(2, 12, dtype=torch.long)}, "y")


def sentences(count: int, seed: int) -> dict[str, Array]:
    return {"ids": np.random.default_rng(seed).integers(0, 512, (count, 12))}


@pytest.fixture(scope="module")
def about(encoder: bytes) -> Subject:
    return subject(encoder, sentences(100, 0))


def test_smoothing_saves_what_outliers_would_cost(about: Subject, encoder: bytes) -> None:
    found = variants(Int8DynamicPass(), about)
    assert list(found) == ["int8-dynamic", "int8-dynamic, smooth"]
    unseen = sentences(100, 1)
    wanted = run(encoder, unseen)["y"]
    plain, smooth = (cosines(wanted, run(variant.model, unseen)["y"]) for variant in found.values())
    assert smooth.min() > 0.998
    assert (1 - smooth.mean()) < (1 - plain.mean()) / 3
    for variant in found.values():
        assert len(variant.model) < len(encoder) / 2.5
        assert not variant.row_independent
    told = found["int8-dynamic, smooth"].detail["int8-dynamic"]
    assert (told["products"], told["tables"]) == (4, 1)
    assert told["smoothed"] >= 1


def test_one_quantization_serves_all_that_read_a_tensor(about: Subject) -> None:
    found = variants(Int8DynamicPass(), about)["int8-dynamic"].model
    assert kinds(found)["MatMulInteger"] == 4
    assert kinds(found)["DynamicQuantizeLinear"] == 2
    as_it_runs = kinds(found, optimized=True)
    assert not as_it_runs["MatMulInteger"]  # all are fused


def test_eight_bits_are_all_used(about: Subject) -> None:
    model = parse(variants(Int8DynamicPass(), about)["int8-dynamic"].model)
    matrices = [
        numpy_helper.to_array(item)
        for item in model.graph.initializer
        if item.data_type == TensorProto.INT8 and len(item.dims) == 2
    ]
    assert len(matrices) == 5
    assert all(np.abs(matrix.astype(int)).max() == 127 for matrix in matrices)


def test_the_same_bytes_every_time(about: Subject) -> None:
    one, other = (variants(Int8DynamicPass(), about) for _ in range(2))
    assert [v.model for v in one.values()] == [v.model for v in other.values()]


def test_smoothing_only_where_it_is_worth_it() -> None:
    made = [
        helper.make_node("MatMul", ["x", "w"], ["even"]),
        helper.make_node("Mul", ["x", "scale"], ["spiky"]),
        helper.make_node("MatMul", ["spiky", "v"], ["y"]),
    ]
    scale = np.ones(64, dtype=np.float32)
    scale[3] = 200
    weights = {"w": gaussian(64, 64), "v": gaussian(64, 64), "scale": scale}
    shapes = {"x": ["N", 64]}, {"y": ["N", 64], "even": ["N", 64]}
    model = parse(graph(made, weights, *shapes))
    samples = observe_products(model, {"x": gaussian(300, 64)})
    assert set(samples) == {"x", "spiky"}
    found = smoothing(model, samples)
    assert set(found) == {"spiky"}
    assert np.argmax(found["spiky"]) == 3


def test_weights_in_branches() -> None:
    model = branching(gaussian(64, 32))
    for sign in (1, -1):
        rows = {"x": sign * np.abs(gaussian(50, 64))}
        found = first(model, rows)
        assert kinds(found.model)["MatMulInteger"] == 2
        assert len(found.model) < len(model) / 2
        assert noise(run(model, rows)["y"], run(found.model, rows)["y"]) < -30


def test_branches_that_read_what_is_around_them() -> None:
    model, rows = sharing(), {"x": gaussian(60, 32)}
    found = first(model, rows).model
    assert kinds(found)["MatMulInteger"] == 3
    assert noise(run(model, rows)["y"], run(found, rows)["y"]) < -30


def test_weights_in_constant_nodes() -> None:
    made = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(gaussian(64, 32))),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    model = graph(made, {}, {"x": ["N", 64]}, {"y": ["N", 32]})
    rows = {"x": gaussian(50, 64)}
    found = first(model, rows)
    assert kinds(found.model)["MatMulInteger"] == 1
    assert noise(run(model, rows)["y"], run(found.model, rows)["y"]) < -30


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_gemm(turned: bool, biased: bool) -> None:
    weights = {"w": gaussian(32, 64) if turned else gaussian(64, 32)}
    inputs = ["x", "w"]
    if biased:
        weights["b"] = gaussian(32)
        inputs.append("b")
    node = helper.make_node("Gemm", inputs, ["y"], transB=int(turned))
    model = graph([node], weights, {"x": ["N", 64]}, {"y": ["N", 32]})
    rows = {"x": gaussian(50, 64)}
    found = first(model, rows)
    assert kinds(found.model)["MatMulInteger"] == 1
    assert noise(run(model, rows)["y"], run(found.model, rows)["y"]) < -30


def test_a_scaled_gemm_stays() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5)
    model = graph([node], {"w": gaussian(64, 32)}, {"x": ["N", 64]}, {"y": ["N", 32]})
    with pytest.raises(UnsupportedError, match="large enough"):
        variants(Int8DynamicPass(), subject(model, {"x": gaussian(50, 64)}))


def test_tables_have_a_scale_per_row() -> None:
    table = gaussian(512, 32) * np.geomspace(0.01, 100, 512, dtype=np.float32)[:, None]
    made = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32])]
    weights = [numpy_helper.from_array(table.astype(np.float32), "table")]
    model = helper.make_model(
        helper.make_graph(made, "table", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    rows = {"ids": np.arange(512)}
    found = serialize(quantize_dynamically(model, Plan()))
    wanted, got = run(serialize(model), rows)["y"], run(found, rows)["y"]
    assert np.all(np.abs(wanted - got) <= np.abs(wanted).max(axis=1, keepdims=True) / 253)
    kept = serialize(quantize_dynamically(model, Plan(), with_tables=False))
    np.testing.assert_array_equal(run(kept, rows)["y"], wanted)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = kind(8, 64, batch_first=True)
        self.classifier = nn.Linear(64, 64)
        self.out = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.cell(x)
        return self.out(self.classifier(states[:, -1]).relu())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_networks(kind: type[nn.RNNBase]) -> None:
    pixels, labels = images()
    lines = pixels[:, 0]
    module = trained(Recurrent(kind), lines[:600], labels[:600], epochs=2)
    model = exported(module, {"x": torch.zeros(2, 8, 8)}, "y")
    about = subject(model, {"x": lines[600:700]})
    found = next(iter(variants(Int8DynamicPass(), about).values()))
    unseen = {"x": lines[700:]}
    assert same_labels(run(model, unseen), run(found.model, unseen), "y") > 0.97
    operators = kinds(found.model)
    assert operators["MatMulInteger"] >= 1
    assert operators["DynamicQuantizeLSTM"] == (kind is nn.LSTM)
    assert operators["GRU"] == (kind is nn.GRU)  # there are no kernels for it
    assert len(found.model) < len(model) / (2 if kind is nn.LSTM else 1.1)


def test_what_it_refuses() -> None:
    one = Int8DynamicPass()
    rows = {"x": gaussian(8, 4)}
    shapes = {"x": ["N", 4]}, {"y": ["N", 4]}
    relu = subject(graph([helper.make_node("Relu", ["x"], ["y"])], {}, *shapes), rows)
    assert one.refuses(relu) == "no matrix products"
    small = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": gaussian(4, 4)}, *shapes)
    with pytest.raises(UnsupportedError, match="large enough"):
        variants(one, subject(small, rows))


def test_an_old_graph_is_converted() -> None:
    model = graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": gaussian(64, 32)},
        {"x": ["N", 64]}, {"y": ["N", 32]}, opset=9,
    )  # fmt: skip
    rows = {"x": gaussian(50, 64)}
    found = first(model, rows)
    (version,) = (i.version for i in parse(found.model).opset_import if i.domain == "")
    assert version >= 11
    assert noise(run(model, rows)["y"], run(found.model, rows)["y"]) < -30


def test_graphs_stay_valid(about: Subject) -> None:
    source = parse(simplified(about.variant.model))
    samples = observe_products(source, about.rows)
    onnx.checker.check_model(
        quantize_dynamically(source, Plan(smoothing(source, samples), samples))
    )
