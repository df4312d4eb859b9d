"""A platform in memory: an applier that keeps what was created, and fails where it is told to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelport.core.errors import ConflictError, NotFoundError, PlatformError
from modelport.deploy.base import Call, Progress


class Memory:
    """Things by name; ``create``, ``update``, ``read`` and ``delete`` of them.

    Parameters
    ----------
    fails : str
        The `Call.id` that the platform refuses.
    never : str
        The `Call.id` of what never becomes ready.
    """

    name = "memory"

    def __init__(self, fails: str = "", never: str = "") -> None:
        self.things: dict[str, Any] = {}
        self.made: list[str] = []
        self.fails = fails
        self.never = never

    def connect(self, connection: Mapping[str, str]) -> Memory:
        return self

    def call(self, call: Call, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        self.made.append(call.id)
        if call.id == self.fails:
            raise PlatformError(f"quota exceeded for {call.id}")
        name = parameters["name"]
        if call.operation == "create" and name in self.things:
            raise ConflictError(f"{name} exists")
        if call.operation in ("update", "read", "delete") and name not in self.things:
            raise NotFoundError("thing", name, list(self.things))
        if call.operation == "delete":
            del self.things[name]
            return {}
        if call.operation != "read":
            self.things[name] = dict(parameters)
        return {"thing": self.things[name], "id": f"id-of-{name}"}

    def wait(
        self, call: Call, parameters: Mapping[str, Any], answer: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        report(f"waiting for {call.id}")
        if call.id == self.never:
            raise PlatformError(f"{call.id} did not pass the health check")
        return {"state": "ready"}

    def headers(self) -> Mapping[str, str]:
        return {"authorization": "Bearer for-minutes"}
