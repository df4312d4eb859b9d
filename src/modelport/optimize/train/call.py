"""How operators are called: with a node's attributes and tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array


@dataclass(frozen=True)
class Call:
    """A node, without its tensors.

    Parameters
    ----------
    operator : str
        Its type, as the ONNX standard calls it.
    name : str
        Of the node, for people.
    opset : int
        Of the standard's domain in the model.
    outputs : int
        How many of them are read: the place of the last one that is.
    made : int
        How many there are.
    attributes : mapping of str to Any
        As Python values.
    """

    operator: str
    name: str = ""
    opset: int = 17
    outputs: int = 1
    made: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or what the standard says of its absence."""
        return self.attributes.get(name, default)

    def axes(self, given: Tensor | None) -> list[int] | None:
        """``axes``: an attribute until opset 12 or 17, an input since."""
        if given is not None:
            return [int(axis) for axis in given.tolist()]
        axes = self.get("axes")
        return None if axes is None else list(axes)

    def refuse(self, what: str) -> UnsupportedError:
        """The error for a form of the operator that is not known here."""
        at = f" ({self.name})" if self.name else ""
        return UnsupportedError(f"training does not know {self.operator}{at} with {what}")


#: Tensors that a node leaves out are None.
Operator = Callable[..., Tensor | tuple[Tensor, ...]]


def call_of(node: onnx.NodeProto, opset: int, read: Collection[str]) -> Call:
    """The call that a node makes.

    Parameters
    ----------
    node : NodeProto
    opset : int
    read : collection of str
        Tensors that other nodes read, and the graph's outputs.
    """
    attributes = {item.name: _value(item) for item in node.attribute}
    outputs = max((at for at, name in enumerate(node.output, 1) if name in read), default=1)
    return Call(node.op_type, node.name, opset, outputs, len(node.output), attributes)


def tensor_of(array: Array) -> Tensor:
    """A copy of an array.

    Raises
    ------
    UnsupportedError
        For text, and for types of numbers that PyTorch cannot take from NumPy.
    """
    try:
        return torch.from_numpy(np.array(array, order="C"))
    except TypeError as error:
        raise UnsupportedError(f"training does not know numbers of type {array.dtype}") from error


def _value(item: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(item)
    if isinstance(value, bytes):
        return value.decode()
    return value
