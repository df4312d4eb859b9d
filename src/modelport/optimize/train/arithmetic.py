"""Operators that compute number by number, compare and reduce, as the ONNX standard has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Final

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from modelport.optimize.train.call import Call, Operator

_NUMPY_TO_TORCH: Final = {
    np.dtype(kind): torch.from_numpy(np.zeros(1, dtype=kind)).dtype
    for kind in ("bool", "uint8", "int8", "int16", "int32", "int64",
                 "float16", "float32", "float64")
}  # fmt: skip


def torch_type(call: Call, element: int) -> torch.dtype:
    """PyTorch's type for one of `onnx.TensorProto`."""
    found = _NUMPY_TO_TORCH.get(onnx.helper.tensor_dtype_to_np_dtype(element))
    if found is None or element == onnx.TensorProto.BFLOAT16:
        raise call.refuse(f"the type {onnx.TensorProto.DataType.Name(element)}")
    return found


def _alone(function: Callable[[Tensor], Tensor]) -> Operator:
    def operator(_: Call, value: Tensor) -> Tensor:
        return function(value)

    return operator


def _pair(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def operator(call: Call, left: Tensor, right: Tensor) -> Tensor:
        if call.opset < 7 and call.get("broadcast"):
            raise call.refuse("the broadcasting of opset 6")
        return function(left, right)

    return operator


def _many(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def operator(_: Call, *values: Tensor) -> Tensor:
        return reduce(function, values)

    return operator


def _mean(_: Call, *values: Tensor) -> Tensor:
    return reduce(torch.add, values) / len(values)


def _div(_: Call, left: Tensor, right: Tensor) -> Tensor:
    if left.is_floating_point():
        return left / right
    return torch.div(left, right, rounding_mode="trunc")


def _mod(call: Call, left: Tensor, right: Tensor) -> Tensor:
    return torch.fmod(left, right) if call.get("fmod", 0) else torch.remainder(left, right)


def _pow(_: Call, base: Tensor, exponent: Tensor) -> Tensor:
    if exponent.numel() == 1 and exponent.ndim <= base.ndim and base.is_floating_point():
        return torch.pow(base, float(exponent))  # its gradient at 0 is not NaN
    return torch.pow(base, exponent).to(base.dtype)


def _clip(
    call: Call, value: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    least = call.get("min") if low is None else low.item()
    most = call.get("max") if high is None else high.item()
    if least is None and most is None:
        return value
    clipped = value if least is None else value.clamp(min=least)
    return clipped if most is None else clipped.clamp(max=most)


def _hard_sigmoid(call: Call, value: Tensor) -> Tensor:
    line: Tensor = call.get("alpha", 0.2) * value + call.get("beta", 0.5)
    return line.clamp(0, 1)


def _gelu(call: Call, value: Tensor) -> Tensor:
    return F.gelu(value, approximate=call.get("approximate", "none"))


def _prelu(_: Call, value: Tensor, slope: Tensor) -> Tensor:
    return torch.where(value >= 0, value, slope * value)


def _selu(call: Call, value: Tensor) -> Tensor:
    alpha, gamma = call.get("alpha", 1.6732632), call.get("gamma", 1.050701)
    return torch.where(value > 0, gamma * value, gamma * alpha * torch.expm1(value))


def _leaky_relu(call: Call, value: Tensor) -> Tensor:
    return F.leaky_relu(value, call.get("alpha", 0.01))


def _elu(call: Call, value: Tensor) -> Tensor:
    return F.elu(value, call.get("alpha", 1.0))


def _swish(call: Call, value: Tensor) -> Tensor:
    return value * torch.sigmoid(call.get("alpha", 1.0) * value)


def _over_rows(function: Callable[[Tensor, int], Tensor]) -> Operator:
    """Softmax and its kin: along one axis since opset 13, over all that follow before."""

    def operator(call: Call, value: Tensor) -> Tensor:
        if call.opset >= 13:
            return function(value, call.get("axis", -1))
        axis = call.get("axis", 1) % max(value.ndim, 1)
        rows = value.reshape(int(np.prod(value.shape[:axis], dtype=np.int64)), -1)
        return function(rows, 1).reshape(value.shape)

    return operator


def _softmax(value: Tensor, axis: int) -> Tensor:
    return torch.softmax(value, axis)


def _log_softmax(value: Tensor, axis: int) -> Tensor:
    return torch.log_softmax(value, axis)


def _where(_: Call, condition: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return torch.where(condition, left, right)


def _cast(call: Call, value: Tensor) -> Tensor:
    return value.to(torch_type(call, call.get("to")))


def _reducing(function: Callable[[Tensor, Sequence[int], bool], Tensor]) -> Operator:
    def operator(call: Call, value: Tensor, given: Tensor | None = None) -> Tensor:
        axes = call.axes(given)
        if not axes:
            if call.get("noop_with_empty_axes", 0):
                raise call.refuse("noop_with_empty_axes")
            axes = list(range(value.ndim))
        if value.numel() == 0:
            raise call.refuse("no numbers")
        return function(value, [axis % value.ndim for axis in axes], bool(call.get("keepdims", 1)))

    return operator


def _prod(value: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        value = value.prod(axis, keepdim=keep, dtype=value.dtype)
    return value


def _sum(value: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return value.sum(list(axes), keepdim=keep, dtype=value.dtype)


def _reduce_mean(value: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return value.mean(list(axes), keepdim=keep)


def _norm(value: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return torch.sqrt(_sum(value * value, axes, keep))


def _argmax(call: Call, value: Tensor) -> Tensor:
    if call.get("select_last_index", 0):
        raise call.refuse("select_last_index")
    return value.argmax(call.get("axis", 0), keepdim=bool(call.get("keepdims", 1)))


OPERATORS: Final[dict[str, Operator]] = {
    "Abs": _alone(torch.abs),
    "Add": _pair(torch.add),
    "And": _pair(torch.logical_and),
    "ArgMax": _argmax,
    "Cast": _cast,
    "Ceil": _alone(torch.ceil),
    "Clip": _clip,
    "Cos": _alone(torch.cos),
    "Div": _div,
    "Elu": _elu,
    "Equal": _pair(torch.eq),
    "Erf": _alone(torch.erf),
    "Exp": _alone(torch.exp),
    "Floor": _alone(torch.floor),
    "Gelu": _gelu,
    "Greater": _pair(torch.gt),
    "GreaterOrEqual": _pair(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _alone(F.hardswish),
    "LeakyRelu": _leaky_relu,
    "Less": _pair(torch.lt),
    "LessOrEqual": _pair(torch.le),
    "Log": _alone(torch.log),
    "LogSoftmax": _over_rows(_log_softmax),
    "Max": _many(torch.maximum),
    "Mean": _mean,
    "Min": _many(torch.minimum),
    "Mish": _alone(F.mish),
    "Mod": _mod,
    "Mul": _pair(torch.mul),
    "Neg": _alone(torch.neg),
    "Not": _alone(torch.logical_not),
    "Or": _pair(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": _alone(torch.reciprocal),
    "ReduceL1": _reducing(lambda value, axes, keep: _sum(value.abs(), axes, keep)),
    "ReduceL2": _reducing(_norm),
    "ReduceMax": _reducing(lambda value, axes, keep: value.amax(list(axes), keepdim=keep)),
    "ReduceMean": _reducing(_reduce_mean),
    "ReduceMin": _reducing(lambda value, axes, keep: value.amin(list(axes), keepdim=keep)),
    "ReduceProd": _reducing(_prod),
    "ReduceSum": _reducing(_sum),
    "ReduceSumSquare": _reducing(lambda value, axes, keep: _sum(value * value, axes, keep)),
    "Relu": _alone(torch.relu),
    "Round": _alone(torch.round),
    "Selu": _selu,
    "Sigmoid": _alone(torch.sigmoid),
    "Sign": _alone(torch.sign),
    "Sin": _alone(torch.sin),
    "Softmax": _over_rows(_softmax),
    "Softplus": _alone(F.softplus),
    "Softsign": _alone(F.softsign),
    "Sqrt": _alone(torch.sqrt),
    "Sub": _pair(torch.sub),
    "Sum": _many(torch.add),
    "Swish": _swish,
    "Tanh": _alone(torch.tanh),
    "Where": _where,
    "Xor": _pair(torch.logical_xor),
}
