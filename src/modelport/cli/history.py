"""Show who changed what and when: every version and every move of an alias, verified."""

from __future__ import annotations

import argparse
from typing import Any

from modelport import api
from modelport.cli.output import print_json, print_table, short_time
from modelport.cli.registry_flags import add_registry, registry_options

EXAMPLES = """\
examples:
  modelport history churn
  modelport history churn --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("name", metavar="NAME", help="the model")
    add_registry(parser)
    parser.add_argument("--json", action="store_true", help="print the records as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the history, oldest first."""
    records = api.history(options.name, registry=registry_options(options))
    documents = [record.to_json() for record in records]
    if options.json:
        print_json(documents)
    else:
        rows = [(short_time(d["at"]), d["by"], _event(d), d.get("why", "")) for d in documents]
        print_table(["WHEN", "WHO", "WHAT", "WHY"], rows)
    return 0


def _event(document: dict[str, Any]) -> str:
    if document["kind"] == "version":
        return f"pushed version {document['version']} ({document['manifest'][:19]})"
    if document["action"] == "rollback":
        return f"rolled {document['alias']} back to version {document['version']}"
    return f"promoted version {document['version']} to {document['alias']}"
