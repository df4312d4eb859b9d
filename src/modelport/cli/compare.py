"""Two models side by side on the same rows.

Metric with its interval, changed labels, latency (both timed in turns, one process each), size,
load time, memory, and the rows that differ most.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from modelport.api.side_by_side import compare
from modelport.cli.output import Progress, print_json, print_table
from modelport.cli.registry_flags import add_registry, registry_options

if TYPE_CHECKING:
    from modelport.optimize.versus import Versus

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
    header = ("MODEL", *HEADER[1:-1])
    print_table(header, [(name, *row[1:]) for name, row in zip((first, second), rows, strict=True)])
    print(f"\n{found.metric} on {found.rows} rows", end="")
    print("" if found.flips is None else f"; {found.flips} labels differ")
    if found.differences:
        print()
        print_table(
            ["ROW", "A", "B", "DIFFERENCE"],
            [(d.row, d.first, d.second, f"{d.error:.4g}") for d in found.differences],
        )


def _plain(found: Versus) -> dict[str, object]:
    from modelport.optimize.report import measured_to_json

    return {
        "metric": found.metric,
        "rows": found.rows,
        "flips": found.flips,
        "A": measured_to_json(found.first),
        "B": measured_to_json(found.second),
        "differences": [asdict(item) for item in found.differences],
    }
