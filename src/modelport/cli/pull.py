"""Write a registered package to a folder, every digest checked on the way."""

from __future__ import annotations

import argparse

from modelport import api
from modelport.cli.output import print_json
from modelport.cli.registry_flags import add_registry, registry_options

EXAMPLES = """\
examples:
  modelport pull churn@champion --out packages
  modelport pull churn@3 --out /tmp
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("reference", metavar="NAME@REF", help="name, name@alias or name@3")
    parser.add_argument("--out", metavar="DIR", default=".", help="write DIR/NAME (default: here)")
    add_registry(parser)
    parser.add_argument("--json", action="store_true", help="print path and digest as JSON")


def run(options: argparse.Namespace) -> int:
    """Pull, and print where."""
    package = api.pull(options.reference, options.out, registry=registry_options(options))
    if options.json:
        print_json({"path": str(package.path), "digest": package.digest})
    else:
        print(f"pulled {options.reference} to {package.path} ({package.digest[:19]})")
    return 0
