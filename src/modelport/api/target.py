"""The right answers among people's rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from modelport.api.rows import to_rows
from modelport.core.errors import InputError
from modelport.core.package import Package
from modelport.core.rows import Rows
from modelport.core.tensors import Array

_WHERE = "--target"


def split_target(rows: Rows, target: str, package: Package) -> tuple[Rows, Array | None]:
    """The rows without the right answers, and these.

    A column that the model takes as an input, too, stays among the rows.

    Parameters
    ----------
    rows : Rows
    target : str
        A column, or a file with one answer per row; empty: there are none.
    package : Package
        That is asked about the rows.

    Raises
    ------
    InputError
        When `target` is neither a column nor a file with an answer for each row.
    """
    if not target:
        return rows, None
    if target in rows.columns:
        rest, answers = _without(rows, target, package), rows.columns[target]
    else:
        rest, answers = rows, _of_file(target, list(rows.columns))
    found = len(answers) if answers.ndim else 0
    if found != len(rest):
        raise InputError(f"{target} holds {found} answers to {len(rest)} rows", where=_WHERE)
    return rest, answers


def _without(rows: Rows, target: str, package: Package) -> Rows:
    inputs = package.manifest.signature.inputs
    if any(target == spec.name or target in spec.columns for spec in inputs):
        return rows
    others = {name: array for name, array in rows.columns.items() if name != target}
    if not others:
        raise InputError(f"the data holds nothing but {target!r}", where=_WHERE)
    return replace(rows, columns=others)


def _of_file(target: str, there: list[str]) -> Array:
    if not Path(target).is_file():
        raise InputError(
            f"no column and no file {target!r}; the data has {', '.join(there[:20])}", where=_WHERE
        )
    columns = to_rows(target).columns
    if len(columns) > 1:
        raise InputError(
            f"{target} holds {len(columns)} columns: {', '.join(list(columns)[:20])}",
            where=_WHERE,
            hint="a file with one answer per row",
        )
    return next(iter(columns.values()))
