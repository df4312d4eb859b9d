"""Register a package as the next version of its model.

Safe with several writers at once: each gets a version of its own. Pushing a package that is
registered already changes nothing.
"""

from __future__ import annotations

import argparse

from modelport import api
from modelport.cli.output import print_json
from modelport.cli.registry_flags import add_registry, registry_options

EXAMPLES = """\
examples:
  modelport push ./churn
  modelport push ./churn --registry /mnt/models --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("package", metavar="PACKAGE", help="a package folder")
    add_registry(parser)
    parser.add_argument("--json", action="store_true", help="print the record as JSON")


def run(options: argparse.Namespace) -> int:
    """Push, and print the version."""
    record = api.push(options.package, registry=registry_options(options))
    if options.json:
        print_json({**record.to_json(), "created": record.created})
    else:
        verb = "pushed" if record.created else "registered already:"
        print(f"{verb} {record.model}@{record.version} ({record.manifest[:19]})")
    return 0
