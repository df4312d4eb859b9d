"""The order of calls, what is taken back, and what is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modelport.core.errors import (
    InputError,
    LimitError,
    ParityError,
    PlatformError,
)
from modelport.core.package import Package
from modelport.deploy import stage
from modelport.deploy.base import Call, Plan, PlannedFile, Result
from modelport.deploy.limits import Check, Limit, refuse_exceeded
from modelport.deploy.service import Footprint, Service

from .platform import Memory


def call(name: str, operation: str = "create", **more: Any) -> Call:
    parameters = {"name": name, **more.pop("parameters", {})}
    return Call(f"{operation}-{name}", "things", operation, parameters, f"{operation} it", **more)


def undoable(name: str, **more: Any) -> Call:
    return call(name, undo=call(name, "delete"), **more)


@pytest.fixture
def plan(package: Package, footprint: Footprint) -> Plan:
    """A role, a server that knows the role, and traffic that was at another one."""
    restore = call("traffic", "update", parameters={"to": Result("read-traffic", "thing.to")})
    shift = call("traffic", "update", parameters={"to": "new"}, undo=restore)
    return Plan(
        "memory",
        Service("churn", package, None, footprint),
        applier="memory",
        calls=(
            undoable("role", otherwise=call("role", "read")),
            undoable(
                "server",
                phase="serve",
                parameters={"role": Result("create-role", "id")},
                wait={"state": "ready"},
            ),
            call("traffic", "read", phase="serve"),
            undoable("traffic", phase="shift", parameters={"to": "new"}, otherwise=shift),
            undoable("alarm", phase="shift"),
        ),
        endpoint=Result("create-server", "thing.role"),
    )


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    memory.things["traffic"] = {"name": "traffic", "to": "old"}
    monkeypatch.setattr(stage, "_connect", lambda plan: memory)
    return memory


def no_report(line: str) -> None:
    """Nobody listens."""


def accept(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    """Every endpoint is right."""


def test_the_endpoint_is_verified_before_it_gets_traffic(plan: Plan, memory: Memory) -> None:
    seen: list[tuple[str, list[str]]] = []
    url = stage.apply(
        plan, lambda _, url, headers: seen.append((url, list(memory.made))), no_report
    )
    assert url == "id-of-role"
    assert seen == [("id-of-role", ["create-role", "create-server", "read-traffic"])]
    assert memory.things["traffic"]["to"] == "new"


def test_what_exists_is_read_and_its_answer_counts(plan: Plan, memory: Memory) -> None:
    memory.things["role"] = {"name": "role"}
    assert stage.apply(plan, accept, no_report) == "id-of-role"


def test_what_never_becomes_ready_is_taken_back(plan: Plan, memory: Memory) -> None:
    memory.never = "create-server"
    with pytest.raises(PlatformError, match="did not pass the health check"):
        stage.apply(plan, accept, no_report)
    assert set(memory.things) == {"traffic"}


@pytest.mark.parametrize("failing", ["create-server", "create-alarm"])
def test_a_failure_leaves_what_was_there(plan: Plan, memory: Memory, failing: str) -> None:
    memory.fails = failing
    memory.things["role"] = {"name": "role"}
    with pytest.raises(PlatformError, match="quota exceeded"):
        stage.apply(plan, accept, no_report)
    assert set(memory.things) == {"role", "traffic"}
    assert memory.things["traffic"]["to"] == "old"


def test_other_answers_never_get_traffic(plan: Plan, memory: Memory) -> None:
    def refuse(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        raise ParityError("other answers")

    with pytest.raises(ParityError):
        stage.apply(plan, refuse, no_report)
    assert memory.things == {"traffic": {"name": "traffic", "to": "old"}}


def test_what_cannot_be_taken_back_is_said_and_the_first_failure_is_raised(
    plan: Plan, memory: Memory
) -> None:
    memory.fails = "create-alarm"
    lines: list[str] = []
    original = memory.call

    def call(call: Call, parameters: Any) -> Any:
        if call.id == "delete-server":
            raise PlatformError("it is still in use")
        return original(call, parameters)

    memory.call = call  # type: ignore[method-assign]
    with pytest.raises(PlatformError, match="quota exceeded"):
        stage.apply(plan, accept, lines.append)
    assert any("still in use" in line for line in lines)
    assert "role" not in memory.things


def test_destroy_takes_everything_away_and_passes_over_what_is_gone(
    plan: Plan, memory: Memory
) -> None:
    stage.apply(plan, accept, no_report)
    del memory.things["alarm"]
    stage.destroy(plan, no_report)
    assert memory.things == {}


def test_a_result_that_nobody_answered_is_an_error(plan: Plan, memory: Memory) -> None:
    wrong = Plan("memory", plan.service, applier="memory", calls=plan.calls[1:])
    with pytest.raises(PlatformError, match="lacks id"):
        stage.apply(wrong, accept, no_report)


def test_files_are_written_whole_and_executables_can_run(plan: Plan, tmp_path: Path) -> None:
    files = (
        PlannedFile("a/b.yaml", "x: 1\n", "a file"),
        PlannedFile("run.sh", "true\n", "a program", executable=True),
    )
    stage.write(Plan("memory", plan.service, files=files), tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b.yaml", "run.sh"]
    assert (tmp_path / "run.sh").stat().st_mode & 0o111
    assert (tmp_path / "a/b.yaml").read_text() == "x: 1\n"


def test_a_file_in_the_way_is_an_error_and_nothing_is_left(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "run.sh").mkdir()
    files = (PlannedFile("run.sh", "true\n", "a program"),)
    with pytest.raises(InputError, match="cannot write"):
        stage.write(Plan("memory", plan.service, files=files), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.sh"]


def test_without_an_applier_the_commands_are_named(plan: Plan) -> None:
    with pytest.raises(InputError, match="cannot make the calls"):
        stage.apply(Plan("memory", plan.service), accept, no_report)


def test_all_exceeded_limits_are_told_at_once() -> None:
    rows = [
        Limit(f"x.{n}", "x", n, n, "bytes", f"https://{n}", f"less {n}", most=1024)
        for n in ("image", "request", "memory")
    ]
    checks = [Check(row, value) for row, value in zip(rows, (2048, 1024, 4096), strict=True)]
    with pytest.raises(LimitError) as caught:
        refuse_exceeded(checks)
    text = str(caught.value)
    assert "image: 2 KiB of at most 1 KiB (https://image)" in text
    assert "memory: 4 KiB" in text
    assert "request" not in text
    assert caught.value.hint == "less image; less memory"
