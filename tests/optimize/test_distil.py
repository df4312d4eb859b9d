"""Networks learn what a teacher answers, as far as the time goes, and what is right."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch

from modelport.core.errors import UnsupportedError
from modelport.optimize.train.distil import distil
from modelport.optimize.train.lesson import lesson_of
from modelport.optimize.train.losses import goals_of
from modelport.optimize.train.recipe import Recipe
from modelport.optimize.train.source import source_of
from tests.optimize.networks import Network, answers, cnn, images, quiet, subject_of


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _spoiled(model: onnx.ModelProto, share: float = 0.5) -> onnx.ModelProto:
    """With some weights moved at random."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    random = np.random.default_rng(3)
    for item in copy.graph.initializer:
        array = onnx.numpy_helper.to_array(item)
        if array.ndim > 1:
            noise = random.standard_normal(array.shape) * array.std() * share
            item.CopyFrom(
                onnx.numpy_helper.from_array((array + noise).astype(np.float32), item.name)
            )
    return copy


def test_a_spoiled_network_learns_its_answers_again_and_always_the_same() -> None:
    rows = {"x": images(200)}
    subject = subject_of(cnn(), rows)
    source = source_of(subject)
    lesson = lesson_of(subject, cost=1e9)
    spoiled = _spoiled(source.model)
    before = spoiled.SerializeToString()
    taught = [distil(spoiled, lesson, Recipe(80, 32, 2e-3), quiet) for _ in range(2)]
    assert spoiled.SerializeToString() == before
    assert taught[0].after < 0.3 * taught[0].before
    first, second = (one.model.SerializeToString(deterministic=True) for one in taught)
    assert first == second
    (expected,) = subject.answers.values()
    (found,) = answers(first, rows).values()
    (worse,) = answers(before, rows).values()
    assert np.mean((found - expected) ** 2) < 0.3 * np.mean((worse - expected) ** 2)


def test_training_that_makes_it_worse_leaves_it_as_it_was() -> None:
    rows = {"x": images(64)}
    subject = subject_of(cnn(), rows)
    model = source_of(subject).model
    lesson = lesson_of(subject, cost=1e9)
    taught = distil(model, lesson, Recipe(20, 16, 0.5), quiet)
    assert taught.steps == 0
    assert taught.after == taught.before


def test_the_deadline_cuts_the_training_and_too_little_of_it_is_an_error() -> None:
    rows = {"x": images(200)}
    subject = subject_of(cnn(), rows)
    lesson = lesson_of(subject, cost=1e9)
    spoiled = _spoiled(source_of(subject).model)
    start = time.monotonic()
    cut = distil(spoiled, lesson, Recipe(1_000_000, 32, 2e-3), quiet, deadline=start + 2)
    assert cut.after < cut.before
    assert time.monotonic() - start < 30
    with pytest.raises(UnsupportedError, match="time was up"):
        distil(spoiled, lesson, Recipe(100, 32, 2e-3), quiet, deadline=start)
    slow = Recipe(1_000_000, 32, 2e-3, least=1_000_000)
    with pytest.raises(UnsupportedError, match="a step of 32 rows takes"):
        distil(spoiled, lesson, slow, quiet, deadline=time.monotonic() + 20)


def test_masked_weights_are_zero_and_stay_zero() -> None:
    rows = {"x": images(64)}
    subject = subject_of(cnn(), rows)
    source = source_of(subject)
    node = next(node for node in source.model.graph.node if node.op_type == "Conv")
    weight = next(i for i in source.model.graph.initializer if i.name == node.input[1])
    mask = (np.random.default_rng(0).random(tuple(weight.dims)) < 0.5).astype(np.float32)
    lesson = lesson_of(subject, cost=1e9)
    taught = distil(
        source.model, lesson, Recipe(20, 16, 1e-3), quiet, masks={weight.name: mask},
        norms=source.moments(subject),
    )  # fmt: skip
    left = next(i for i in taught.model.graph.initializer if i.name == weight.name)
    array = onnx.numpy_helper.to_array(left)
    assert not array[mask == 0].any()
    assert array[mask == 1].all()


def test_few_rows_become_more_and_the_original_answers_them() -> None:
    rows = {"x": images(50)}
    subject = subject_of(cnn(), rows)
    lesson = lesson_of(subject, cost=1e8)
    assert lesson.learned.count == 42 + 2500
    (name,) = subject.answers
    found = answers(subject.variant.model, lesson.learned.rows)[name]
    assert np.allclose(found, lesson.learned.answers[name], atol=1e-4)
    originals = {row.tobytes() for row in rows["x"]}
    assert all(row.tobytes() in originals for row in lesson.held.rows["x"])


def test_whole_numbers_stay_whole_in_rows_that_are_made() -> None:
    random = np.random.default_rng(0)
    table = random.standard_normal((60, 4)).astype(np.float32)
    table[:, 2] = random.integers(0, 5, 60)
    network = Network()
    model = network.model(network.dense(network.input("x", 4), 4, 3))
    lesson = lesson_of(subject_of(model, {"x": table}), cost=12)
    assert set(np.unique(lesson.learned.rows["x"][:, 2])) <= set(range(5))
    assert lesson.learned.rows["x"][:, 0].min() >= table[:, 0].min()


def test_tokens_are_not_made_up_and_too_few_rows_are_said() -> None:
    network = Network()
    table = network.constant(np.random.default_rng(0).standard_normal((160, 2)).astype(np.float32))
    ids = network.input("ids", 4, kind=onnx.TensorProto.INT64)
    model = network.model(network.op("ReduceMean", network.op("Gather", table, ids), axes=[1],
                                     keepdims=0))  # fmt: skip
    rows = {"ids": np.arange(160, dtype=np.int64).reshape(40, 4)}
    assert lesson_of(subject_of(model, rows), cost=1).learned.count == 32
    few = subject_of(model, {"ids": rows["ids"][:10]})
    with pytest.raises(UnsupportedError, match="10 rows are too few"):
        lesson_of(few, cost=1)


def test_what_is_learned_depends_on_what_the_original_answers() -> None:
    random = np.random.default_rng(0)
    scores = random.standard_normal((20, 4)).astype(np.float32)
    softmax = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    unit = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    found = goals_of(
        {
            "scores": scores, "softmax": softmax, "unit": unit, "number": scores[:, :1],
            "map": scores.reshape(20, 2, 2), "label": scores.argmax(axis=1),
        },
        20,
    )  # fmt: skip
    assert {goal.name: goal.kind for goal in found} == {
        "scores": "scores", "softmax": "probabilities", "unit": "vectors", "number": "numbers",
        "map": "vectors",
    }  # fmt: skip
    same = torch.from_numpy(softmax)
    assert all(abs(float(goal.loss(same, same))) < 1e-5 for goal in found if goal.name == "softmax")
    with pytest.raises(UnsupportedError, match="no float32 numbers"):
        goals_of({"label": scores.argmax(axis=1)}, 20)
