"""Operators that move numbers without computing; as the ONNX standard defines them.

They take tensors of any type, also of labels: `modelport.optimize.reduce.labels` follows channels
through a graph with them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from onnx import numpy_helper
from torch import Tensor

from modelport.optimize.train.arithmetic import torch_type
from modelport.optimize.train.call import Call, Operator, tensor_of


def _identity(_: Call, value: Tensor) -> Tensor:
    return value


def _dropout(
    call: Call, value: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> Tensor:
    if call.outputs > 1:
        raise call.refuse("a mask that is read")
    if training is not None and bool(training):
        raise call.refuse("training_mode")
    return value


def _flatten(call: Call, value: Tensor) -> Tensor:
    axis = call.get("axis", 1)
    axis = axis + value.ndim if axis < 0 else axis
    return value.reshape(int(np.prod(value.shape[:axis], dtype=np.int64)), -1)


def _reshape(call: Call, value: Tensor, given: Tensor | None = None) -> Tensor:
    sizes = list(call.get("shape", [])) if given is None else given.tolist()
    if not call.get("allowzero", 0):
        sizes = [value.shape[at] if size == 0 else size for at, size in enumerate(sizes)]
    return value.reshape(sizes)


def _transpose(call: Call, value: Tensor) -> Tensor:
    return value.permute(*call.get("perm", range(value.ndim)[::-1]))


def _concat(call: Call, *values: Tensor) -> Tensor:
    return torch.cat(values, call.get("axis", 1))


def _slice(
    call: Call, value: Tensor, starts: Tensor | None = None, ends: Tensor | None = None,
    axes: Tensor | None = None, steps: Tensor | None = None,
) -> Tensor:  # fmt: skip
    first = call.get("starts") if starts is None else starts.tolist()
    last = call.get("ends") if ends is None else ends.tolist()
    along = call.axes(axes) or list(range(len(first)))
    strides = [1] * len(first) if steps is None else steps.tolist()
    for start, end, axis, stride in zip(first, last, along, strides, strict=True):
        chosen = range(value.shape[axis])[slice(start, _open_end(end, stride), stride)]
        value = value.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64))
    return value


def _open_end(end: int, stride: int) -> int | None:
    """Python has no number for "before the first" when it counts down."""
    return None if stride < 0 and end <= -(2**31) else end


def _squeeze(call: Call, value: Tensor, given: Tensor | None = None) -> Tensor:
    axes = call.axes(given)
    return value.squeeze() if axes is None else value.squeeze(tuple(axes))


def _unsqueeze(call: Call, value: Tensor, given: Tensor | None = None) -> Tensor:
    axes = call.axes(given) or []
    rank = value.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = value.unsqueeze(axis)
    return value


def _gather(call: Call, value: Tensor, indices: Tensor) -> Tensor:
    axis = call.get("axis", 0) % value.ndim
    places = torch.where(indices < 0, indices + value.shape[axis], indices).to(torch.int64)
    taken = value.index_select(axis, places.reshape(-1))
    return taken.reshape((*value.shape[:axis], *places.shape, *value.shape[axis + 1 :]))


def _shape(call: Call, value: Tensor) -> Tensor:
    sizes = list(value.shape)[call.get("start", 0) : call.get("end")]
    return torch.tensor(sizes, dtype=torch.int64)


def _size(_: Call, value: Tensor) -> Tensor:
    return torch.tensor(value.numel(), dtype=torch.int64)


def _expand(_: Call, value: Tensor, shape: Tensor) -> Tensor:
    return value.expand(np.broadcast_shapes(value.shape, tuple(shape.tolist())))


def _tile(_: Call, value: Tensor, repeats: Tensor) -> Tensor:
    return value.repeat(repeats.tolist())


def _split(call: Call, value: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = call.get("axis", 0)
    parts = call.get("split") if sizes is None else sizes.tolist()
    if parts is None:
        each = -(-value.shape[axis] // call.made)
        return torch.split(value, each, axis)
    return torch.split(value, list(parts), axis)


def _pad(
    call: Call, value: Tensor, pads: Tensor | None = None, filler: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:  # fmt: skip
    if call.get("mode", "constant") != "constant":
        raise call.refuse(f"the mode {call.get('mode')}")
    sizes = call.get("pads") if pads is None else pads.tolist()
    along = list(range(value.ndim)) if axes is None else [a % value.ndim for a in axes.tolist()]
    both = {axis: (sizes[at], sizes[at + len(along)]) for at, axis in enumerate(along)}
    flat = [size for axis in reversed(range(value.ndim)) for size in both.get(axis, (0, 0))]
    number = call.get("value", 0.0) if filler is None else filler.item()
    return F.pad(value, flat, value=number)


def _constant(call: Call) -> Tensor:
    for name, value in call.attributes.items():
        if name == "value":
            return tensor_of(numpy_helper.to_array(value))
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32)
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
    raise call.refuse(", ".join(call.attributes) or "nothing")


def _constant_of_shape(call: Call, shape: Tensor) -> Tensor:
    value = call.get("value")
    filler = np.zeros(1, dtype=np.float32) if value is None else numpy_helper.to_array(value)
    return torch.from_numpy(np.full(shape.tolist(), filler[0]))


def _range(_: Call, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def _cast_like(call: Call, value: Tensor, like: Tensor) -> Tensor:
    return value.to(like.dtype)


def _eye_like(call: Call, value: Tensor) -> Tensor:
    kind = value.dtype if call.get("dtype") is None else torch_type(call, call.get("dtype"))
    ones = torch.ones(value.shape, dtype=torch.float32)
    return ones.triu(call.get("k", 0)).tril(call.get("k", 0)).to(kind)


OPERATORS: Final[dict[str, Operator]] = {
    "CastLike": _cast_like,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Dropout": _dropout,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
#: Those whose output is their first input's numbers (or all inputs', of Concat), moved.
MOVING: Final = frozenset(
    {"Concat", "Dropout", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze",
     "Transpose", "Unsqueeze"}
)  # fmt: skip
