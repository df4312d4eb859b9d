"""Zeros in the right places, stored in fewer bytes, and nothing promised that is not so."""

from __future__ import annotations

import numpy as np
import pytest

from modelport.optimize.onnx_graph import parse
from modelport.optimize.passes.prune import PrunePass
from modelport.optimize.reduce.sparsity import (
    magnitude_masks,
    pattern_mask,
    prunable_weights,
    sparse,
)
from tests.optimize.networks import Network, agreement, answers, quiet, subject_of


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelport.optimize.train.recipe._MOST_STEPS", 120)


def _rows(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 12)).astype(np.float32)}


def _perceptron() -> bytes:
    network = Network()
    h = network.op("Relu", network.dense(network.input("x", 12), 12, 128))
    h = network.op("Relu", network.dense(h, 128, 128))
    return network.model(network.dense(h, 128, 3))


def test_the_smallest_weights_of_all_layers_go_and_no_layer_vanishes() -> None:
    random = np.random.default_rng(0)
    weights = {
        "large": random.standard_normal((40, 50)),
        "small": random.standard_normal((40, 50)) * 1e-3,
    }
    masks = magnitude_masks(weights, 0.8)
    kept = {name: float(mask.mean()) for name, mask in masks.items()}
    assert np.isclose(np.mean(list(kept.values())), 0.2, atol=0.01)
    assert min(kept.values()) > 0.1
    for name, mask in masks.items():
        size = np.abs(weights[name])
        assert size[mask == 1].min() >= size[mask == 0].max()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_pattern_keeps_so_many_of_so_many_neighbours(axis: int) -> None:
    weight = np.random.default_rng(0).standard_normal((10, 12)).astype(np.float32)
    mask = pattern_mask(weight, axis, 2, 4)
    lines, magnitudes = (np.moveaxis(array, axis, -1) for array in (mask, np.abs(weight)))
    whole = lines.shape[1] - lines.shape[1] % 4
    groups = lines[:, :whole].reshape(-1, 4)
    assert (groups.sum(axis=1) == 2).all()
    assert (lines[:, whole:] == 1).all()
    inner = magnitudes[:, :whole].reshape(-1, 4)
    assert (np.sort(inner, axis=1)[:, 2:].sum(axis=1) == (inner * groups).sum(axis=1)).all()


def test_the_axis_of_a_pattern_is_the_one_that_is_summed_over() -> None:
    network = Network()
    h = network.linear(network.input("x", 32), 32, 40)
    model = parse(network.model(network.dense(h, 40, 64)))
    axes = {array.shape: axis for array, axis in prunable_weights(model).values()}
    assert axes == {(32, 40): 0, (64, 40): 1}


def test_sparse_weights_answer_the_same_in_fewer_bytes() -> None:
    model, rows = parse(_perceptron()), _rows(20)
    for item in model.graph.initializer:
        if len(item.dims) == 2 and item.dims[1] == 128 and item.dims[0] == 128:
            array = np.frombuffer(item.raw_data, np.float32).copy()
            array[np.random.default_rng(0).random(array.size) < 0.9] = 0
            item.raw_data = array.tobytes()
    stored, count = sparse(model, [item.name for item in model.graph.initializer])
    assert count == 1
    before, after = model.SerializeToString(), stored.SerializeToString()
    assert len(after) < 0.4 * len(before)
    for one, other in zip(
        answers(before, rows).values(), answers(after, rows).values(), strict=True
    ):
        assert np.array_equal(one, other)


def test_the_pass_makes_smaller_files_with_the_zeros_that_it_says() -> None:
    model, rows, fresh = _perceptron(), _rows(300), _rows(300, seed=1)
    subject = subject_of(model, rows)
    one = PrunePass()
    assert one.refuses(subject) == ""
    made = list(one.variants(subject, quiet))
    assert [variant.name for variant in made] == [
        "prune, 90% zeros", "prune, 95% zeros", "prune, 1 of 8 kept",
    ]  # fmt: skip
    (expected,) = answers(model, fresh).values()
    for variant, zeros, smaller in zip(made, (0.9, 0.95, 0.87), (0.4, 0.3, 0.45), strict=True):
        detail = variant.detail["prune"]
        assert abs(detail["zeros"] - zeros) < 0.03
        assert detail["sparse"] >= 1
        assert detail["compressed"] < len(model) * 0.6
        assert len(variant.model) < smaller * len(model)
        (found,) = answers(variant.model, fresh).values()
        assert agreement(found, expected) > 0.75
    assert next(one.variants(subject, quiet)).model == made[0].model


def test_refusals_say_what_is_better() -> None:
    subject = subject_of(_perceptron(), _rows(40))
    made = subject_of(_perceptron(), _rows(40))
    changed = made.variant.then("channels, 25%", made.variant.model)
    object.__setattr__(made, "variant", changed)
    assert "smaller as int8" in PrunePass().refuses(made)
    network = Network()
    small = network.model(network.dense(network.input("x", 12), 12, 3))
    assert "0% of the file" in PrunePass().refuses(subject_of(small, _rows(40)))
    assert PrunePass().refuses(subject) == ""
