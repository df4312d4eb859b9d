"""What the tests of the scan share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modelport.core.source import Source


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that exists afterwards if code ran."""
    return tmp_path / "canary"


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., Source]:
    """Make a source of bytes."""

    def make(content: bytes, name: str = "model.pkl") -> Source:
        path = tmp_path / name
        path.write_bytes(content)
        return Source.of(path)

    return make
