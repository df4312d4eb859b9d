"""Matrices of 8 or 4 bits that are widened while they are multiplied.

Along its inputs, each output's weights are cut into blocks with a scale of their own: the weight w
of the largest size becomes the lowest integer, scale = w / -2 ** (bits - 1), zero in the middle
(the symmetric form of ONNX Runtime's ``MatMulNBits``). Activations are cut into blocks of int8 by
the kernel itself (``accuracy_level`` 4); without that it computes in float32, several times slower.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import helper

from modelport.core.tensors import Array
from modelport.optimize.onnx_graph import scopes
from modelport.optimize.quantize.dynamic import Plan, Rewrite, drop_unused
from modelport.optimize.quantize.products import matrix_of
from modelport.optimize.quantize.rounding import Order, rounded

#: Weights with a scale of their own, per number of bits; smaller ones where more than this share
#: would be padding.
BLOCKS: Final = {8: 128, 4: 32}
_PADDING: Final = 0.05
_SMALLEST: Final = 16
_INT8_ACTIVATIONS: Final = 4
_DOMAIN: Final = "com.microsoft"


def quantize_weights(model: onnx.ModelProto, plan: Plan, bits: int) -> onnx.ModelProto:
    """The graph with narrow matrices and int8 tables, also in its branches.

    Parameters
    ----------
    model : ModelProto
        Constants are initializers.
    plan : Plan
        Only its samples are used.
    bits : int
        8 or 4.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # Branches before what they are in, whose nodes are replaced by copies.
    for index, (graph, constants) in reversed(list(enumerate(scopes(copy.graph)))):
        _Narrow(graph, constants, plan, f"int{bits}_{index}", bits).apply(with_tables=True)
    drop_unused(copy)
    if not any(item.domain == _DOMAIN for item in copy.opset_import):
        copy.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return copy


class _Narrow(Rewrite):
    """Replaces products by MatMulNBits."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        constants: dict[str, onnx.TensorProto],
        plan: Plan,
        prefix: str,
        bits: int,
    ) -> None:
        super().__init__(graph, constants, plan, prefix)
        self._bits = bits

    def product(self, node: onnx.NodeProto) -> None:
        weights = matrix_of(node, self.constants).T
        outputs, inputs = weights.shape
        size = _block_size(inputs, BLOCKS[self._bits])
        # With 8 bits the nearest step is near enough.
        order = self.order(node.input[0]) if self._bits < 8 else None
        integers, scales = blocks(weights, self._bits, size, order)
        out = node.output[0]
        biased = node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]
        product = f"{out}__product" if biased else out
        self.node(
            "MatMulNBits",
            [
                node.input[0],
                self.constant(packed(integers, self._bits), f"{out}__packed"),
                self.constant(scales.ravel(), f"{out}__scales"),
            ],
            [product],
            domain=_DOMAIN, K=inputs, N=outputs, bits=self._bits, block_size=size,
            accuracy_level=_INT8_ACTIVATIONS,
        )  # fmt: skip
        if biased:
            self.node("Add", [product, node.input[2]], [out])


def _block_size(inputs: int, size: int) -> int:
    while size > _SMALLEST and -(-inputs // size) * size > inputs * (1 + _PADDING):
        size //= 2
    return size


def blocks(weights: Array, bits: int, size: int, order: Order | None) -> tuple[Array, Array]:
    """Integers and scales.

    Parameters
    ----------
    weights : ndarray of float32, shape (outputs, inputs)
    bits : int
    size : int
        Of a block.
    order : Order or None
        In which weights are rounded so that errors cancel; None: each to the nearest step.

    Returns
    -------
    ndarray of int, shape (outputs, blocks, size)
        From 0 to 2 ** bits - 1.
    ndarray of float32, shape (outputs, blocks)
    """
    outputs, inputs = weights.shape
    count = -(-inputs // size)
    middle = 2 ** (bits - 1)
    padded = np.zeros((outputs, count * size), dtype=np.float32)
    padded[:, :inputs] = weights
    cut = padded.reshape(outputs, count, size)
    extreme = np.take_along_axis(cut, np.abs(cut).argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    scales = np.where(extreme == 0, 1.0, extreme / -middle).astype(np.float32)
    if order is None:
        found = np.clip(np.round(cut / scales[:, :, None]), -middle, middle - 1)
    else:
        steps = np.repeat(scales, size, axis=1)[:, :inputs]
        integers = rounded(weights[None], steps[None], order, -middle, middle - 1)[0]
        found = np.zeros((outputs, count * size), dtype=np.int16)
        found[:, :inputs] = integers
    return found.reshape(outputs, count, size).astype(np.int16) + middle, scales


def packed(integers: Array, bits: int) -> Array:
    """As bytes; of two numbers of 4 bits the first one is in the lower half."""
    narrow = integers.astype(np.uint8)
    if bits == 8:
        return narrow
    found: Array = narrow[:, :, 0::2] | (narrow[:, :, 1::2] << 4)
    return found
