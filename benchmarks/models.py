"""The three models that are served: built with `onnx.helper`, always from the same seed.

Random weights cost the same to execute as trained ones, and nothing has to be downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CACHE: Final = Path("~/.cache/modelport-bench").expanduser()
INPUT: Final = "input"
OUTPUT: Final = "output"
# Increase when a builder changes, so that no cached file of an older one is measured.
REVISION: Final = 1
_SEED: Final = 20240229
_OPSET: Final = 17
_IR_VERSION: Final = 9


@dataclass(frozen=True)
class Model:
    """A model on disk with one row to ask it and the answer it must give.

    Parameters
    ----------
    name : str
        ``m8``, ``m784`` or ``cnn``; also the stem of the file.
    path : Path
        The ONNX file.
    row : ndarray of float32
        One input with a leading batch axis of 1.
    expected : ndarray of float32
        What `onnxruntime` answers to it.
    """

    name: str
    path: Path
    row: NDArray[np.float32]
    expected: NDArray[np.float32]


class _Graph:
    """Collects the nodes and weights of a graph that is mostly a chain."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._random = np.random.default_rng(_SEED)

    def weight(self, *shape: int, fan_in: int) -> str:
        """Add normally distributed weights of variance ``1 / fan_in``; return their name."""
        values = self._random.standard_normal(shape) / np.sqrt(fan_in)
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def convolution(self, value: str, channels: tuple[int, int], size: int, stride: int) -> str:
        """Add a square convolution with bias, as batch normalization leaves it when folded."""
        before, after = channels
        fan_in = before * size * size
        return self.node(
            "Conv",
            value,
            self.weight(after, before, size, size, fan_in=fan_in),
            self.weight(after, fan_in=fan_in),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
        )

    def finish(self, value: str, inputs: list[int], outputs: int) -> onnx.ModelProto:
        """Name the last value `OUTPUT` and close the model."""
        self.nodes[-1].output[0] = OUTPUT
        assert value == self.nodes[-1].name
        graph = helper.make_graph(
            self.nodes,
            "benchmark",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *inputs])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", outputs])],
            self.weights,
        )
        model = helper.make_model(
            graph,
            producer_name="modelport-benchmarks",
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
        )
        onnx.checker.check_model(model)
        return model


def _perceptron(*sizes: int) -> onnx.ModelProto:
    """Fully connected layers with ReLU between them."""
    graph = _Graph()
    value = INPUT
    for index, (before, after) in enumerate(pairwise(sizes)):
        if index:
            value = graph.node("Relu", value)
        weights = graph.weight(before, after, fan_in=before)
        value = graph.node("Gemm", value, weights, graph.weight(after, fan_in=before))
    return graph.finish(value, [sizes[0]], sizes[-1])


def _resnet18() -> onnx.ModelProto:
    """Layers of ResNet-18 (He et al. 2015, table 1), batch normalization folded."""
    graph = _Graph()
    value = graph.node("Relu", graph.convolution(INPUT, (3, 64), 7, 2))
    value = graph.node("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    before = 64
    for after in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if block == 0 and after != 64 else 1
            shortcut = (
                value
                if before == after
                else graph.convolution(value, (before, after), 1, stride)
            )  # fmt: skip
            value = graph.node("Relu", graph.convolution(value, (before, after), 3, stride))
            value = graph.convolution(value, (after, after), 3, 1)
            value = graph.node("Relu", graph.node("Add", value, shortcut))
            before = after
    value = graph.node("Flatten", graph.node("GlobalAveragePool", value))
    weights = graph.weight(512, 1000, fan_in=512)
    value = graph.node("Gemm", value, weights, graph.weight(1000, fan_in=512))
    return graph.finish(value, [3, 224, 224], 1000)


_BUILDERS: Final[dict[str, Callable[[], onnx.ModelProto]]] = {
    "m8": lambda: _perceptron(8, 10, 1),
    "m784": lambda: _perceptron(784, 256, 128, 10),
    "cnn": _resnet18,
}
NAMES: Final = tuple(_BUILDERS)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A session with one thread and no spinning, as all the servers open theirs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def build(name: str, cache: Path = CACHE) -> Model:
    """Build a model, or take it from the cache, and compute the answer to its row.

    Raises
    ------
    KeyError
        When `name` is none of `NAMES`.
    """
    path = cache / "models" / str(REVISION) / f"{name}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        onnx.save(_BUILDERS[name](), partial)
        partial.replace(path)
    session = open_session(path)
    # Six decimals, as measured data have: the JSON bodies hold the same digits for every server.
    shape = [1, *session.get_inputs()[0].shape[1:]]
    row = np.random.default_rng(_SEED).random(shape).round(6).astype(np.float32)
    (expected,) = session.run([OUTPUT], {INPUT: row})
    return Model(name, path, row, expected)
