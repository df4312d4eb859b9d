"""Models for passes, with the rows that passes may use."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn

from modelport.core.tensors import Array, Tensors
from modelport.engines.base import EngineOptions
from modelport.engines.onnxruntime import OnnxRuntimeEngine
from modelport.optimize.base import Pass, Subject, Variant
from modelport.optimize.onnx_graph import nodes, parse


def run(model: bytes, rows: Tensors) -> dict[str, Array]:
    """As it is served: everything that ONNX Runtime's optimization does is in it."""
    return OnnxRuntimeEngine().load(model, EngineOptions(threads=1)).run(rows)


def subject(model: bytes, rows: Tensors, **changes: Any) -> Subject:
    loaded = OnnxRuntimeEngine().load(model, EngineOptions(threads=1))
    return Subject(
        variant=Variant("original", model), signature=loaded.signature,
        rows=rows, answers=loaded.run(rows), **changes,
    )  # fmt: skip


def variants(one: Pass, about: Subject) -> dict[str, Variant]:
    assert one.refuses(about) == ""
    return {variant.name: variant for variant in one.variants(about, lambda line: None)}


def kinds(model: bytes, *, optimized: bool = False) -> Counter[str]:
    """How many nodes there are of each operator, as written or as they run."""
    content = _as_it_runs(model) if optimized else model
    return Counter(node.op_type for node in nodes(parse(content)))


def _as_it_runs(model: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder, "model.onnx"))
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return Path(folder, "model.onnx").read_bytes()


def exported(module: nn.Module, inputs: dict[str, torch.Tensor], *outputs: str) -> bytes:
    """By the exporter that freezes nothing but weights; the first axis is free."""
    file = io.BytesIO()
    names = [*inputs, *outputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), tuple(inputs.values()), file, input_names=list(inputs),
            output_names=list(outputs), dynamic_axes={name: {0: "N"} for name in names},
            dynamo=False, opset_version=17,
        )  # fmt: skip
    return file.getvalue()


def trained(module: nn.Module, rows: Array, labels: Array, *, epochs: int = 8) -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more of them wait for each other on a busy machine
    inputs, wanted = torch.tensor(rows), torch.tensor(labels)
    optimizer = torch.optim.Adam(module.parameters(), 4e-3)
    module.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(inputs)).split(64):
            loss = nn.functional.cross_entropy(module(inputs[chosen]), wanted[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.eval()


def images() -> tuple[Array, Array]:
    """Digits of 8 by 8 pixels, with their labels."""
    rows, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    return (rows[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels[order]


def same_labels(one: Tensors, other: Tensors, name: str) -> float:
    return float(np.mean(one[name].argmax(axis=1) == other[name].argmax(axis=1)))


def cosines(one: Array, other: Array) -> Array:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: Array = np.sum(one * other, axis=1) / lengths
    return found


def noise(wanted: Array, found: Array) -> float:
    """The error's share of the signal, in decibels."""
    error = np.sum((wanted - found).astype(np.float64) ** 2)
    return float(10 * np.log10(error / np.sum(wanted.astype(np.float64) ** 2)))


def graph(
    made: list[onnx.NodeProto],
    weights: dict[str, Array],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    opset: int = 17,
) -> bytes:
    """Written node by node; everything is float32."""
    model = helper.make_model(
        helper.make_graph(
            made,
            "test",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


class Convolutions(nn.Module):
    """With everything that a mobile network has: batch norms, ReLU6, depthwise, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6())
        self.wide = nn.Sequential(
            nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(),
            nn.Conv2d(32, 32, 3, stride=1, padding=1, groups=32), nn.BatchNorm2d(32), nn.ReLU6(),
            nn.Conv2d(32, 16, 1), nn.BatchNorm2d(16),
        )  # fmt: skip
        self.hidden = nn.Linear(16 * 16, 128)
        self.classifier = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = nn.functional.max_pool2d(x + self.wide(x), 2)
        return self.classifier(self.hidden(x.flatten(1)).relu())


@cache
def convolutions() -> bytes:
    """`Convolutions`, trained on the first 1,200 digits."""
    rows, labels = images()
    torch.manual_seed(0)
    module = trained(Convolutions(), rows[:1200], labels[:1200], epochs=3)
    return exported(module, {"x": torch.zeros(2, 1, 8, 8)}, "scores")
