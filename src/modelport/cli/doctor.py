"""Show which adapters can run here, what is missing, and how to install it."""

from __future__ import annotations

import argparse

from modelport import api
from modelport.cli.output import print_json, print_table
from modelport.cli.registry_flags import add_registry, registry_options

EXAMPLES = """\
examples:
  modelport doctor
  modelport doctor --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add_registry(parser)
    parser.add_argument("--json", action="store_true", help="print the diagnosis as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the diagnosis; exit code 1 when something that every use needs is missing."""
    diagnosis = api.doctor(registry=registry_options(options))
    if options.json:
        print_json(diagnosis)
    else:
        for key, value in diagnosis["system"].items():
            print(f"{key}: {value}")
        print()
        print_table(
            ["KIND", "ADAPTER", "STATUS", "HANDLES"],
            [(a["kind"], a["name"], _status(a), a["summary"]) for a in diagnosis["adapters"]],
        )
    return 0 if diagnosis["healthy"] else 1


def _status(adapter: dict[str, str]) -> str:
    return "ok" if not adapter["install"] else f"missing: {adapter['install']}"
