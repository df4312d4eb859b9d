"""The graph as it is after every start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.optimize.passes.load import LoadPass
from tests.optimize.subjects import convolutions, images, kinds, run, subject, variants


def test_operators_are_fused_for_any_processor() -> None:
    network, rows = convolutions(), {"x": images()[0][1200:1300]}
    (variant,) = variants(LoadPass(), subject(network, rows)).values()
    found = kinds(variant.model)
    assert found["FusedConv"] >= 2
    assert not found["BatchNormalization"]
    assert not {"ReorderInput", "ReorderOutput"} & set(found)
    np.testing.assert_allclose(
        run(variant.model, rows)["scores"], run(network, rows)["scores"], atol=1e-4
    )


def test_what_a_start_does_not_change_is_left() -> None:
    rows = {"x": np.ones((40, 3), dtype=np.float32)}
    with pytest.raises(UnsupportedError, match="a start changes nothing in this graph"):
        variants(LoadPass(), subject(graph([helper.make_node("Relu", ["x"], ["y"])]), rows))


def test_what_would_be_larger_is_left() -> None:
    """Weights of 16 bits are widened at every start, and not before."""
    rows = {"x": np.ones((40, 3), dtype=np.float32)}
    narrow = numpy_helper.from_array(np.ones((3, 5000), dtype=np.float16), "narrow")
    model = graph(
        [
            helper.make_node("Cast", ["narrow"], ["wide"], to=onnx.TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "wide"], ["y"]),
        ],
        [narrow],
    )
    with pytest.raises(UnsupportedError, match=r"would take 0\.06 MB instead of 0\.03"):
        variants(LoadPass(), subject(model, rows))


def graph(nodes: list[onnx.NodeProto], constants: Sequence[onnx.TensorProto] = ()) -> bytes:
    kinds = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", width])
        for name, width in (("x", 3), ("y", None))
    ]
    made = helper.make_graph(nodes, "graph", kinds[:1], kinds[1:], constants)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()
