"""An ONNX graph as a PyTorch module, whose weights can be trained and written back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.train import arithmetic, layers, resize, shaping
from modelport.optimize.train.call import Call, Operator, call_of, tensor_of

OPERATORS: Final[dict[str, Operator]] = {
    **arithmetic.OPERATORS, **shaping.OPERATORS, **layers.OPERATORS,
    **resize.OPERATORS,
}  # fmt: skip

#: Inputs that are trained, by operator; other constants are what they say: an epsilon, a range.
_TRAINED: Final[dict[str, tuple[int, ...]]] = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
}
_NORM_EPSILON: Final = 1e-7


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of a node's outputs, per channel.

    Parameters
    ----------
    mean, deviation : ndarray of float32, shape (channels,)
    """

    mean: Array
    deviation: Array


def unknown_operators(model: onnx.ModelProto) -> list[str]:
    """Operators that cannot be trained through, by name."""
    return sorted(
        {
            node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            for node in model.graph.node
            if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS
        }
    )


class TorchGraph(nn.Module):
    """Executes a graph operator by operator, as the ONNX standard defines them.

    Parameters
    ----------
    model : ModelProto
        Constants folded (`modelport.optimize.session.simplified`).
    norms : mapping of str to Moments
        By the name of a Conv node, one of `normalizable`: while training, its outputs
        are normalized over the batch (Ioffe and Szegedy, "Batch Normalization", 2015), and then
        scaled to these moments, which are trained on. `write` folds that into the weights.
        Exporters have folded the original's own norms, without which large steps diverge.

    Raises
    ------
    UnsupportedError
        For an operator, or a type of numbers, that is not known.
    """

    def __init__(self, model: onnx.ModelProto, norms: Mapping[str, Moments] | None = None) -> None:
        super().__init__()
        unknown = unknown_operators(model)
        if unknown:
            raise UnsupportedError(f"training does not know {', '.join(unknown)}")
        self._model = model
        opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
        read = {name for node in model.graph.node for name in node.input}
        read |= {value.name for value in model.graph.output}
        self._nodes = [(node, call_of(node, opset, read)) for node in model.graph.node]
        self._constants = {
            item.name: tensor_of(numpy_helper.to_array(item)) for item in model.graph.initializer
        }
        trained = _trained(model)
        self._trained = nn.ParameterDict(
            {_key(name): nn.Parameter(_laid_out(self._constants.pop(name))) for name in trained}
        )
        self._keys = {name: _key(name) for name in trained}
        self._norms = nn.ModuleDict(
            {_key(name): _norm(found) for name, found in (norms or {}).items()}
        )
        self._outputs = [value.name for value in model.graph.output]
        self._last = _last_uses(model)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name.

        Parameters
        ----------
        inputs : mapping of str to Tensor

        Raises
        ------
        UnsupportedError
            For a form of an operator that is not known.
        """
        known: dict[str, Tensor] = {name: _laid_out(value) for name, value in inputs.items()}
        for at, (node, call) in enumerate(self._nodes):
            taken = [self._value(known, name) for name in node.input]
            found = self._called(call, node, taken)
            known.update(zip(node.output, found, strict=False))
            for name in self._last.get(at, ()):
                known.pop(name, None)
        return {
            name: value for name in self._outputs if (value := self._value(known, name)) is not None
        }

    def _called(
        self, call: Call, node: onnx.NodeProto, taken: list[Tensor | None]
    ) -> tuple[Tensor, ...]:
        try:
            found = OPERATORS[call.operator](call, *taken)
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            raise call.refuse(f"inputs that PyTorch does not take: {error}") from error
        if isinstance(found, tuple):
            return found
        key = _key(node.name)
        return (self._norms[key](found),) if key in self._norms else (found,)

    def _value(self, known: Mapping[str, Tensor], name: str) -> Tensor | None:
        if not name:
            return None
        if name in known:
            return known[name]
        if name in self._keys:
            found: Tensor = self._trained[self._keys[name]]
            return found
        return self._constants[name]

    def weight(self, name: str) -> nn.Parameter:
        """A weight that is trained, by its name in the graph."""
        found: nn.Parameter = self._trained[self._keys[name]]
        return found

    def write(self) -> onnx.ModelProto:
        """The same graph with the weights as they are now, norms folded into them."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        arrays = {
            name: self._trained[key].detach().contiguous().numpy()
            for name, key in self._keys.items()
        }
        for node in copy.graph.node:
            if _key(node.name) in self._norms:
                _fold(copy.graph, node, self._norms[_key(node.name)], arrays)
        for item in copy.graph.initializer:
            if item.name in arrays:
                item.CopyFrom(numpy_helper.from_array(np.array(arrays[item.name]), item.name))
        return copy


