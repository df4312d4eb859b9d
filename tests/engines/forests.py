"""Small ONNX files with trees, and the engine that answers them with XGBoost."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelport.adapters import find_adapter
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import EngineOptions, LoadedModel

FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
INF = float("inf")
#: Numbers that comparisons get wrong when they can.
HARD = [np.nan, INF, -INF, 0.0, -0.0, 1.0, np.nextafter(np.float32(1), np.float32(2)),
        np.nextafter(np.float32(1), np.float32(0)), 1e-45, -1e-45, 3.4028235e38, -3.4028235e38,
        0.1, 0.3, 2.5, -7.0]  # fmt: skip


def engine(name: str, content: bytes, threads: int = 1) -> LoadedModel:
    loaded: LoadedModel = (
        find_adapter("engine", name).load().load(content, EngineOptions(threads=threads))
    )
    return loaded


def with_rows(model: onnx.ModelProto | bytes, rows: Any = 1) -> bytes:
    """With the metadata that says from how many rows on XGBoost answers."""
    graph = onnx.load_from_string(model) if isinstance(model, bytes) else model
    del graph.metadata_props[:]
    if rows is not None:
        graph.metadata_props.add(key="modelport.bulk_rows", value=str(rows))
    content: bytes = graph.SerializeToString()
    return content


def both(model: onnx.ModelProto | bytes, rows: Array) -> tuple[Tensors, Tensors]:
    """What ONNX Runtime answers, and what XGBoost does."""
    content = with_rows(model)
    one, other = engine("onnxruntime", content), engine("forest", content)
    assert one.signature == other.signature
    name = one.signature.inputs[0].name
    expected, found = one.run({name: rows}), other.run({name: rows})
    for key, array in expected.items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape)
    return expected, found


def hard_rows(features: int, count: int = 500) -> Array:
    random = np.random.default_rng(0)
    return random.choice(np.array(HARD, dtype=np.float32), (count, features))


def graph(
    nodes: list[onnx.NodeProto],
    outputs: dict[str, int],
    *,
    ml: int = 3,
    kind: int = FLOAT,
    width: Any = 2,
    constants: tuple[onnx.TensorProto, ...] = (),
    batch: Any = "N",
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes, "trees", [helper.make_tensor_value_info("x", kind, [batch, width])],
        [helper.make_tensor_value_info(name, type_, [batch] if type_ in (INT64, TensorProto.STRING)
                                       else [batch, None]) for name, type_ in outputs.items()],
        list(constants),
    )  # fmt: skip
    return helper.make_model(
        made, ir_version=9,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", ml)],
    )  # fmt: skip


def stump(
    mode: str = "BRANCH_LEQ", value: float = 1.0, missing: int = 0, *, trees: int = 1
) -> dict[str, Any]:
    """Nodes of trees with one comparison each."""
    names = {
        "nodes_treeids": [t for t in range(trees) for _ in range(3)],
        "nodes_nodeids": [0, 1, 2] * trees,
        "nodes_featureids": [0, 0, 0] * trees,
        "nodes_modes": [mode, "LEAF", "LEAF"] * trees,
        "nodes_values": [value, 0.0, 0.0] * trees,
        "nodes_truenodeids": [1, 0, 0] * trees,
        "nodes_falsenodeids": [2, 0, 0] * trees,
    }
    if missing:
        names["nodes_missing_value_tracks_true"] = [missing, 0, 0] * trees
    return names


def regressor(given: str = "x", out: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A stump that says 10 where its comparison is true, and 20 where not."""
    votes = {
        "n_targets": 1, "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0],
        "target_weights": [10.0, 20.0],
    }  # fmt: skip
    return helper.make_node(
        "TreeEnsembleRegressor", [given], [out], domain="ai.onnx.ml",
        **{**stump(), **votes, **attributes},
    )  # fmt: skip


def classifier(weights: list[float], **attributes: Any) -> onnx.NodeProto:
    """A stump that votes for the classes 0, 1 …: its left leaf by `weights`, its right against."""
    count = len(weights)
    votes = {
        "class_treeids": [0] * 2 * count,
        "class_nodeids": [1] * count + [2] * count,
        "class_ids": list(range(count)) * 2,
        "class_weights": [*weights, *(weights[::-1] if count > 1 else [-weights[0]])],
        "classlabels_int64s": list(range(7, 7 + max(count, 2))),
        "post_transform": "NONE",
    }
    return helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
        **{**stump(), **votes, **attributes},
    )  # fmt: skip


def ensemble_5(kind: Any, given: str = "x", **attributes: Any) -> onnx.NodeProto:
    """Two trees of version 5, of which the second is a leaf that both branches lead to."""

    def tensor(values: list[float], dtype: Any) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, dtype=dtype))

    return helper.make_node(
        "TreeEnsemble", [given], ["y"], domain="ai.onnx.ml",
        **{
            "n_targets": 2, "aggregate_function": 1, "post_transform": 0, "tree_roots": [0, 2],
            "nodes_modes": tensor([0, 3, 0], np.uint8), "nodes_featureids": [0, 1, 0],
            "nodes_splits": tensor([0.1, 0.3, 0.0], kind),
            "nodes_truenodeids": [1, 0, 3], "nodes_trueleafs": [0, 1, 1],
            "nodes_falsenodeids": [2, 1, 3], "nodes_falseleafs": [1, 1, 1],
            "leaf_targetids": [0, 0, 0, 1], "leaf_weights": tensor([1.5, 2.25, 4.125, 8.0], kind),
            **attributes,
        },
    )  # fmt: skip
