"""From a package to a smaller and faster one, or to the proof that there is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelport.api.rows import to_rows
from modelport.api.run import resolve_models
from modelport.core.errors import InputError
from modelport.core.options import OptimizeOptions, RegistryOptions
from modelport.core.package import Package, open_package, write_durably
from modelport.core.rows import Rows
from modelport.core.settings import resolve
from modelport.core.tensors import Array

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
        When the rows are too few, or the target or the metric do not fit.
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
    rows, target = split_target(to_rows(data), options.target)
    request = Request(
        rows=rows.bind(package.manifest.signature),
        target=target,
        metric=options.metric,
        max_drop=options.max_drop,
        passes=tuple(options.passes.replace(",", " ").split()),
        seconds=_seconds(options.budget),
        threads=options.threads,
        cache=Path(options.cache).expanduser() / "optimize",
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


def _draw(document: Mapping[str, Any], folder: Path, report: Progress) -> None:
    from modelport.adapters import find_adapter

    adapter = find_adapter("plot", "frontier")
    if adapter.missing():
        report("no pictures: pip install 'modelport[optimize]'")
        return
    plot = adapter.load()
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("svg", "png"):
        path = folder / f"frontier.{kind}"
        staged = path.with_name(f".{path.name}.new")
        write_durably(staged, plot.draw(document, kind))
        staged.replace(path)


def split_target(rows: Rows, target: str) -> tuple[Rows, Array | None]:
    """The rows without the right answers, and these.

    Raises
    ------
    InputError
        When `target` is neither a column nor a file with an answer for each row.
    """
    if not target:
        return rows, None
    if target in rows.columns:
        others = {name: array for name, array in rows.columns.items() if name != target}
        return replace(rows, columns=others), rows.columns[target]
    if not Path(target).is_file():
        named = ", ".join(list(rows.columns)[:20])
        raise InputError(
            f"no column and no file {target!r}; the data has {named}", where="--target"
        )
    answers = next(iter(to_rows(target).columns.values()))
    if len(answers) != len(rows):
        raise InputError(
            f"{target} holds {len(answers)} answers to {len(rows)} rows", where="--target"
        )
    return rows, answers


def _seconds(text: str) -> float:
    if not text:
        return float("inf")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None:
        raise InputError(f"not a time: {text!r}", where="--budget", hint="90s, 5m, 1h")
    return float(match[1]) * _SECONDS[match[2] or "s"]
