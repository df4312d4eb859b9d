"""Broken exports of PyTorch and Keras models: the layer and the node are named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from sklearn.datasets import load_digits
from torch import nn

from modelport.adapters import find_adapter
from modelport.convert.base import Attempt, Export, Inspectable
from modelport.convert.proof.trial import Trial, try_attempt
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source


def loaded(framework: str, model: Any) -> Any:
    adapter = find_adapter("framework", framework).load()
    return adapter.load(AuditedSource(Source.of(model), "object"))


def trial(source: Any, rows: Rows, export: Export) -> Trial:
    return try_attempt(Attempt("edited", lambda: export), source, rows, lambda line: None)


def with_wrong_weight(export: Export, node_type: str, which: int, by: float) -> tuple[Export, str]:
    """The export with one weight of its `which`-th node of a type off by `by`; and that node."""
    model = onnx.load_model_from_string(export.model)
    node = [n for n in model.graph.node if n.op_type == node_type][which]
    constants = {i.name: i for i in model.graph.initializer}
    tensor = next(constants[name] for name in node.input if name in constants)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += by
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return replace(export, model=model.SerializeToString()), f"{node.name} ({node_type})"


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return (load_digits().images[:24, np.newaxis] / 16).astype(np.float32)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8 * 16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.first(image)))
        hidden = torch.relu(self.second(hidden))
        return self.head(hidden.flatten(1))


@pytest.fixture(scope="module")
def torch_case(pictures: np.ndarray) -> tuple[Any, Rows, Export]:
    torch.manual_seed(0)
    module = Convolutions()
    module(torch.from_numpy(pictures))  # the running statistics learn something
    source = loaded("torch", module.eval())
    rows = Rows({"image": pictures})
    export = source.attempts(rows)[0].export()
    return source, rows, export


def test_torch_modules_show_their_layers(torch_case: Any) -> None:
    source, rows, export = torch_case
    assert isinstance(source, Inspectable)
    assert [name for name, _ in source.layers(rows)] == ["first", "norm", "second", "head"]
    assert trial(source, rows, export).outcome == "agrees"


def test_a_wrong_convolution_of_a_torch_module(torch_case: Any) -> None:
    source, rows, export = torch_case
    wrong, node = with_wrong_weight(export, "Conv", 1, 0.5)
    found = trial(source, rows, wrong)
    assert found.outcome == "differs"
    assert found.divergence is not None
    assert found.divergence.node == node
    assert found.divergence.layer == "second"
    assert found.divergence.position[1] == 0


def test_a_torch_convolution_with_other_padding_is_mended(torch_case: Any) -> None:
    source, rows, export = torch_case
    model = onnx.load_model_from_string(export.model)
    node = next(n for n in model.graph.node if n.op_type == "Conv")
    pads = next(a for a in node.attribute if a.name == "pads")
    assert list(pads.ints) == [1, 1, 1, 1]
    pads.ints[:] = [0, 0, 1, 1]  # what Keras means by 'same'
    found = trial(source, rows, replace(export, model=model.SerializeToString()))
    assert found.divergence is not None
    assert found.divergence.proven
    assert found.divergence.node == f"{node.name} (Conv)"
    assert found.divergence.layer in ("first", "norm")
    assert "the source model pads" in found.divergence.cause
    assert found.repair is not None
    assert try_attempt(found.repair, source, rows, lambda line: None).outcome == "agrees"


@pytest.mark.slow
def test_keras_models_show_their_layers(pictures: np.ndarray) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, padding="same", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Conv2D(6, 3, padding="same", activation="relu", name="second"),
            layers.Flatten(name="flat"),
            layers.Dense(5, activation="softmax", name="head"),
        ]
    )
    source = loaded("keras", model)
    rows = Rows({"": np.moveaxis(pictures, 1, -1)})
    assert isinstance(source, Inspectable)
    shown = dict(source.layers(rows))
    assert list(shown) == ["first", "norm", "relu", "second", "flat", "head"]
    (answers,) = source.predict(rows).values()
    np.testing.assert_array_equal(shown["head"], answers)
    assert all("call" not in vars(layer) for layer in model.layers)
    export = source.attempts(rows)[0].export()
    assert trial(source, rows, export).outcome == "agrees"
    wrong, node = with_wrong_weight(export, "Conv", 1, 0.5)
    found = trial(source, rows, wrong).divergence
    assert found is not None
    assert (found.node, found.layer, found.after) == (node, "second", "relu")
    wrong, node = with_wrong_weight(export, "MatMul", 0, 0.5)
    found = trial(source, rows, wrong).divergence
    assert found is not None
    assert (found.node, found.layer) == (node, "head")
