"""Small networks as ONNX graphs with random weights, and subjects made of them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from modelport.adapters import find_adapter
from modelport.core.tensors import Tensors
from modelport.engines.base import EngineOptions
from modelport.optimize.base import Subject, Variant


class Network:
    """A graph that grows node by node; every method returns the name of what it made."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, *shape: int, kind: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, ["N", *shape]))
        return name

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int) -> str:
        fan = int(np.prod(shape[1:])) or 1
        return self.constant(
            (self.random.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32)
        )

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"t{len(self.nodes)}_{at}" for at in range(outputs)]
        node = helper.make_node(kind, inputs, names, name=f"n{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def conv(self, x: str, before: int, after: int, kernel: int = 3, **attributes: Any) -> str:
        group = attributes.get("group", 1)
        weight = self.weight(after, before // group, kernel, kernel)
        bias = self.constant(self.random.standard_normal(after).astype(np.float32) * 0.1)
        pads = [kernel // 2] * 4
        name: str = self.op("Conv", x, weight, bias, pads=pads, **attributes)
        return name

    def dense(self, x: str, before: int, after: int) -> str:
        bias = self.constant(self.random.standard_normal(after).astype(np.float32) * 0.1)
        name: str = self.op("Gemm", x, self.weight(after, before), bias, transB=1)
        return name

    def linear(self, x: str, before: int, after: int) -> str:
        """As transformers have it: a MatMul, and an Add for the bias."""
        weight = self.constant(
            (self.random.standard_normal((before, after)) / np.sqrt(before)).astype(np.float32)
        )
        bias = self.constant(self.random.standard_normal(after).astype(np.float32) * 0.1)
        name: str = self.op("Add", self.op("MatMul", x, weight), bias)
        return name

    def model(self, *outputs: str, opset: int = 17) -> bytes:
        values = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, values, self.constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
        )
        inferred = onnx.shape_inference.infer_shapes(model)
        return inferred.SerializeToString()


def cnn(seed: int = 0) -> bytes:
    """Two convolutions and five scores."""
    network = Network(seed)
    x = network.input("x", 3, 8, 8)
    h = network.op("Relu", network.conv(x, 3, 32))
    h = network.op("Relu", network.conv(h, 32, 32, strides=[2, 2]))
    h = network.op("Flatten", network.op("GlobalAveragePool", h))
    return network.model(network.dense(h, 32, 5))


def answers(model: bytes, rows: Tensors) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(rows)), strict=True))


def subject_of(model: bytes, rows: Tensors, **changes: Any) -> Subject:
    """The original with the rows that passes get."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        engine = find_adapter("engine", "onnxruntime").load()
        signature = engine.load(path, EngineOptions(threads=1)).signature
    return Subject(
        Variant("original", model), signature, rows, answers(model, rows),
        **changes,
    )  # fmt: skip


def images(count: int, channels: int = 3, size: int = 8, seed: int = 1) -> np.ndarray:
    """Smooth random ones: neighbouring pixels are alike."""
    random = np.random.default_rng(seed)
    coarse = random.standard_normal((count, channels, size // 4, size // 4))
    fine = random.standard_normal((count, channels, size, size))
    return (coarse.repeat(4, axis=2).repeat(4, axis=3) + 0.3 * fine).astype(np.float32)


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """The share of rows with the same largest score."""
    return float(np.mean(one.argmax(-1) == other.argmax(-1)))


def quiet(_: str) -> None:
    """Report nothing."""