def normalizable(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The Conv nodes whose weights are trained for nobody else: norms can be folded into them."""
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(value.name for value in model.graph.output)
    constants = set(_trained(model))
    return [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.name
        and all(name in constants and uses[name] == 1 for name in node.input[1:] if name)
    ]


def _trained(model: onnx.ModelProto) -> list[str]:
    """Names of the float32 constants that are weights."""
    floats = {
        item.name
        for item in model.graph.initializer
        if item.data_type == onnx.TensorProto.FLOAT and len(item.dims)
    }
    products = {node.output[0] for node in model.graph.node if node.op_type == "MatMul"}
    found: dict[str, None] = {}
    for node in model.graph.node:
        places = _TRAINED.get(node.op_type, ())
        if node.op_type == "Add" and products & set(node.input):
            places = (0, 1)  # a bias
        for place in places:
            if place < len(node.input) and node.input[place] in floats:
                found[node.input[place]] = None
    return list(found)


def _norm(moments: Moments) -> nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d:
    norm = _AnyNorm(len(moments.mean), eps=_NORM_EPSILON)
    mean, deviation = (torch.from_numpy(np.array(a, dtype=np.float32)) for a in
                       (moments.mean, moments.deviation))  # fmt: skip
    with torch.no_grad():
        norm.weight.copy_(deviation)
        norm.bias.copy_(mean)
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(deviation**2)
    return norm


class _AnyNorm(nn.BatchNorm2d):
    """Over any number of axes of space."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - as the base class has it
        """Whatever the convolution answers."""


def _fold(
    graph: onnx.GraphProto, node: onnx.NodeProto, norm: nn.Module, arrays: dict[str, Array]
) -> None:
    """New w = w · scale / deviation; new b = bias + (b - mean) · scale / deviation."""
    scale, bias, mean, variance = (
        getattr(norm, name).detach().numpy()
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    factor = scale / np.sqrt(variance + _NORM_EPSILON)
    weight = arrays[node.input[1]]
    arrays[node.input[1]] = (weight * factor.reshape(-1, *[1] * (weight.ndim - 1))).astype(
        np.float32
    )
    if len(node.input) < 3 or not node.input[2]:
        del node.input[2:]
        node.input.append(f"{node.input[1]}__bias")
        graph.initializer.append(numpy_helper.from_array(np.zeros_like(factor), node.input[2]))
    before = arrays.get(node.input[2], np.zeros_like(factor))
    arrays[node.input[2]] = (bias + (before - mean) * factor).astype(np.float32)


def _last_uses(model: onnx.ModelProto) -> dict[int, list[str]]:
    """After which node which tensors are not read any more."""
    last = {name: at for at, node in enumerate(model.graph.node) for name in node.input}
    kept = {value.name for value in model.graph.output}
    found: dict[int, list[str]] = {}
    for name, at in last.items():
        if name not in kept:
            found.setdefault(at, []).append(name)
    return found


def _laid_out(value: Tensor) -> Tensor:
    """Images with their channels last, in which processors convolve fastest."""
    if value.ndim == 4 and value.is_floating_point():
        return value.contiguous(memory_format=torch.channels_last)
    return value


def _key(name: str) -> str:
    """A name without dots, which PyTorch does not take in the names of its parts."""
    return "w_" + name.replace("_", "__").replace(".", "_d")
