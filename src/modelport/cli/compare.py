"""Two models side by side on the same rows.

Metric with its interval, changed labels, latency (both timed in turns, one process each), size,
load time, memory, and the rows that differ most.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from modelport.api.side_by_side import compare
from modelport.cli.output import Progress, print_json, print_table
from modelport.cli.registry_flags import add_registry, registry_options

if TYPE_CHECKING:
    from modelport.optimize.versus import Versus

#: Changes of labels, and columns of rows, that people see; JSON has more.
_FLIPS: Final = 12
_COLUMNS: Final = 6

EXAMPLES = """\
examples:
  modelport compare churn@champion churn@candidate --data rows.csv --target left
  modelport compare cats optimized/cats --data photos/
  modelport compare ./a ./b --data rows.npz --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add_registry(parser)
    parser.add_argument("first", metavar="A", help="a package or registered model")
    parser.add_argument("second", metavar="B", help="another one that answers the same question")
    parser.add_argument("--data", required=True, metavar="FILE", help="rows that both are asked")
    parser.add_argument(
        "--target", metavar="COLUMN|FILE", default="", help="the right answers (default: A's)"
    )
    parser.add_argument("--metric", metavar="NAME", default="", help="as for modelport optimize")
    parser.add_argument("--threads", type=int, default=1, help="of each (default 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Compare, and print both."""
    with Progress() as progress:
        found = compare(
            options.first, options.second, options.data, target=options.target,
            metric=options.metric, threads=options.threads, registry=registry_options(options),
            report=progress,
        )  # fmt: skip
    if options.json:
        print_json(_plain(found))
        return 0
    _print(found, options.first, options.second)
    return 0


def _print(found: Versus, first: str, second: str) -> None:
    from modelport.optimize.report import HEADER, row_of

    rows = [row_of(item, found.first) for item in (found.first, found.second)]
    names = (f"A: {first}", f"B: {second}")
    shown = [(name, *row[1:]) for name, row in zip(names, rows, strict=True)]
    print_table(("MODEL", *HEADER[1:-1]), shown)
    print(f"\n{found.metric} on {found.rows} rows", end="")
    changed = 0 if found.flips is None else sum(flip.rows for flip in found.flips)
    print("" if found.flips is None else f"; {changed} labels differ")
    if found.only_first is not None:
        print(f"right in A only: {found.only_first} rows; in B only: {found.only_second}")
    if found.flips:
        print()
        changes = [(flip.first, flip.second, flip.rows) for flip in found.flips[:_FLIPS]]
        print_table(["A", "B", "ROWS"], changes)
    if found.differences:
        columns = list(found.differences[0].inputs)
        more = ["…"] if len(columns) > _COLUMNS else []
        print()
        print_table(
            ["ROW", "A", "B", "DIFFERENCE", *columns[:_COLUMNS], *more],
            [
                (d.name or d.row, d.first, d.second, f"{d.error:.4g}",
                 *list(d.inputs.values())[:_COLUMNS], *more)
                for d in found.differences
            ],
        )  # fmt: skip


def _plain(found: Versus) -> dict[str, object]:
    from modelport.optimize.report import measured_to_json

    return {
        "metric": found.metric,
        "rows": found.rows,
        "labels_differ": None if found.flips is None else sum(flip.rows for flip in found.flips),
        "right_in_A_only": found.only_first,
        "right_in_B_only": found.only_second,
        "A": measured_to_json(found.first),
        "B": measured_to_json(found.second),
        "flips": None if found.flips is None else [asdict(flip) for flip in found.flips],
        "differences": [asdict(item) for item in found.differences],
    }
