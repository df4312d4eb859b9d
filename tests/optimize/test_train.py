"""Graphs in PyTorch answer what ONNX Runtime answers, and learn what a teacher answers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

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
from modelport.optimize.train.graph import (
    OPERATORS,
    TorchGraph,
    normalizable,
    unknown_operators,
)
from modelport.optimize.train.source import source_of
from tests.optimize.networks import Network, answers, cnn, images, subject_of

_LARGE = ("test_attention_4d_expanded", "test_rms_normalization_2d_axis0_expanded")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def _cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx makes tests of overflows
        return list(collect_testcases(None))


def _node_tests() -> list[Any]:
    found = []
    for case in _cases():
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
    assert "CumSum" in PrunePass().refuses(subject_of(model, rows))


def test_norms_change_nothing_until_they_are_trained_and_are_folded_back() -> None:
    rows = {"x": images(64)}
    subject = subject_of(cnn(), rows)
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


def test_graphs_that_cannot_be_trained_say_why() -> None:
    fixed = Network()
    x = fixed.input("x", 4)
    fixed.inputs[0].type.tensor_type.shape.dim[0].dim_value = 1
    model = fixed.model(fixed.dense(x, 4, 3))
    one = subject_of(model, {"x": np.zeros((1, 4), np.float32)})
    assert "batch size is fixed" in PrunePass().refuses(one)


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
    cases = _cases()[::10]
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
