"""Graphs in operator sets so old that ONNX Runtime does not run them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from onnx import version_converter
from onnx.reference import ReferenceEvaluator

from modelport.convert.graphs.edits import opset_of
from modelport.core.errors import EngineError
from modelport.core.tensors import Array

#: Operators of this set run on ONNX Runtime 1.20 and later.
_OPSET: Final = 18
#: Stands for a dimension of any size: no network has a layer of this width.
_ANY_SIZE: Final = 1999


class Evaluator:
    """ONNX's own reference implementation of the operators, in NumPy: slow, and of every age.

    Parameters
    ----------
    proto : onnx.ModelProto

    Raises
    ------
    EngineError
        When it lacks an operator.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        try:
            self._evaluator = ReferenceEvaluator(proto)
        except Exception as error:  # it raises whatever it likes
            raise EngineError(f"onnx cannot evaluate the model: {error}") from error
        self._names = [value.name for value in proto.graph.output]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `modelport.engines.base.LoadedModel.run`."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                values = self._evaluator.run(self._names, dict(inputs))
        except Exception as error:  # it raises whatever it likes
            raise EngineError(f"onnx cannot evaluate the model: {error}") from error
        return dict(zip(self._names, (np.asarray(value) for value in values), strict=True))


def upgraded(proto: onnx.ModelProto) -> tuple[int, bytes] | None:
    """The same graph in a newer operator set; None where onnx cannot convert it."""
    if opset_of(proto).get("", _OPSET) >= _OPSET:
        return None
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    # Broadcasting had other rules once; the converter compares sizes, and takes no symbols.
    for value in fixed.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.dim_value = _ANY_SIZE
    del fixed.graph.value_info[:]
    for candidate in (proto, fixed):
        try:
            converted = version_converter.convert_version(candidate, _OPSET)
        except Exception:  # noqa: S112 - it raises whatever it likes
            continue
        declared = {value.name: value for value in (*proto.graph.input, *proto.graph.output)}
        for value in (*converted.graph.input, *converted.graph.output):
            value.CopyFrom(declared[value.name])
        del converted.graph.value_info[:]
        return _OPSET, bytes(converted.SerializeToString(deterministic=True))
    return None
