"""Two models side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.api.optimize import checked_threads
from modelport.api.rows import to_rows
from modelport.api.run import resolve_models
from modelport.api.target import split_target
from modelport.core.errors import InputError
from modelport.core.options import RegistryOptions
from modelport.core.package import open_package
from modelport.core.settings import resolve

if TYPE_CHECKING:
    from modelport.optimize.versus import Versus

Progress = Callable[[str], None]


def _quiet(line: str) -> None:
    """Report nothing."""


def compare(
    first: str,
    second: str,
    data: Any,
    *,
    target: str = "",
    metric: str = "",
    threads: int = 1,
    registry: RegistryOptions | None = None,
    report: Progress = _quiet,
) -> Versus:
    """Compare two models on the same rows: metric, flips, latency, size, where they differ.

    Parameters
    ----------
    first, second : str
        Package folders, or ``name``, ``name@alias``, ``name@3`` of the registry.
    data : str, Path, ndarray, DataFrame, mapping of str to ndarray, or list
        As for `optimize`.
    target, metric, threads
        See `modelport.core.options.OptimizeOptions`.
    registry : RegistryOptions, optional
    report : callable, optional

    Returns
    -------
    Versus

    Raises
    ------
    InputError
        When their answers cannot be compared, or the metric does not fit.
    """
    from modelport.optimize.versus import Side
    from modelport.optimize.versus import compare as compare_sides

    given = to_rows(data)
    sides = []
    for model in (first, second):
        spec = resolve_models([model], registry or resolve(RegistryOptions))[0]
        package = open_package(Path(spec.path))
        rows, answers = split_target(given, target, package)
        try:
            bound = rows.bind(package.manifest.signature.of_any_rows())
        except InputError as error:
            raise InputError(
                f"{model}: {error.message}",
                where=error.where or "--data",
                hint=error.hint or "both are asked the same rows",
            ) from error
        sides.append(Side(package, bound, rows.names))
    return compare_sides(sides[0], sides[1], answers, metric, checked_threads(threads), report)
