"""Students from scratch, for networks whose own parts cannot go."""

from __future__ import annotations

import numpy as np
import pytest

from modelport.optimize.onnx_graph import operators, parse
from modelport.optimize.passes.network_student import NetworkStudentPass
from modelport.optimize.train.student import student_of
from tests.optimize.networks import Network, agreement, answers, images, quiet, subject_of


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelport.optimize.train.recipe._MOST_STEPS", 150)


def _sequences(count: int, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).standard_normal((count, 12, 6))
    return np.cumsum(steps, axis=1).astype(np.float32) / 3


def _recurrent(size: int = 96) -> bytes:
    """A GRU; its last state, a softmax, and the label."""
    network = Network()
    steps = network.op("Transpose", network.input("x", 12, 6), perm=[1, 0, 2])
    random = network.random
    weight, again = (
        network.constant((random.standard_normal((1, 3 * size, n)) / np.sqrt(n)).astype(np.float32))
        for n in (6, size)
    )
    _, state = network.op("GRU", steps, weight, again, outputs=2, hidden_size=size)
    state = network.op("Squeeze", state, network.constant(np.array([0], dtype=np.int64)))
    scores = network.op("Softmax", network.dense(state, size, 3), axis=-1)
    return network.model(network.op("ArgMax", scores, axis=1, keepdims=0), scores)


def test_a_student_of_a_recurrent_network_answers_alike() -> None:
    model, rows = _recurrent(), {"x": _sequences(600)}
    subject = subject_of(model, rows)
    one = NetworkStudentPass()
    assert one.refuses(subject) == ""
    first = next(one.variants(subject, quiet))
    assert first.name == "network-student, 32 wide"
    assert "GRU" not in operators(parse(first.model))
    assert len(first.model) < 0.7 * len(model)
    fresh = {"x": _sequences(300, seed=3)}
    labels, scores = answers(model, fresh).values()
    found, probabilities = answers(first.model, fresh).values()
    assert list(answers(first.model, fresh)) == list(answers(model, fresh))
    assert np.array_equal(found, probabilities.argmax(axis=1))
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert agreement(probabilities, scores) > 0.8
    assert labels.dtype == found.dtype


def test_rows_of_numbers_get_a_perceptron_that_knows_their_scales() -> None:
    network = Network()
    x = network.input("x", 8)
    h = network.op("CumSum", x, network.constant(np.int64(1)))
    h = network.op("Relu", network.dense(h, 8, 256))
    h = network.op("Relu", network.dense(h, 256, 256))
    model = network.model(network.dense(h, 256, 1))
    random = np.random.default_rng(0)
    rows = {"x": (random.standard_normal((800, 8)) * 10 + 50).astype(np.float32)}
    subject = subject_of(model, rows)
    assert NetworkStudentPass().refuses(subject) == ""
    variant = next(NetworkStudentPass().variants(subject, quiet))
    (expected,), (found,) = subject.answers.values(), answers(variant.model, rows).values()
    assert found.shape == expected.shape
    assert np.mean((found - expected) ** 2) < 0.1 * expected.var()


def test_images_get_convolutions_and_maps_are_refused_where_their_size_is_open() -> None:
    network = Network()
    h = network.op("LRN", network.conv(network.input("x", 3, 16, 16), 3, 64), size=3)
    h = network.op("Flatten", network.op("GlobalAveragePool", h))
    model = network.model(network.dense(h, 64, 4))
    subject = subject_of(model, {"x": images(220, size=16)})
    kinds = [node.op_type for node in student_of(subject, 32).graph.node]
    assert kinds.count("Conv") == 3
    assert "as small as a student" in NetworkStudentPass().refuses(subject)


def test_refusals_say_why() -> None:
    one = NetworkStudentPass()
    assert "100 rows are too few" in one.refuses(subject_of(_recurrent(), {"x": _sequences(100)}))
    network = Network()
    h = network.op("Relu", network.dense(network.input("x", 8), 8, 512))
    wide = network.model(network.dense(network.op("Relu", network.dense(h, 512, 512)), 512, 3))
    rows = {"x": np.random.default_rng(0).standard_normal((250, 8)).astype(np.float32)}
    assert "better student" in one.refuses(subject_of(wide, rows))
    two = Network()
    h = two.op("CumSum", two.op("Add", two.input("x", 8), two.input("y", 8)),
               two.constant(np.int64(1)))  # fmt: skip
    model = two.model(two.dense(h, 8, 3))
    assert "one input" in one.refuses(subject_of(model, {"x": rows["x"], "y": rows["x"]}))
