"""Operators with weights, pools and norms; as the ONNX standard defines them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from modelport.optimize.train.call import Call, Operator

_CONV: Final[dict[int, Any]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE: Final[dict[int, Any]] = {
    1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d,
}  # fmt: skip
_MAX_POOL: Final[dict[int, Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MOST_AXES: Final = 3


def _matmul(_: Call, left: Tensor, right: Tensor) -> Tensor:
    return torch.matmul(left, right)


def _gemm(call: Call, left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    left = left.t() if call.get("transA", 0) else left
    right = right.t() if call.get("transB", 0) else right
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    product = left @ right if alpha == 1 else alpha * (left @ right)
    if bias is None:
        return product
    return product + (bias if beta == 1 else beta * bias)


def _spatial(call: Call, value: Tensor) -> int:
    axes = value.ndim - 2
    if not 1 <= axes <= _MOST_AXES:
        raise call.refuse(f"{axes} axes of space")
    return axes


def _pads(call: Call, sizes: Sequence[int], windows: Sequence[int]) -> list[tuple[int, int]]:
    """Before and after, per axis of space.

    Parameters
    ----------
    call : Call
    sizes : sequence of int
        Of the input.
    windows : sequence of int
        Of the kernel, with its dilation.
    """
    axes = len(sizes)
    how = call.get("auto_pad", "NOTSET") or "NOTSET"
    if how == "VALID":
        return [(0, 0)] * axes
    if how == "NOTSET":
        pads = call.get("pads", [0] * 2 * axes)
        return [(pads[at], pads[at + axes]) for at in range(axes)]
    strides = call.get("strides", [1] * axes)
    found = []
    for size, window, stride in zip(sizes, windows, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if how == "SAME_UPPER" else (more, less))
    return found


def _flat(pads: Sequence[tuple[int, int]]) -> list[int]:
    """As `torch.nn.functional.pad` has it: the last axis first."""
    return [size for pair in reversed(pads) for size in pair]


def _windows(sizes: Sequence[int], dilations: Sequence[int]) -> list[int]:
    return [(size - 1) * by + 1 for size, by in zip(sizes, dilations, strict=True)]


def _conv(call: Call, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    axes = _spatial(call, value)
    dilations = call.get("dilations", [1] * axes)
    pads = _pads(call, value.shape[2:], _windows(weight.shape[2:], dilations))
    even = all(before == after for before, after in pads)
    if not even:
        value = F.pad(value, _flat(pads))
    found: Tensor = _CONV[axes](
        value, weight, bias, stride=call.get("strides", [1] * axes),
        padding=[before for before, _ in pads] if even else 0,
        dilation=dilations, groups=call.get("group", 1),
    )  # fmt: skip
    return found


def _conv_transpose(
    call: Call, value: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    axes = _spatial(call, value)
    if call.get("auto_pad", "NOTSET") != "NOTSET" or call.get("output_shape"):
        raise call.refuse("auto_pad or output_shape")
    strides, dilations = call.get("strides", [1] * axes), call.get("dilations", [1] * axes)
    extra = call.get("output_padding", [0] * axes)
    pads = call.get("pads", [0] * 2 * axes)
    if any(
        more >= max(by, apart) for more, by, apart in zip(extra, strides, dilations, strict=True)
    ):
        raise call.refuse("an output_padding that is not below its stride")
    found: Tensor = _CONV_TRANSPOSE[axes](
        value, weight, bias, stride=strides, output_padding=extra, dilation=dilations,
        groups=call.get("group", 1),
    )  # fmt: skip
    for at in range(axes):
        length = found.shape[at + 2] - pads[at] - pads[at + axes]
        found = found.narrow(at + 2, pads[at], length)
    return found


def _pooled(
    call: Call, value: Tensor, filler: float
) -> tuple[Tensor, list[int], list[int], list[int]]:
    """The value with its edges, then kernel, strides and dilations.

    With ``ceil_mode`` the edge behind is widened until the last window fits, except for a window
    that would begin behind the input and its edge.
    """
    axes = _spatial(call, value)
    kernel = list(call.get("kernel_shape"))
    strides = list(call.get("strides", [1] * axes))
    dilations = list(call.get("dilations", [1] * axes))
    windows = _windows(kernel, dilations)
    pads = _pads(call, value.shape[2:], windows)
    if call.get("ceil_mode", 0):
        for at, (before, after) in enumerate(pads):
            size = value.shape[at + 2]
            room = size + before + after - windows[at]
            count = math.ceil(room / strides[at]) + 1
            if (count - 1) * strides[at] >= size + before:
                count -= 1
            pads[at] = before, max(after, (count - 1) * strides[at] + windows[at] - size - before)
    if any(size for pair in pads for size in pair):
        value = F.pad(value, _flat(pads), value=filler)
    return value, kernel, strides, dilations


def _max_pool(call: Call, value: Tensor) -> Tensor:
    if call.outputs > 1:
        raise call.refuse("indices")
    if not value.is_floating_point():
        raise call.refuse("integers")
    padded, kernel, strides, dilations = _pooled(call, value, -math.inf)
    found: Tensor = _MAX_POOL[value.ndim - 2](padded, kernel, strides, dilation=dilations)
    return found


def _average_pool(call: Call, value: Tensor) -> Tensor:
    """Sums over windows by how many numbers they hold, with the edge or without."""
    counted, kernel, strides, dilations = _pooled(call, torch.ones_like(value[:1, :1]), 0.0)
    if call.get("count_include_pad", 0):
        if call.get("ceil_mode", 0):
            raise call.refuse("count_include_pad and ceil_mode")
        counted = torch.ones_like(counted)
    padded = _pooled(call, value, 0.0)[0]
    if all(by == 1 for by in dilations) and counted.shape[2:] == value.shape[2:]:
        pool: Any = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[value.ndim - 2]
        plain: Tensor = pool(padded, kernel, strides)
        return plain
    ones = torch.ones(1, 1, *kernel, dtype=value.dtype)
    window: Any = _CONV[value.ndim - 2]
    sums = window(padded.flatten(0, 1)[:, None], ones, stride=strides, dilation=dilations)
    counts = window(counted, ones, stride=strides, dilation=dilations)
    means: Tensor = sums.reshape(*value.shape[:2], *sums.shape[2:]) / counts
    return means


def _global_average(_: Call, value: Tensor) -> Tensor:
    return value.mean(tuple(range(2, value.ndim)), keepdim=True)


def _global_max(_: Call, value: Tensor) -> Tensor:
    return value.amax(tuple(range(2, value.ndim)), keepdim=True)


def _batch_norm(
    call: Call, value: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    if call.get("training_mode", 0) or call.outputs > 1:
        raise call.refuse("training_mode")
    return F.batch_norm(value, mean, variance, scale, bias, eps=call.get("epsilon", 1e-5))


def _layer_norm(
    call: Call, value: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    axis, epsilon = call.get("axis", -1) % value.ndim, call.get("epsilon", 1e-5)
    shape = value.shape[axis:]
    scale, bias = scale.expand(shape), None if bias is None else bias.expand(shape)
    normed = F.layer_norm(value, shape, scale, bias, eps=epsilon)
    if call.outputs == 1:
        return (normed,)
    axes = tuple(range(axis, value.ndim))
    mean = value.mean(axes, keepdim=True)
    variance = ((value - mean) ** 2).mean(axes, keepdim=True)
    return normed, mean, torch.rsqrt(variance + epsilon)


def _instance_norm(call: Call, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    axes = tuple(range(2, value.ndim))
    apart = value - value.mean(axes, keepdim=True)
    spread = torch.sqrt((apart * apart).mean(axes, keepdim=True) + call.get("epsilon", 1e-5))
    shape = (-1, *[1] * len(axes))
    return apart / spread * scale.reshape(shape) + bias.reshape(shape)


OPERATORS: Final[dict[str, Operator]] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
}
