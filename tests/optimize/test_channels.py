"""Networks without most of their channels learn the same answers again."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from modelport.optimize.passes.channels import ChannelsPass
from tests.optimize.networks import Network, agreement, answers, images, quiet, subject_of


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelport.optimize.train.recipe._MOST_STEPS", 300)


def test_the_pass_makes_smaller_networks_that_answer_alike_always_the_same() -> None:
    model, rows, fresh = _teacher(), {"x": images(500)}, {"x": images(300, seed=9)}
    subject = subject_of(model, rows)
    one = ChannelsPass()
    assert one.refuses(subject) == ""
    made = []
    for _ in range(2):
        variant = next(one.variants(subject, quiet))
        made.append(variant)
    assert made[0].model == made[1].model
    first = made[0]
    assert first.passes == ("channels",)
    assert first.detail["channels"]["multiplications"] < 0.3
    assert len(first.model) < 0.4 * len(model)
    (expected,) = answers(model, fresh).values()
    (found,) = answers(first.model, fresh).values()
    assert agreement(found, expected) > 0.85


def _teacher() -> bytes:
    network = Network(2)
    x = network.input("x", 3, 8, 8)
    h = network.op("Relu", network.conv(x, 3, 32))
    h = network.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    h = network.op("Relu", network.conv(h, 32, 48))
    h = network.op("Flatten", network.op("GlobalAveragePool", h))
    return network.model(network.dense(h, 48, 4))


def test_two_inputs_and_two_outputs() -> None:
    network = Network()
    image, numbers = network.input("image", 3, 8, 8), network.input("numbers", 6)
    h = network.op("Relu", network.conv(image, 3, 32))
    h = network.op("Flatten", network.op("GlobalAveragePool", h))
    other = network.op("Relu", network.dense(numbers, 6, 64))
    h = network.op("Relu", network.dense(network.op("Concat", h, other, axis=1), 96, 64))
    model = network.model(network.dense(h, 64, 3), network.dense(h, 64, 1))
    random = np.random.default_rng(0)
    rows = {"image": images(120), "numbers": random.standard_normal((120, 6)).astype(np.float32)}
    subject = subject_of(model, rows)
    variant = next(ChannelsPass().variants(subject, quiet))
    before, after = subject.answers, answers(variant.model, rows)
    assert list(after) == list(before)
    assert [a.shape for a in after.values()] == [b.shape for b in before.values()]
    assert all(
        np.corrcoef(after[name].ravel(), before[name].ravel())[0, 1] > 0.8 for name in before
    )
    assert len(variant.model) < len(model)


@pytest.mark.parametrize(
    ("width", "kind", "why"),
    [
        (8, "Relu", "no layer is wide enough"),
        (64, "LRN", "training does not know LRN"),
    ],
)
def test_refusals_say_why(width: int, kind: str, why: str) -> None:
    network = Network()
    x = network.input("x", 3, 8, 8)
    attributes = {"size": 3} if kind == "LRN" else {}
    h = network.op(kind, network.conv(x, 3, width), **attributes)
    h = network.op("Flatten", network.op("GlobalAveragePool", h))
    model = network.model(network.dense(h, width, 5))
    assert why in ChannelsPass().refuses(subject_of(model, {"x": images(40)}))


def test_models_without_layers_are_refused() -> None:
    network = Network()
    x = network.input("x", 4)
    model = network.model(network.op("Add", x, network.constant(np.ones(4, np.float32))))
    rows = {"x": np.zeros((40, 4), np.float32)}
    assert "no float32 weights" in ChannelsPass().refuses(subject_of(model, rows))


def test_models_of_text_are_refused() -> None:
    network = Network()
    network.input("x", kind=TensorProto.STRING)
    network.inputs[0].type.tensor_type.shape.dim.add().dim_value = 1
    x = network.input("y", 4)
    model = network.model(network.dense(x, 4, 3), network.op("Identity", "x"))
    rows = {"x": np.full((40, 1), "a", dtype=object), "y": np.ones((40, 4), np.float32)}
    assert "is text" in ChannelsPass().refuses(subject_of(model, rows))
