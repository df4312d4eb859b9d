"""The graph as it is after every start."""

from __future__ import annotations

import numpy as np

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
    (again,) = variants(LoadPass(), subject(variant.model, rows)).values()
    assert sum(kinds(again.model).values()) <= sum(found.values())
