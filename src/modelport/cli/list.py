"""List registered models, their newest versions and their aliases."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict

from modelport import api
from modelport.cli.output import print_json, print_progress, print_table, short_time
from modelport.cli.registry_flags import add_registry, registry_options

EXAMPLES = """\
examples:
  modelport list
  modelport list --registry /mnt/models --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add_registry(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the list."""
    registry = registry_options(options)
    models = api.list_models(registry=registry)
    if options.json:
        print_json([asdict(model) for model in models])
    elif not models:
        print_progress(f"no models in {registry.registry}; 'modelport push PACKAGE' adds one")
    else:
        rows = [(m.name, m.newest, _aliases(m.aliases), short_time(m.pushed_at)) for m in models]
        print_table(["MODEL", "NEWEST", "ALIASES", "PUSHED"], rows)
    return 0


def _aliases(aliases: Mapping[str, int]) -> str:
    return ", ".join(f"{alias} → {version}" for alias, version in sorted(aliases.items())) or "-"
