"""Point an alias at a version. The move is recorded and can be rolled back."""

from __future__ import annotations

import argparse

from modelport import api
from modelport.cli.output import print_json
from modelport.cli.registry_flags import add_registry, registry_options

EXAMPLES = """\
examples:
  modelport promote churn@3 champion
  modelport promote churn@candidate champion --why "two weeks in shadow"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("reference", metavar="NAME@VERSION", help="which version")
    parser.add_argument("alias", metavar="ALIAS", help="such as champion or candidate")
    parser.add_argument("--why", default="", metavar="TEXT", help="the reason, for the history")
    add_registry(parser)
    parser.add_argument("--json", action="store_true", help="print the record as JSON")


def run(options: argparse.Namespace) -> int:
    """Promote, and print what the alias points at now."""
    record = api.promote(
        options.reference, options.alias, why=options.why, registry=registry_options(options)
    )
    if options.json:
        print_json(record.to_json())
    else:
        print(f"{record.model}@{record.alias} is version {record.version}")
    return 0
