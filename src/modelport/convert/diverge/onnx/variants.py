"""A node as the source model may have meant it.

Exporters and the frameworks they read differ in details that no error tells: how an image is
resized, where padding goes, which axis is meant. Each variant of a node changes one such detail;
one that gives the source model's value proves the cause.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper

from modelport.convert.graphs.edits import attribute, drop_attributes, set_attribute
from modelport.core.tensors import Array

_TO_FLOAT: Final = "cast its inputs to floating point before"


Change = Callable[[list[Array | None]], list[Array | None]]


@dataclass(frozen=True)
class Variant:
    """One node changed in one detail.

    Parameters
    ----------
    node : onnx.NodeProto
    cause : str
        What is wrong with the original, if this is right.
    remedy : str
    changes : tuple of callable
        Applied to the values of the node's inputs, for changes that no attribute makes; of
        several each row takes the one that suits it.
    repairs : bool
        Whether `node` can stand in the graph in place of the original.
    """

    node: onnx.NodeProto
    cause: str
    remedy: str
    changes: tuple[Change, ...] = ()
    repairs: bool = True


def variants(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Iterator[Variant]:
    """Everything that may have been meant by `node`."""
    make = _VARIANTS.get(node.op_type)
    if make is not None:
        yield from make(node, constants)


def _value(node: onnx.NodeProto, name: str, default: Any) -> Any:
    item = attribute(node, name)
    return default if item is None else helper.get_attribute_value(item)


def _with(node: onnx.NodeProto, **values: Any) -> onnx.NodeProto:
    node = copy.deepcopy(node)
    for name, value in values.items():
        set_attribute(node, name, value)
    return node


def _batch_norm(node: onnx.NodeProto, _: Mapping[str, Array]) -> Iterator[Variant]:
    if _value(node, "training_mode", 0):
        changed = _with(node, training_mode=0)
        del changed.output[1:]
        yield Variant(
            changed,
            "BatchNormalization was exported in training mode: it uses the statistics of the "
            "batch in place of the learned ones",
            "put the model into evaluation mode before exporting: model.eval(), training=False",
        )
    yield from _epsilon(node, _)


def _epsilon(node: onnx.NodeProto, _: Mapping[str, Array]) -> Iterator[Variant]:
    present = _value(node, "epsilon", 1e-5)
    for epsilon in (1e-3, 1e-5, 1e-6, 1e-12, 1e-8):
        if not np.isclose(epsilon, present, rtol=1e-3, atol=0):
            yield Variant(
                _with(node, epsilon=epsilon),
                f"{node.op_type} has epsilon {present:g}, and the source model {epsilon:g}",
                "export with the source model's epsilon",
            )


def _dropout(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Iterator[Variant]:
    if len(node.input) > 2 and bool(np.all(constants.get(node.input[2], np.True_))):
        changed = copy.deepcopy(node)
        del changed.input[1:]
        yield Variant(
            changed,
            "Dropout was exported in training mode: it drops values at random",
            "put the model into evaluation mode before exporting: model.eval(), training=False",
        )


def _integer_division(node: onnx.NodeProto, _: Mapping[str, Array]) -> Iterator[Variant]:
    def to_float(values: list[Array | None]) -> list[Array | None]:
        return [v.astype(np.float64) if v is not None and v.dtype.kind in "iu" else v
                for v in values]  # fmt: skip

    yield Variant(
        node,
        "a cast is missing: Div of integers drops the fraction, and the source model keeps it",
        f"{_TO_FLOAT} the division",
        (to_float,),
        repairs=False,
    )


def _cast(node: onnx.NodeProto, _: Mapping[str, Array]) -> Iterator[Variant]:
    to = _value(node, "to", 0)
    name = onnx.TensorProto.DataType.Name(to).lower()
    if to in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        return
    changed = _with(node, to=int(onnx.TensorProto.FLOAT))
    yield Variant(
        changed,
        f"the values are cast to {name}, which drops the fraction; the source model keeps it",
        f"leave out the cast to {name}",
        repairs=False,
    )


def _resize(node: onnx.NodeProto, _: Mapping[str, Array]) -> Iterator[Variant]:
    mode = _value(node, "mode", b"nearest").decode()
    now = _value(node, "coordinate_transformation_mode", b"half_pixel").decode()
    round_now = _value(node, "nearest_mode", b"round_prefer_floor").decode()
    for way in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel",
                "half_pixel_symmetric"):  # fmt: skip
        roundings = ("floor", "round_prefer_floor", "round_prefer_ceil", "ceil")
        for rounding in roundings if mode == "nearest" else (round_now,):
            if (way, rounding) == (now, round_now):
                continue
            changed = {"coordinate_transformation_mode": way}
            text = f"coordinate_transformation_mode {way}"
            was = f"coordinate_transformation_mode {now}"
            if mode == "nearest":
                changed["nearest_mode"] = rounding
                text, was = f"{text}, nearest_mode {rounding}", f"{was}, nearest_mode {round_now}"
            yield Variant(
                _with(node, **changed),
                f"Resize is exported with {was}, and the source model resizes with {text}",
                "export with a newer opset, or set the mode in the export code",
            )
    if not _value(node, "antialias", 0) and mode != "nearest":
        yield Variant(
            _with(node, antialias=1),
            "Resize is exported without antialias, and the source model resizes with it",
            "export with opset 18 or newer",
        )


def _padding(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Iterator[Variant]:
    pads = list(_value(node, "pads", []))
    automatic = _value(node, "auto_pad", b"NOTSET").decode()
    was = f"pads {pads}" if automatic == "NOTSET" else f"auto_pad {automatic}"
    remedy = "export with the source model's padding: 'same' differs between frameworks"
    for way in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        if way != automatic:
            changed = _with(node, auto_pad=way)
            drop_attributes(changed, ("pads",))
            yield Variant(
                changed, f"{node.op_type} is exported with {was}, the source model pads {way}",
                remedy,
            )  # fmt: skip
    kernel = list(_value(node, "kernel_shape", []))
    if not kernel and len(node.input) > 1 and node.input[1] in constants:
        kernel = list(constants[node.input[1]].shape[2:])
    both = [size // 2 for size in kernel] * 2
    if kernel and both != pads:
        changed = _with(node, pads=both)
        drop_attributes(changed, ("auto_pad",))
        yield Variant(
            changed, f"{node.op_type} is exported with {was}, the source model pads {both}", remedy
        )
    half = len(pads) // 2
    if half and pads[:half] != pads[half:]:
        yield Variant(
            _with(node, pads=pads[half:] + pads[:half]),
            f"{node.op_type} pads the other side: {pads}",
            remedy,
        )
    if node.op_type == "AveragePool":
        counted = _value(node, "count_include_pad", 0)
        yield Variant(
            _with(node, count_include_pad=1 - counted),
            f"AveragePool has count_include_pad {counted}, and the source model {1 - counted}",
            "set count_include_pad in the export code",
        )
    if node.op_type in ("AveragePool", "MaxPool"):
        ceil = _value(node, "ceil_mode", 0)
        yield Variant(
            _with(node, ceil_mode=1 - ceil),
            f"{node.op_type} has ceil_mode {ceil}, and the source model {1 - ceil}",
            "set ceil_mode in the export code",
        )


def _transpose(node: onnx.NodeProto, _: Mapping[str, Array]) -> Iterator[Variant]:
    present = list(_value(node, "perm", []))
    if not 2 <= len(present) <= 4:
        return
    for order in permutations(range(len(present))):
        if list(order) != present:
            yield Variant(
                _with(node, perm=list(order)),
                f"Transpose has perm {present}, and the source model's is {list(order)}",
                "correct the order of the axes in the export code",
            )


def _flatten(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Iterator[Variant]:
    """Channels last against channels first, before everything is one vector."""

    def channels_last(values: list[Array | None]) -> list[Array | None]:
        first = values[0]
        return [None if first is None else np.moveaxis(first, 1, -1), *values[1:]]

    def channels_first(values: list[Array | None]) -> list[Array | None]:
        first = values[0]
        return [None if first is None else np.moveaxis(first, -1, 1), *values[1:]]

    for change, text in ((channels_last, "last"), (channels_first, "first")):
        yield Variant(
            node,
            f"{node.op_type} flattens in another order than the source model, which has the "
            f"channels {text}",
            "transpose before it is flattened",
            (change,),
            repairs=False,
        )


def _axis(node: onnx.NodeProto, _: Mapping[str, Array]) -> Iterator[Variant]:
    present = _value(node, "axis", -1)
    for axis in (-1, 1, 2, 3, 0):
        if axis != present:
            yield Variant(
                _with(node, axis=axis),
                f"{node.op_type} goes along axis {present}, and the source model's along {axis}",
                "correct the axis in the export code",
            )


def _gelu(node: onnx.NodeProto, _: Mapping[str, Array]) -> Iterator[Variant]:
    now = _value(node, "approximate", b"none").decode()
    other = "tanh" if now == "none" else "none"
    yield Variant(
        _with(node, approximate=other),
        f"Gelu has approximate={now}, and the source model {other}",
        "export with the source model's approximation",
    )


def _slope(node: onnx.NodeProto, _: Mapping[str, Array]) -> Iterator[Variant]:
    present = _value(node, "alpha", 0.01 if node.op_type == "LeakyRelu" else 1.0)
    for alpha in (0.01, 0.1, 0.2, 0.3, 1.0):
        if not np.isclose(alpha, present, rtol=1e-5, atol=0):
            yield Variant(
                _with(node, alpha=alpha),
                f"{node.op_type} has alpha {present:g}, and the source model {alpha:g}",
                "export with the source model's slope",
            )


def _trees(node: onnx.NodeProto, _: Mapping[str, Array]) -> Iterator[Variant]:
    def moved(to: float) -> Change:
        def change(values: list[Array | None]) -> list[Array | None]:
            first = values[0]
            if first is None:
                return values
            return [np.nextafter(first.astype(np.float32), np.float32(to)), *values[1:]]

        return change

    def unmoved(values: list[Array | None]) -> list[Array | None]:
        return values

    yield Variant(
        node,
        "a value lies within one step of float32 from a tree's threshold, and goes the other way",
        "serve the model in float64, or round the thresholds as the inputs are",
        (unmoved, moved(np.inf), moved(-np.inf)),
        repairs=False,
    )


def _hard_sigmoid(node: onnx.NodeProto, _: Mapping[str, Array]) -> Iterator[Variant]:
    present = _value(node, "alpha", 0.2)
    for alpha in (0.2, 1 / 6):
        if not np.isclose(alpha, present, rtol=1e-3, atol=0):
            yield Variant(
                _with(node, alpha=alpha, beta=0.5),
                f"HardSigmoid has slope {present:g}, and the source model {alpha:g}",
                "export with the source model's slope",
            )


_VARIANTS: Final[
    Mapping[str, Callable[[onnx.NodeProto, Mapping[str, Array]], Iterator[Variant]]]
] = {
    "AveragePool": _padding,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Conv": _padding,
    "Div": _integer_division,
    "Dropout": _dropout,
    "Elu": _slope,
    "Flatten": _flatten,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "InstanceNormalization": _epsilon,
    "LayerNormalization": _epsilon,
    "LeakyRelu": _slope,
    "LogSoftmax": _axis,
    "MaxPool": _padding,
    "Reshape": _flatten,
    "Resize": _resize,
    "Softmax": _axis,
    "Transpose": _transpose,
    "TreeEnsemble": _trees,
    "TreeEnsembleClassifier": _trees,
    "TreeEnsembleRegressor": _trees,
}
