"""What the tests of deployments share."""

from __future__ import annotations

import numpy as np
import pytest

from modelport.core.package import Package
from modelport.deploy.service import Footprint
from tests.serve.onnx_models import dense
from tests.serve.packages import build_package


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A small package with golden records."""
    rows = {"x": np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)}
    return build_package(tmp_path_factory.mktemp("packages") / "churn", "churn", dense(), rows)


@pytest.fixture(scope="session")
def footprint() -> Footprint:
    """What its server was measured to need; fixed, so that plans are the same everywhere."""
    return Footprint(memory=90 << 20, latency=0.001, processor=0.0001, start=0.4, measured=True)
