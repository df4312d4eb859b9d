"""Writing nodes into the graph that skl2onnx builds."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper
from skl2onnx.common import data_types

from modelport.core.tensors import Array

#: Where skl2onnx would choose an older version, or none.
_VERSIONS = {
    # It is of version 5, which skl2onnx does not know yet; the export sets it in the end.
    ("ai.onnx.ml", "TreeEnsemble"): 1,
    ("ai.onnx.ml", "LabelEncoder"): 2,
    ("com.microsoft", "Tokenizer"): 1,
}


class Writer:
    """Nodes and constants of one operator.

    Parameters
    ----------
    scope, operator, container
        As skl2onnx gives them to a converter.

    Attributes
    ----------
    model : BaseEstimator
    dtype : numpy dtype
        In which numbers are computed.
    """

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope = scope
        self._operator = operator
        self._container = container
        self.model = operator.raw_operator
        wide = any(isinstance(v.type, data_types.DoubleTensorType) for v in operator.inputs)
        self.dtype = np.dtype(np.float64 if wide else np.float32)

    @property
    def inputs(self) -> list[str]:
        """Names of the input tensors."""
        return list(self._operator.input_full_names)

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A constant: floating-point numbers in `dtype`, integers as int64, or text."""
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(dtype or self.dtype)
        elif array.dtype.kind in "iub":
            array = array.astype(np.int64)
        name = self._scope.get_unique_variable_name("constant")
        if array.dtype.kind in "OUS":
            kind, values = 8, [str(item).encode() for item in array.ravel()]
        else:
            kind, values = helper.np_dtype_to_tensor_dtype(array.dtype), array.ravel().tolist()
        self._container.add_initializer(name, kind, list(array.shape), values)
        return str(name)

    def add(
        self, operator: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any
    ) -> Any:
        """Add a node; returns the name of its output, or names."""
        names = [self._scope.get_unique_variable_name(operator.lower()) for _ in range(outputs)]
        version = _VERSIONS.get((domain, operator))
        self._container.add_node(
            operator,
            list(inputs),
            names,
            op_domain=domain,
            op_version=version,
            name=self._scope.get_unique_operator_name(operator),
            **attributes,
        )
        return names[0] if outputs == 1 else names

    def columns(self) -> list[tuple[str, int, bool]]:
        """Of each input: its name, how many columns it has, and whether they are text."""
        return [
            (
                str(variable.onnx_name),
                int(variable.type.shape[1]),
                isinstance(variable.type, data_types.StringTensorType),
            )
            for variable in self._operator.inputs
        ]

    def matrix(self) -> str:
        """All inputs as one matrix of `dtype`."""
        real = [self.cast(name, self.dtype) for name in self.inputs]
        return real[0] if len(real) == 1 else str(self.add("Concat", *real, axis=1))

    def cast(self, tensor: str, dtype: Any) -> str:
        """Convert the element type."""
        to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return str(self.add("Cast", tensor, to=to))

    def subtract(self, tensor: str, value: Any) -> str:
        """``tensor - value``."""
        return str(self.add("Sub", tensor, self.constant(np.asarray(value, dtype=np.float64))))

    def plus(self, tensor: str, value: Any) -> str:
        """``tensor + value``."""
        return str(self.add("Add", tensor, self.constant(np.asarray(value, dtype=np.float64))))

    def times(self, tensor: str, value: Any) -> str:
        """``tensor * value``."""
        return str(self.add("Mul", tensor, self.constant(np.asarray(value, dtype=np.float64))))

    def dot(self, tensor: str, value: Array) -> str:
        """``tensor @ value``."""
        return str(self.add("MatMul", tensor, self.constant(np.asarray(value, dtype=np.float64))))

    def squared_distances(self, matrix: str, points: Array) -> str:
        """Squared Euclidean distances of the rows to the `points`: one column each.

        By differences, not by the binomial formula, which loses half of the digits.
        """
        rows = self.add("Unsqueeze", matrix, self.constant([1]))
        difference = self.subtract(rows, points[np.newaxis])
        return self.row_sums(self.add("Mul", difference, difference), axis=2)

    def row_sums(self, matrix: str, axis: int = 1, keep: int = 0) -> str:
        """Sums along an axis."""
        return str(self.add("ReduceSum", matrix, self.constant([axis]), keepdims=keep))

    def per_row(self, value: Any, matrix: str) -> str:
        """The same values for every row of the matrix."""
        count = self.add("Shape", matrix, start=0, end=1)
        array = np.atleast_1d(value)
        shape = self.add("Concat", count, self.constant(list(array.shape)), axis=0)
        return str(self.add("Expand", self.constant(array), shape))

    def labels(self, scores: str, classes: Array) -> str:
        """The class with the largest score."""
        best = self.add("ArgMax", scores, axis=1, keepdims=0)
        return str(self.add("Gather", self.constant(classes), best, axis=0))

    def give(self, *tensors: str) -> None:
        """Let these be the operator's outputs; those that it does not have are left out."""
        for name, tensor in zip(self._operator.output_full_names, tensors, strict=False):
            self._container.add_node(
                "Identity", [tensor], [name], name=self._scope.get_unique_operator_name("Identity")
            )
