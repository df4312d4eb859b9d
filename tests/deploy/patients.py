"""Endpoints for the doctor, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelport.core.package import Package
from modelport.deploy.diagnosis import (
    Finding,
    diagnose_endpoint,
)
from tests.serve.running import RunningServer

from .front import forward, front

KEY = "correct-horse-battery-staple"


def quiet(line: str) -> None:
    """Nobody listens."""


def at(server: RunningServer, path: str = "", scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.port}{path}"


def only(url: str, package: Package | None = None) -> Finding:
    """The one finding."""
    found = diagnose_endpoint(url, package, quiet)
    assert len(found) == 1, found
    assert found[0].symptom
    assert found[0].cause
    assert found[0].remedy
    return found[0]


def through(server: RunningServer, changes: Mapping[str, Any]) -> Any:
    """A front before a server that answers some paths by itself."""

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        answer = changes.get(path)
        if callable(answer):
            answer = answer()
        return answer or forward(server.port, path, method, headers, body)

    return front(reply)
