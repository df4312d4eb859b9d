"""The Resize operator, nearest and linear, axis by axis; as the ONNX standard defines it."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor

from modelport.core.tensors import Array
from modelport.optimize.train.call import Call, Operator

_FEWEST_INPUTS_OPSET: Final = 11


def _resize(
    call: Call, value: Tensor, roi: Tensor | None = None, scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:  # fmt: skip
    if call.opset < _FEWEST_INPUTS_OPSET:
        raise call.refuse("the inputs of opset 10")
    mode = call.get("mode", "nearest")
    if mode == "cubic" or call.get("antialias", 0) or call.get("exclude_outside", 0):
        raise call.refuse("cubic interpolation, antialias or exclude_outside")
    if call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refuse("keep_aspect_ratio_policy")
    along = [axis % value.ndim for axis in call.get("axes", range(value.ndim))]
    for at, axis in enumerate(along):
        before = value.shape[axis]
        if sizes is not None and sizes.numel():
            after = int(sizes[at])
            scale = after / before
        elif scales is not None and scales.numel():
            scale = float(scales[at])
            after = math.floor(before * scale)
        else:
            raise call.refuse("neither scales nor sizes")
        if scale == 1:
            continue
        places = _places(call, before, after, scale)
        value = _nearest(call, value, axis, places) if mode == "nearest" else _linear(
            value, axis, places
        )  # fmt: skip
    return value


def _places(call: Call, before: int, after: int, scale: float) -> Array:
    """Where in the input each place of the output lies."""
    out = np.arange(after, dtype=np.float64)
    how = call.get("coordinate_transformation_mode", "half_pixel")
    if how == "asymmetric":
        return out / scale
    if how == "align_corners":
        return out * (before - 1) / (after - 1) if after > 1 else out * 0
    if how == "half_pixel" or (how == "pytorch_half_pixel" and after > 1):
        return (out + 0.5) / scale - 0.5
    if how == "pytorch_half_pixel":
        return out * 0
    raise call.refuse(f"coordinate_transformation_mode {how}")


def _nearest(call: Call, value: Tensor, axis: int, places: Array) -> Tensor:
    how = call.get("nearest_mode", "round_prefer_floor")
    if how == "floor":
        rounded = np.floor(places)
    elif how == "ceil":
        rounded = np.ceil(places)
    else:
        rounded = np.ceil(places - 0.5) if how == "round_prefer_floor" else np.floor(places + 0.5)
    chosen = np.clip(rounded, 0, value.shape[axis] - 1).astype(np.int64)
    return value.index_select(axis, torch.from_numpy(chosen))


def _linear(value: Tensor, axis: int, places: Array) -> Tensor:
    last = value.shape[axis] - 1
    inside = np.clip(places, 0, last)
    lower = np.floor(inside).astype(np.int64)
    upper = np.minimum(lower + 1, last)
    shape = [1] * value.ndim
    shape[axis] = -1
    share = torch.from_numpy((inside - lower).astype(np.float32)).reshape(shape).to(value.dtype)
    first, second = (value.index_select(axis, torch.from_numpy(at)) for at in (lower, upper))
    return first + share * (second - first)


OPERATORS: Final[dict[str, Operator]] = {"Resize": _resize}
