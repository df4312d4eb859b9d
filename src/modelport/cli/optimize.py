"""Make a package smaller and faster, without making it worse.

Variants are made, and measured beside the original on your rows: metric, latency, size, load time
and memory. A third of the rows chooses one, another third, which nothing else sees, has to
confirm it. When nothing wins, nothing is written, and the exit code is 0 all the same.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from modelport.adapters import adapters_of
from modelport.api.optimize import optimize
from modelport.cli.output import Progress, print_json, print_table
from modelport.cli.registry_flags import add_registry, registry_options
from modelport.core.options import OptimizeOptions
from modelport.core.settings import resolve

if TYPE_CHECKING:
    from modelport.optimize.outcome import Outcome

_EXAMPLES = """\
examples:
  modelport optimize churn --data rows.csv --target left --max-drop 0.005
  modelport optimize cats@champion --data photos/ --out optimized
  modelport optimize ./mails --data mails.csv --passes vocabulary,load --budget 5m
  modelport optimize ./mails --data mails.csv --passes -student,-prune
  modelport optimize ./houses --data houses.csv --target price --metric my_metrics:gain --json
  modelport optimize digits --data rows.npz --student my_models:small_net
"""

_WIDTH: Final = 98


def _passes() -> str:
    """What the passes do, for the help; none of them is imported."""
    adapters = list(adapters_of("pass"))
    column = max(len(adapter.name) for adapter in adapters) + 4
    lines = ["passes:"]
    for adapter in adapters:
        first = f"  {adapter.name}".ljust(column)
        lines += textwrap.wrap(adapter.summary, _WIDTH, initial_indent=first,
                               subsequent_indent=" " * column)  # fmt: skip
    return "\n".join(lines)


EXAMPLES = f"{_EXAMPLES}\n{_passes()}\n"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add_registry(parser)
    parser.add_argument("model", metavar="PACKAGE", help="a package or registered model")
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="rows like those it will see; some hundreds"
    )
    parser.add_argument(
        "--target", metavar="COLUMN|FILE", help="the right answers (default: the original's own)"
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="accuracy, f1, recall, rmse, r2, cosine, agreement, module:function",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="LOSS",
        help="what the metric may lose, in its own unit: 0.01 is one point of accuracy, or one "
        f"percent more RMSE (default {OptimizeOptions.max_drop})",
    )
    parser.add_argument(
        "--passes", metavar="LIST", help="these only (int8-static,load), or all but -these,-two"
    )
    parser.add_argument(
        "--student",
        metavar="MODULE:FUNCTION",
        help="teach an untrained network of yours: it returns a torch.nn.Module or keras.Model",
    )
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="passes begin within: 90s, 5m, 1h, '' for no limit; measuring comes on top "
        f"(default {OptimizeOptions.budget})",
    )
    parser.add_argument("--threads", type=int, help="with which it will be served (default 1)")
    parser.add_argument(
        "--out", metavar="DIR", default="optimized", help="write DIR/NAME (default: optimized)"
    )
    parser.add_argument(
        "--force",
        dest="replace",
        action="store_true",
        default=None,
        help="replace the package DIR/NAME",
    )
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(options: argparse.Namespace) -> int:
    """Optimize, and print the frontier."""
    from modelport.optimize.report import columns_of, table

    flags = {item.name: getattr(options, item.name, None) for item in fields(OptimizeOptions)}
    try:
        with Progress() as progress:
            found = optimize(
                options.model, options.data, out=options.out,
                options=resolve(OptimizeOptions, flags), registry=registry_options(options),
                report=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with what was made", file=sys.stderr)
        raise
    if options.json:
        path = str(found.package.path) if found.package else None
        print_json({**found.report, "package": path})
        return 0
    header, *rows = columns_of(table(found.outcome))
    print_table(header, [tuple(row) for row in rows])
    print(f"\n{found.report['sentence']}")
    for name, why in found.outcome.failed:
        print(f"did not hold: {name}: {why}", file=sys.stderr)
    for name, why in _without_effect(found.outcome):
        print(f"{name}: {why}", file=sys.stderr)
    print(f"report and pictures: {options.out}/frontier.*", file=sys.stderr)
    if found.package is not None:
        print(f"wrote {found.package.path} ({found.package.digest})", file=sys.stderr)
    return 0


def _without_effect(outcome: Outcome) -> list[tuple[str, str]]:
    """Passes that made no variant at all, each with the first reason."""
    made = {name for point in outcome.points for name in point.measured.variant.passes}
    whys: dict[str, str] = {}
    for item in outcome.refusals:
        if item.name not in made:
            whys.setdefault(item.name, item.why)
    return list(whys.items())
