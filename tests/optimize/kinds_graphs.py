"""Graphs as other tools write them: Constant nodes, subgraphs, one row at a time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from modelport.core.tensors import Array
from tests.optimize.drawn import Drawn, digits, named, table
from tests.optimize.kinds_networks import Convolutions, fitted
from tests.optimize.made import Made


class Towers(nn.Module):
    """How much somebody likes something: two networks whose vectors are multiplied."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.person = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 16))
        self.thing = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 16))

    def forward(self, person: torch.Tensor, thing: torch.Tensor) -> torch.Tensor:
        return (self.person(person) * self.thing(thing)).sum(1)


class Stepping(nn.Module):
    """An RNN as it is written by hand, whose loop is one of ONNX."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.read, self.keep = nn.Linear(side, width), nn.Linear(width, width, bias=False)
        self.classifier = nn.Linear(width, 10)

    def forward(self, lines: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(len(lines), self.keep.in_features)
        for step in range(lines.shape[1]):
            state = torch.tanh(self.read(lines[:, step]) + self.keep(state))
        return self.classifier(state)


def _exported(module: nn.Module, example: Mapping[str, torch.Tensor], *, free: bool) -> bytes:
    """By the exporter that freezes nothing but weights; with a free first axis or none."""
    file = io.BytesIO()
    names = [*example, "scores"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(example.values()), file, input_names=list(example),
            output_names=["scores"], dynamo=False, opset_version=17,
            dynamic_axes={name: {0: "N"} for name in names} if free else None,
        )  # fmt: skip
    return file.getvalue()


def towers(size: int) -> Made:
    """Two inputs, and weights in Constant nodes; it answers a number."""

    def draw(count: int, seed: int) -> Drawn:
        rows, answers = table(count, seed)
        return {"person": rows[:, :6], "thing": rows[:, 6:]}, answers.astype(np.float32)

    rows, answers = draw(3000, 2)
    module = fitted(lambda: Towers(64 * size), rows, answers, 8)
    example = {name: torch.tensor(array[:2]) for name, array in rows.items()}
    model = onnx.load_from_string(_exported(module, example, free=True))
    weights = [helper.make_node("Constant", [], [item.name], value=item)
               for item in model.graph.initializer]  # fmt: skip
    made = [*weights, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(made)
    return Made(model.SerializeToString(), draw, numbers=True)


def scan(size: int) -> Made:
    """An RNN as a Scan whose weights are outside and inside of it, and an If over two heads."""
    side, width = 8, 32 * size
    rows, labels = digits(2500, 2, side)
    module = fitted(lambda: Stepping(side, width), {"x": rows}, labels, 12)
    weights = {n: v.detach().numpy().astype(np.float32) for n, v in module.named_parameters()}

    def constant(name: str, array: Array) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))

    body = helper.make_graph(
        [
            constant("keep", weights["keep.weight"].T.copy()),
            helper.make_node("MatMul", ["before", "keep"], ["kept"]),
            helper.make_node("MatMul", ["line", "read"], ["seen"]),
            helper.make_node("Add", ["kept", "seen"], ["sum"]),
            helper.make_node("Add", ["sum", "bias"], ["biased"]),
            helper.make_node("Tanh", ["biased"], ["after"]),
        ],
        "step",
        [helper.make_tensor_value_info("before", TensorProto.FLOAT, [None, width]),
         helper.make_tensor_value_info("line", TensorProto.FLOAT, [None, side])],
        [helper.make_tensor_value_info("after", TensorProto.FLOAT, [None, width])],
    )  # fmt: skip

    def head(name: str, factor: float) -> onnx.GraphProto:
        array = weights["classifier.weight"].T * np.float32(factor)
        return helper.make_graph(
            [constant(f"{name}_w", array), constant(f"{name}_b", weights["classifier.bias"]),
             helper.make_node("Gemm", ["last", f"{name}_w", f"{name}_b"], [f"{name}_out"])],
            name, [], [helper.make_empty_tensor_value_info(f"{name}_out")],
        )  # fmt: skip

    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["lines"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["count"]),
            helper.make_node("Gather", ["shape", "one"], ["length"]),
            helper.make_node("Concat", ["count", "width"], ["wanted"], axis=0),
            helper.make_node("ConstantOfShape", ["wanted"], ["start"]),
            helper.make_node(
                "Scan", ["start", "lines"], ["last"], body=body, num_scan_inputs=1,
                scan_input_axes=[1],
            ),
            helper.make_node("Greater", ["length", "few"], ["many"]),
            helper.make_node("Squeeze", ["many"], ["decided"]),
            helper.make_node(
                "If", ["decided"], ["scores"], then_branch=head("long", 1.0),
                else_branch=head("short", 2.0),
            ),
        ],
        "scan",
        [helper.make_tensor_value_info("lines", TensorProto.FLOAT, ["N", "steps", side])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
        [
            numpy_helper.from_array(weights["read.weight"].T.copy(), "read"),
            numpy_helper.from_array(weights["read.bias"], "bias"),
            *(numpy_helper.from_array(np.array([value], dtype=np.int64), name)
              for name, value in (("zero", 0), ("one", 1), ("width", width), ("few", 3))),
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return Made(model.SerializeToString(), named("", lambda count, seed: digits(count, seed, side)))


def loop(size: int) -> Made:
    """The hand-written RNN as PyTorch scripts it: a Loop."""
    side, width = 8, 32 * size
    rows, labels = digits(2500, 2, side)
    module = fitted(lambda: Stepping(side, width), {"x": rows}, labels, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(module)
    model = _exported(scripted, {"lines": torch.tensor(rows[:2])}, free=True)
    return Made(model, named("", lambda count, seed: digits(count, seed, side)))


def one_by_one(size: int) -> Made:
    """Convolutions whose graph takes one row at a time and no other number."""
    side = 8 if size == 1 else 16

    def draw(count: int, seed: int) -> Drawn:
        images, labels = digits(count, seed, side)
        return {"": images[:, None]}, labels

    rows, labels = draw(1500, 2)
    module = fitted(
        lambda: Convolutions(16 * size), {"x": rows[""]}, labels, 8, rate=4e-3 / size**0.5
    )
    model = _exported(module, {"image": torch.tensor(rows[""][:1])}, free=False)
    return Made(model, draw, sample=1)
