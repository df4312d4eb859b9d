"""The ONNX graph of boosted trees: constants, nodes, and what is done with the trees' sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelport.convert.base import Export
from modelport.convert.graphs import edits as graphs
from modelport.core.signature import Signature

_OPSET: Final = 18
#: ``ai.onnx.ml`` 5 has ``TreeEnsemble``, and no longer the operators of version 3. ONNX Runtime
#: runs it from version 1.21 on.
_ML_OPSET: Final = 5
_OLDER_ML_OPSET: Final = 3


class GraphBuilder:
    """Nodes and constants, named as they come."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, value: Any) -> str:
        """A constant tensor; returns its name."""
        name = f"constant{len(self._constants)}"
        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        name = f"tensor{len(self._nodes)}"
        node = helper.make_node(operator, list(inputs), [name], domain=domain, **attributes)
        self._nodes.append(node)
        return name

    def cast(self, tensor: str, dtype: str) -> str:
        """Convert the element type."""
        return self.add("Cast", tensor, to=graphs.ELEMENT_TYPES[dtype])

    def finish(self, signature: Signature, outputs: Mapping[str, str], exporter: str) -> Export:
        """The whole model.

        Parameters
        ----------
        outputs : mapping of str to str
            Output name → tensor, of the element type and shape that the signature says.
        """
        for name, tensor in outputs.items():
            self._nodes.append(helper.make_node("Identity", [tensor], [name]))
        graph = helper.make_graph(
            self._nodes,
            "model",
            [_declare(spec) for spec in signature.inputs],
            [_declare(spec) for spec in signature.outputs],
            list(self._constants.values()),
        )
        graphs.prune(graph)
        older = any(node.op_type == "TreeEnsembleRegressor" for node in graph.node)
        opset = {"": _OPSET, "ai.onnx.ml": _OLDER_ML_OPSET if older else _ML_OPSET}
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(d, v) for d, v in opset.items()],
            ir_version=9,
            producer_name="modelport",
        )
        data = graphs.serialise(model, opset)
        return Export(data, signature, exporter, graphs.opset_of(model))


def _declare(spec: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        spec.name, graphs.ELEMENT_TYPES[spec.dtype], list(spec.shape)
    )


def add_link(builder: GraphBuilder, link: str, sums: str, dtype: str) -> str:
    """Turn the sums into answers, as the objective that the trees were grown for says.

    Parameters
    ----------
    link : str
        ``identity``, ``logistic``, ``softmax``, ``exp``, ``sign`` (1 above 0, else 0),
        ``log1p_exp``, ``signed_square``.
    """
    real = np.dtype(dtype)
    if link == "identity":
        return sums
    if link == "logistic":
        # ONNX Runtime's in float32 is exact to 1e-7 only: too little for rare classes.
        return builder.cast(builder.add("Sigmoid", builder.cast(sums, "float64")), dtype)
    if link == "softmax":
        return builder.add("Softmax", sums, axis=1)
    if link == "exp":
        return builder.add("Exp", sums)
    if link == "sign":
        positive = builder.add("Greater", sums, builder.constant(real.type(0)))
        return builder.cast(positive, dtype)
    if link == "log1p_exp":
        grown = builder.add("Add", builder.add("Exp", sums), builder.constant(real.type(1)))
        return builder.add("Log", grown)
    if link == "signed_square":
        return builder.add("Mul", sums, builder.add("Abs", sums))
    raise ValueError(f"no such link: {link}")
