"""Custom TFLite operators that TFLite itself runs, written in ONNX operators."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from modelport.core.errors import UnsupportedError

_PADDING_SAME: Final = 1


def custom_operators(model: Any, codes: Mapping[int, str]) -> dict[str, Any]:
    """Handlers for the custom operators in a file, as tf2onnx takes them.

    Parameters
    ----------
    model : tf2onnx.tflite.Model.Model
    codes : mapping of int to str
        Operator index → name.
    """
    options: dict[str, dict[str, bytes]] = {name: {} for name in _HANDLERS}
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        for position in range(graph.OperatorsLength()):
            operator = graph.Operators(position)
            code = codes[operator.OpcodeIndex()]
            if code in options and not operator.CustomOptionsIsNone():
                output = graph.Tensors(operator.Outputs(0)).Name().decode()
                options[code][output] = operator.CustomOptionsAsNumpy().tobytes()
    return {f"TFL_{code}": (partial(_HANDLERS[code], options[code]), []) for code in _HANDLERS}


def _transposed_convolution(
    options: Mapping[str, bytes], graph: Any, node: Any, name: str, _arguments: Any
) -> None:
    """MediaPipe's Convolution2DTransposeBias, which XNNPACK runs.

    Its options are a C structure, ``TfLiteTransposeConvParams``: padding, stride in width, stride
    in height, as 32-bit integers. Weights are ``[out, height, width, in]``, images NHWC.
    """
    output = node.output[0]
    if output not in options:
        raise UnsupportedError(f"operator {node.type} at {name} has no options")
    padding, stride_width, stride_height = struct.unpack_from("<3i", options[output])
    image, weights, bias = node.input
    kernel, size = graph.get_shape(weights), graph.get_shape(image)
    dtype, shape = graph.get_dtype(output), graph.get_shape(output)
    graph.remove_node(node.name)
    strides = [stride_height, stride_width]
    attributes: dict[str, Any] = {"strides": strides, "kernel_shape": kernel[1:3]}
    if padding == _PADDING_SAME:
        # As TensorFlow pads: the image grows by exactly the stride, the odd pixel goes to the end.
        surplus = [max(k - s, 0) for k, s in zip(kernel[1:3], strides, strict=True)]
        attributes["pads"] = [*(s // 2 for s in surplus), *(s - s // 2 for s in surplus)]
    channels_first = graph.make_node(
        "Transpose", [image], attr={"perm": [0, 3, 1, 2]}, op_name_scope=name
    )
    turned = graph.make_node(
        "Transpose", [weights], attr={"perm": [3, 0, 1, 2]}, op_name_scope=name
    )
    grown = graph.make_node(
        "ConvTranspose",
        [channels_first.output[0], turned.output[0], bias],
        attr=attributes,
        op_name_scope=name,
        dtypes=[dtype],
        shapes=[[size[0], kernel[0], *shape[1:3]]],
    )
    graph.make_node(
        "Transpose",
        [grown.output[0]],
        attr={"perm": [0, 2, 3, 1]},
        outputs=[output],
        name=name,
        dtypes=[dtype],
        shapes=[shape],
    )


_HANDLERS: Final[dict[str, Callable[..., None]]] = {
    "Convolution2DTransposeBias": _transposed_convolution
}
