"""Graphs in PyTorch answer what ONNX Runtime answers, and learn what a teacher answers."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.backend.test.case.node import collect_testcases

from modelport.core.errors import UnsupportedError
from modelport.optimize.base import Subject
from modelport.optimize.onnx_graph import parse
from modelport.optimize.passes.channels import ChannelsPass
from modelport.optimize.passes.layers import LayersPass
from modelport.optimize.passes.network_student import NetworkStudentPass
from modelport.optimize.passes.prune import PrunePass
from modelport.optimize.reduce.observe import observe_graph
from modelport.optimize.train.distil import Recipe, distil
from modelport.optimize.train.graph import (
    OPERATORS,
    TorchGraph,
    normalizable,
    unknown_operators,
)
from modelport.optimize.train.lesson import lesson_of
from modelport.optimize.train.losses import goals_of
from modelport.optimize.train.source import source_of, why_not
from tests.optimize.networks import Network, answers, images, quiet, subject_of

_LARGE = ("test_attention_4d_expanded", "test_rms_normalization_2d_axis0_expanded")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _node_tests() -> list[object]:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx makes tests of overflows
        cases = collect_testcases(None)
    for case in cases:
        kinds = {node.op_type for node in case.model.graph.node}
        # Expanded ones test the same over and over; a few also Mod and Range, whose own tests are
        # of a newer opset than ONNX Runtime's.
        if (
            ("_expanded" not in case.name or case.name in _LARGE or len(case.model.graph.node) < 12)
            and kinds <= set(OPERATORS)
            and not unknown_operators(case.model)
        ):
            found.append(case)
    return found


def test_every_operator_answers_what_onnx_runtime_answers() -> None:
    compared: dict[str, int] = dict.fromkeys(OPERATORS, 0)
    refused: set[str] = set()
    different: list[str] = []
    for case in _node_tests():
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        for inputs, _ in case.data_sets:
            arrays = [np.asarray(i) if isinstance(i, np.generic) else i for i in inputs]
            if not all(isinstance(a, np.ndarray) and a.dtype.kind in "fiub" for a in arrays):
                continue
            feed = dict(zip([i.name for i in case.model.graph.input], arrays, strict=True))
            try:
                session = onnxruntime.InferenceSession(case.model.SerializeToString(), options)
                expected = session.run(None, feed)
            except Exception:  # not every test is one that ONNX Runtime can run
                continue
            kinds = {node.op_type for node in case.model.graph.node}
            try:
                found = _run(case.model, feed)
            except UnsupportedError as error:
                named = any(kind in error.message for kind in kinds)
                refused.add(case.name)
                different += [] if named else [f"{case.name}: {error.message}"]
                continue
            if all(_same(a, b) for a, b in zip(expected, found, strict=True)):
                compared.update({kind: compared[kind] + 1 for kind in kinds})
            else:
                different.append(case.name)
    assert different == []
    assert [kind for kind, count in compared.items() if not count] == []
    assert sum(compared.values()) > 5 * len(refused)


def _run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    graph = TorchGraph(model).eval()
    with torch.no_grad():
        found = graph({name: torch.from_numpy(array.copy()) for name, array in feed.items()})
    return [value.numpy() for value in found.values()]


def _same(expected: np.ndarray, found: np.ndarray) -> bool:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return False
    near = 1e-3 if expected.dtype == np.float16 else 1e-4
    return np.allclose(
        expected.astype(np.float64), found.astype(np.float64), rtol=near, atol=1e-5, equal_nan=True
    )


def test_an_unknown_operator_is_named() -> None:
    network = Network()
    x = network.input("x", 8)
    model = network.model(network.op("CumSum", x, network.constant(np.int64(1))))
    with pytest.raises(UnsupportedError, match="CumSum"):
        TorchGraph(parse(model))
    rows = {"x": np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)}
    assert "CumSum" in why_not(subject_of(model, rows))


def _cnn(seed: int = 0) -> bytes:
    network = Network(seed)
    x = network.input("x", 3, 8, 8)
    h = network.op("Relu", network.conv(x, 3, 32))
    h = network.op("Relu", network.conv(h, 32, 32, strides=[2, 2]))
    h = network.op("Flatten", network.op("GlobalAveragePool", h))
    return network.model(network.dense(h, 32, 5))


def test_norms_change_nothing_until_they_are_trained_and_are_folded_back() -> None:
    rows = {"x": images(64)}
    subject = subject_of(_cnn(), rows)
    source = source_of(subject)
    moments = source.moments(subject)
    assert sorted(moments) == sorted(node.name for node in normalizable(source.model))
    graph = TorchGraph(source.model, moments)
    written = graph.write().SerializeToString()
    (name, expected), *_ = subject.answers.items()
    assert np.allclose(answers(written, rows)[name], expected, atol=1e-3)
    graph.train()
    for _ in range(60):  # until the running means are those of the batches
        graph({"x": torch.from_numpy(rows["x"])})
    graph.eval()
    with torch.no_grad():
        trained = graph({"x": torch.from_numpy(rows["x"])})[name].numpy()
    found = answers(graph.write().SerializeToString(), rows)[name]
    assert np.allclose(found, trained, atol=1e-4)
    assert "BatchNormalization" not in {node.op_type for node in graph.write().graph.node}


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
    subject = subject_of(_cnn(), rows)
    source = source_of(subject)
    lesson = lesson_of(subject.variant.model, rows, subject.answers, cost=1e9)
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
    subject = subject_of(_cnn(), rows)
    model = source_of(subject).model
    lesson = lesson_of(subject.variant.model, rows, subject.answers, cost=1e9)
    taught = distil(model, lesson, Recipe(20, 16, 0.5), quiet)
    assert taught.steps == 0
    assert taught.after == taught.before


def test_the_deadline_cuts_the_training_and_too_little_of_it_is_an_error() -> None:
    rows = {"x": images(200)}
    subject = subject_of(_cnn(), rows)
    lesson = lesson_of(subject.variant.model, rows, subject.answers, cost=1e9)
    spoiled = _spoiled(source_of(subject).model)
    start = time.monotonic()
    cut = distil(spoiled, lesson, Recipe(1_000_000, 32, 2e-3), quiet, deadline=start + 2)
    assert cut.after < cut.before
    assert time.monotonic() - start < 30
    with pytest.raises(UnsupportedError, match="time was up"):
        distil(spoiled, lesson, Recipe(100, 32, 2e-3), quiet, deadline=start)
    slow = Recipe(1_000_000, 32, 2e-3, least=10_000_000)
    with pytest.raises(UnsupportedError, match="a step of 32 rows takes"):
        distil(spoiled, lesson, slow, quiet, deadline=time.monotonic() + 20)


def test_masked_weights_are_zero_and_stay_zero() -> None:
    rows = {"x": images(64)}
    subject = subject_of(_cnn(), rows)
    source = source_of(subject)
    node = next(node for node in source.model.graph.node if node.op_type == "Conv")
    weight = next(i for i in source.model.graph.initializer if i.name == node.input[1])
    mask = (np.random.default_rng(0).random(tuple(weight.dims)) < 0.5).astype(np.float32)
    lesson = lesson_of(subject.variant.model, rows, subject.answers, cost=1e9)
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
    model = _cnn()
    told = answers(model, rows)
    lesson = lesson_of(model, rows, told, cost=1e8)
    assert lesson.count == 42 + 2500
    (name,) = told
    found = answers(model, lesson.rows)[name]
    assert np.allclose(found, lesson.answers[name], atol=1e-4)
    originals = {row.tobytes() for row in rows["x"]}
    assert all(row.tobytes() in originals for row in lesson.held_rows["x"])


def test_whole_numbers_stay_whole_in_rows_that_are_made() -> None:
    random = np.random.default_rng(0)
    table = random.standard_normal((60, 4)).astype(np.float32)
    table[:, 2] = random.integers(0, 5, 60)
    network = Network()
    model = network.model(network.dense(network.input("x", 4), 4, 3))
    lesson = lesson_of(model, {"x": table}, answers(model, {"x": table}), cost=12)
    assert set(np.unique(lesson.rows["x"][:, 2])) <= set(range(5))
    assert lesson.rows["x"][:, 0].min() >= table[:, 0].min()


def test_tokens_are_not_made_up_and_too_few_rows_are_said() -> None:
    rows = {"ids": np.arange(160, dtype=np.int64).reshape(40, 4)}
    told = {"y": np.zeros((40, 2), dtype=np.float32)}
    assert lesson_of(b"", rows, told, cost=1).count == 32
    few = {"ids": rows["ids"][:10]}, {"y": told["y"][:10]}
    with pytest.raises(UnsupportedError, match="10 rows are too few"):
        lesson_of(b"", *few, cost=1)


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


def test_graphs_that_cannot_be_trained_say_why() -> None:
    fixed = Network()
    x = fixed.input("x", 4)
    fixed.inputs[0].type.tensor_type.shape.dim[0].dim_value = 1
    model = fixed.model(fixed.dense(x, 4, 3))
    assert "batch size is fixed" in why_not(subject_of(model, {"x": np.zeros((1, 4), np.float32)}))


def test_multiplications_are_those_of_the_textbook() -> None:
    network = Network()
    x = network.input("x", 3, 8, 8)
    h = network.conv(x, 3, 16, strides=[2, 2])
    h = network.conv(h, 16, 16, group=16)
    model = parse(network.model(network.dense(network.op("Flatten", h), 16 * 16, 10)))
    found = observe_graph(model, {"x": images(4)}).multiplications(model)
    assert list(found.values()) == [16 * 16 * 27, 16 * 16 * 9, 256 * 10]


def test_no_pass_falls_over_a_node_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tenth of onnx's node tests, as if their batch were open."""
    monkeypatch.setattr("modelport.optimize.train.source.has_fixed_batch", _has_scalars)
    monkeypatch.setattr("modelport.optimize.train.student.has_fixed_batch", _has_scalars)
    passes = [ChannelsPass(), LayersPass(), PrunePass(), NetworkStudentPass()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)[::10]
    told = 0
    for case in cases:
        arrays = case.data_sets[0][0]
        if not all(
            isinstance(array, np.ndarray) and array.dtype.kind in "fiubO" for array in arrays
        ):
            continue
        rows = dict(zip([i.name for i in case.model.graph.input], arrays, strict=True))
        try:
            subject = subject_of(case.model.SerializeToString(), rows)
        except Exception:  # not every test is one that ONNX Runtime can run
            continue
        whys = [one.refuses(subject) for one in passes]
        assert all(whys), case.name
        told += 1
    assert told > 50


def _has_scalars(subject: Subject) -> bool:
    return any(not spec.shape for spec in subject.signature.inputs)
