"""Servers for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from .running import RunningServer

#: Start a server on models, with flags; it is ready when this returns.
Serve = Callable[..., RunningServer]


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the tests of one module share."""
    return tmp_path_factory.mktemp("module")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers that end with the test."""
    with ExitStack() as stack:

        def start(models: Sequence[str | Path], flags: Sequence[str | Path] = ()) -> RunningServer:
            home = tmp_path / f"server-{len(list(tmp_path.glob('server-*')))}"
            return stack.enter_context(RunningServer(home, models, flags))

        yield start


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Serve]:
    """As `serve`, without waiting for readiness: for servers that never become ready."""
    with ExitStack() as stack:

        def start(models: Sequence[str | Path], flags: Sequence[str | Path] = ()) -> RunningServer:
            home = tmp_path / f"server-{len(list(tmp_path.glob('server-*')))}"
            server = RunningServer(home, models, flags).start()
            stack.callback(server.close)
            return server

        yield start
