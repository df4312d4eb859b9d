"""TensorFlow operators that tf2onnx does not know, written in ONNX operators."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx
from tf2onnx import utils
from tf2onnx.custom_opsets.onnx_ml import LookupTableFind


def _erfc(graph: Any, node: Any, name: str, _arguments: Any) -> None:
    """``1 - erf(x)``: Keras' exact GELU is made of it."""
    source, result = node.input[0], node.output[0]
    dtype, shape = graph.get_dtype(result), graph.get_shape(result)
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", [source], shapes=[shape], dtypes=[dtype], op_name_scope=name)
    one = _constant(graph, name, np.ones((), utils.map_onnx_to_numpy_type(dtype)))
    graph.make_node(
        "Sub", [one, erf.output[0]], outputs=[result], name=name, shapes=[shape], dtypes=[dtype]
    )


def _bucketize(graph: Any, node: Any, name: str, _arguments: Any) -> None:
    """How many boundaries are at or below each element: Keras' Discretization."""
    source, result = node.input[0], node.output[0]
    shape = graph.get_shape(result)
    boundaries = np.asarray(node.get_attr("boundaries").floats, dtype=np.float32)
    graph.remove_node(node.name)
    float_type, int_type = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    number = graph.make_node("Cast", [source], attr={"to": float_type}, op_name_scope=name)
    last = _constant(graph, name, np.asarray([-1], dtype=np.int64))
    column = graph.make_node("Unsqueeze", [number.output[0], last], op_name_scope=name)
    limits = _constant(graph, name, boundaries)
    reached = graph.make_node("GreaterOrEqual", [column.output[0], limits], op_name_scope=name)
    ones = graph.make_node("Cast", reached.output, attr={"to": int_type}, op_name_scope=name)
    graph.make_node(
        "ReduceSum",
        [ones.output[0], last],
        attr={"keepdims": 0},
        outputs=[result],
        name=name,
        shapes=[shape],
        dtypes=[int_type],
    )


def _integer_lookup(
    tables: Mapping[Any, Any], graph: Any, node: Any, name: str, _arguments: Any
) -> None:
    """A vocabulary of integers: Keras' IntegerLookup. tf2onnx knows those of texts only."""
    integers = onnx.TensorProto.INT64
    result = node.output[0]
    if {graph.get_dtype(node.input[1]), graph.get_dtype(result)} != {integers}:
        LookupTableFind.version_8(graph, node, tables)
        return
    table = node.inputs[0]
    while table.type == "Identity":
        table = table.inputs[0]
    keys, values = tables[table.get_attr_value("shared_name")]
    default = node.inputs[2].get_tensor_value()
    source, shape = node.input[1], graph.get_shape(node.input[1])
    graph.remove_node(node.name)
    graph.make_node(
        "LabelEncoder",
        [source],
        domain="ai.onnx.ml",
        attr={
            "keys_int64s": [int(key) for key in keys],
            "values_int64s": [int(value) for value in values],
            "default_int64": int(default),
        },
        outputs=[result],
        name=name,
        shapes=[shape],
        dtypes=[integers],
    )


def _constant(graph: Any, scope: str, value: Any) -> str:
    made = graph.make_const(utils.make_name(f"{scope}/constant"), value)
    return str(made.output[0])


def operators(tables: Mapping[Any, Any]) -> dict[str, Any]:
    """Handlers by operator, as tf2onnx takes them.

    Parameters
    ----------
    tables : mapping
        Lookup tables: the name that operators share → keys and values.
    """
    return {
        "Erfc": (_erfc, []),
        "Bucketize": (_bucketize, []),
        "LookupTableFindV2": (partial(_integer_lookup, tables), []),
    }
