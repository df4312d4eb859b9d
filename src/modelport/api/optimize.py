"""From a package to a smaller and faster one, or to the proof that there is none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelport.api.own_student import own_student
from modelport.api.rows import to_rows
from modelport.api.run import resolve_models
from modelport.api.target import split_target
from modelport.core.errors import InputError
from modelport.core.options import OptimizeOptions, RegistryOptions
from modelport.core.package import Package, check_place, open_package, write_durably
from modelport.core.settings import resolve

if TYPE_CHECKING:
    from modelport.optimize.outcome import Outcome

Progress = Callable[[str], None]

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Optimization:
    """What `optimize` found.

    Parameters
    ----------
    outcome : Outcome
        All variants with what was measured of them.
    package : Package or None
        The better one; None: nothing wins.
    report : mapping
        The same as plain data.
    """

    outcome: Outcome
    package: Package | None
    report: Mapping[str, Any]


def _quiet(line: str) -> None:
    """Report nothing."""


def optimize(
    model: str,
    data: Any,
    *,
    out: str | Path = "optimized",
    student: Any = None,
    options: OptimizeOptions | None = None,
    registry: RegistryOptions | None = None,
    report: Progress = _quiet,
) -> Optimization:
    """Make variants of a model, measure them beside it, and write the best one, if one wins.

    A third of the rows calibrates and trains, a third chooses, and a third, which nothing else
    sees, has to confirm the choice.

    Parameters
    ----------
    model : str
        A package folder, or ``name``, ``name@alias``, ``name@3`` of the registry.
    data : str, Path, ndarray, DataFrame, mapping of str to ndarray, or list
        Rows like those that the model will see, as for `pack`; a few hundred at least.
    out : str or Path
        The package is written to ``out/NAME``, the pictures beside it.
    student : callable or object, optional
        An untrained ``torch.nn.Module`` or ``keras.Model`` that is taught the model's answers:
        a function without arguments that returns it, or the network itself, which is then
        changed. In place of ``options.student``.
    options : OptimizeOptions, optional
    registry : RegistryOptions, optional
    report : callable, optional
        Told what happens, a line at a time.

    Returns
    -------
    Optimization

    Raises
    ------
    InputError
        When the rows are too few, the target or the metric do not fit, or the student is none.
    UnsupportedError
        When the package does not run on ONNX Runtime.
    """
    from modelport.optimize.report import to_json
    from modelport.optimize.stage import Request
    from modelport.optimize.stage import optimize as optimize_package
    from modelport.package.stage import build_package

    options = options or resolve(OptimizeOptions)
    spec = resolve_models([model], registry or resolve(RegistryOptions))[0]
    package = open_package(Path(spec.path))
    check_place(Path(out) / package.manifest.name, replace=options.replace)
    rows, target = split_target(to_rows(data), options.target, package)
    if student is None:
        student = options.student or None
    given = None if student is None else own_student(student)
    request = Request(
        rows=rows.bind(package.manifest.signature.of_any_rows()),
        target=target,
        metric=options.metric,
        max_drop=options.max_drop,
        passes=_passes(options.passes, given is not None),
        seconds=_seconds(options.budget),
        threads=checked_threads(options.threads),
        cache=Path(options.cache).expanduser() / "optimize",
        student=given,
    )
    outcome = optimize_package(package, request, report)
    document = to_json(outcome, options.max_drop)
    built = None
    if outcome.artifact is not None:
        built = build_package(
            outcome.artifact, package.manifest.name, Path(out), replace=options.replace
        )
    _draw(document, Path(out), report)
    return Optimization(outcome, built, document)


def _passes(text: str, student: bool) -> tuple[str, ...]:
    """Names between commas or blanks; who gives a student wants it taught, too."""
    from modelport.optimize.base import OWN_STUDENT

    names = text.replace(",", " ").split()
    chosen = any(not name.startswith("-") for name in names)
    if student and chosen and f"-{OWN_STUDENT}" not in names:
        names.append(OWN_STUDENT)
    return tuple(names)


def _draw(document: Mapping[str, Any], folder: Path, report: Progress) -> None:
    """The report and its pictures, also of a run in which nothing wins."""
    from modelport.adapters import find_adapter

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False)
    _replace(folder / "frontier.json", f"{text}\n".encode())
    adapter = find_adapter("plot", "frontier")
    if adapter.missing():
        report("no pictures: pip install 'modelport[optimize]'")
        return
    plot = adapter.load()
    for kind in ("svg", "png"):
        _replace(folder / f"frontier.{kind}", plot.draw(document, kind))


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    staged = path.with_name(f".{path.name}.new")
    write_durably(staged, content)
    staged.replace(path)


def checked_threads(threads: int) -> int:
    """A number of threads.

    Raises
    ------
    InputError
        When it is none.
    """
    if threads < 1:
        raise InputError(f"not a number of threads: {threads}", where="--threads", hint="1 or more")
    return threads


def _seconds(text: str) -> float:
    if not text.strip():
        return float("inf")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None:
        raise InputError(f"not a time: {text!r}", where="--budget", hint="90s, 5m, 1h")
    return float(match[1]) * _SECONDS[match[2] or "s"]
