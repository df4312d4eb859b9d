"""Point an alias back at what it pointed at before. Again goes one further back."""

from __future__ import annotations

import argparse

from modelport import api
from modelport.cli.output import print_json
from modelport.cli.registry_flags import add_registry, registry_options

EXAMPLES = """\
examples:
  modelport rollback churn champion --why "precision fell on Monday"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument("alias", metavar="ALIAS", help="the alias to move back")
    parser.add_argument("--why", default="", metavar="TEXT", help="the reason, for the history")
    add_registry(parser)
    parser.add_argument("--json", action="store_true", help="print the record as JSON")


def run(options: argparse.Namespace) -> int:
    """Roll back, and print what the alias points at now."""
    record = api.rollback(
        options.name, options.alias, why=options.why, registry=registry_options(options)
    )
    if options.json:
        print_json(record.to_json())
    else:
        print(f"{record.model}@{record.alias} is version {record.version} again")
    return 0
