"""Deploy a package: plan it, write it, apply it, take it back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from modelport.adapters import find_adapter
from modelport.core.errors import (
    ConflictError,
    InputError,
    ModelportError,
    NotFoundError,
    PlatformError,
)
from modelport.core.package import Package
from modelport.deploy.base import (
    Applier,
    Call,
    Connection,
    Plan,
    Progress,
    Result,
    Target,
    has_results,
)
from modelport.deploy.limits import refuse_exceeded
from modelport.deploy.service import Footprint, Service
from modelport.deploy.settings import read_settings, service_name

#: In this order; between ``serve`` and ``shift`` the new server is verified.
_PHASES: Final = ("prepare", "serve", "shift")

#: Proves that the endpoint gives the package's answers, or raises.
Verify = Callable[[Plan, str, Mapping[str, str]], None]


def plan(
    package: Package,
    target: str,
    pairs: Sequence[str],
    *,
    footprint: Footprint,
    version: int | None = None,
) -> Plan:
    """What it takes to run a package on a target.

    Raises
    ------
    NotFoundError
        When there is no such target or setting.
    InputError
        When a setting is missing or cannot be used.
    LimitError
        When the platform cannot take it, with the number and the remedy.
    """
    adapter: Target = find_adapter("target", target).load()
    settings = read_settings(adapter.settings, pairs)
    name = service_name(settings.name or package.manifest.name)
    planned = adapter.plan(Service(name, package, version, footprint), settings)
    refuse_exceeded(planned.checks)
    return planned


def write(plan: Plan, folder: Path) -> list[Path]:
    """Write a plan's files below a folder, each beside its place first.

    Raises
    ------
    InputError
        When a file cannot be written.
    """
    written = []
    for file in plan.files:
        path = folder / file.path
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(file.content, encoding="utf-8")
            beside.chmod(0o755 if file.executable else 0o644)
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        written.append(path)
    return written


def apply(plan: Plan, verify: Verify, report: Progress) -> str:
    """Make a plan's calls, verify the endpoint, then shift the traffic.

    Whatever fails: what was created is taken back, in reverse order.

    Parameters
    ----------
    plan : Plan
    verify : callable
        Called before the traffic is shifted, with the plan, the new server's URL, and the
        headers that requests to it have to show.
    report : callable

    Returns
    -------
    str
        The URL of the endpoint; empty where there is none.

    Raises
    ------
    InputError
        When nobody can make this plan's calls.
    PlatformError
        What the platform said.
    ParityError
        When the endpoint gives other answers.
    """
    connection = _connect(plan)
    answers: dict[str, Mapping[str, Any]] = {}
    done: list[Call] = []
    try:
        for phase in _PHASES:
            if phase == "shift":
                url = str(_filled(plan.verify_at or plan.endpoint, answers))
                verify(plan, url, connection.headers())
            for call in (c for c in plan.calls if c.phase == phase):
                report(call.purpose)
                answers[call.id] = _make(connection, call, answers, report, done)
    except BaseException as error:  # also a defect of ours, and Ctrl-C
        report(f"failed ({error or type(error).__name__}); taking back what was created")
        _take_back(connection, done[::-1], answers, report)
        raise
    return str(_filled(plan.endpoint, answers))


def status(plan: Plan) -> Mapping[str, Any]:
    """How a deployment is, in the platform's own words.

    Raises
    ------
    NotFoundError
        When it does not exist.
    """
    if plan.status is None:
        raise InputError(f"{plan.target} has no status that modelport could ask for")
    return _connect(plan).call(plan.status, plan.status.parameters)


def destroy(plan: Plan, report: Progress) -> None:
    """Take away all that a plan creates; what is not there is passed over.

    Raises
    ------
    PlatformError
        What the platform said, after everything else has been tried.
    """
    failed = _take_back(_connect(plan), removal(plan), {}, report)
    if failed:
        raise failed[0]


def removal(plan: Plan) -> list[Call]:
    """The calls that `destroy` undoes, in that order: what can be named without answers."""
    return [
        call for call in reversed(plan.calls) if call.undo and not has_results(call.undo.parameters)
    ]


def _connect(plan: Plan) -> Connection:
    if not plan.applier:
        raise InputError(
            f"modelport cannot make the calls for {plan.target}",
            hint="write the files with --out DIR and run the commands of --plan",
        )
    applier: Applier = find_adapter("applier", plan.applier).load()
    return applier.connect(plan.connection)


def _make(
    connection: Connection,
    call: Call,
    answers: Mapping[str, Any],
    report: Progress,
    done: list[Call],
) -> Mapping[str, Any]:
    """The answer of a call; `done` grows by what was made: itself, or what is done otherwise."""
    parameters = _filled(call.parameters, answers)
    try:
        answer = connection.call(call, parameters)
        done.append(call)  # before the wait: what never becomes ready has to go, too
        if call.wait:
            answer = {**answer, **connection.wait(call, parameters, answer, report)}
    except ConflictError:
        # Some platforms say it only when the operation that they began has ended.
        if done and done[-1] is call:
            done.pop()
        if call.otherwise is None:
            return {}
        return _make(connection, call.otherwise, answers, report, done)
    return answer


def _take_back(
    connection: Connection, calls: list[Call], answers: Mapping[str, Any], report: Progress
) -> list[ModelportError]:
    """Undo calls in this order; what could not be undone."""
    failed: list[ModelportError] = []
    for call in calls:
        if call.undo is None:
            continue
        try:
            report(call.undo.purpose)
            _make(connection, call.undo, answers, report, [])
        except NotFoundError:
            continue
        except ModelportError as error:
            report(f"could not be taken back: {call.id}: {error}")
            failed.append(error)
    return failed


def _filled(value: Any, answers: Mapping[str, Any]) -> Any:
    """`value` with every `Result` replaced by what the call answered."""
    if isinstance(value, Result):
        found: Any = answers.get(value.call, {})
        for key in value.path.split("."):
            if not isinstance(found, Mapping) or key not in found:
                raise PlatformError(f"the platform's answer lacks {value.path}", where=value.call)
            found = found[key]
        return found
    if isinstance(value, Mapping):
        return {key: _filled(item, answers) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, answers) for item in value]
    return value
