"""Show a package and verify every byte of it. Nothing in it is executed."""

from __future__ import annotations

import argparse
import json

from modelport import api
from modelport.cli.output import human_size, print_json, print_table
from modelport.core.parity_report import describe_parity

EXAMPLES = """\
examples:
  modelport inspect ./churn
  modelport inspect ./churn --json | jq .signature
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("package", metavar="PACKAGE", help="a package folder")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def run(options: argparse.Namespace) -> int:
    """Verify, and print what the manifest says."""
    package = api.inspect(options.package)
    manifest = package.manifest
    if options.json:
        document = {"path": str(package.path), "digest": package.digest, "size": package.size}
        print_json({**document, **json.loads(manifest.to_bytes())})
        return 0
    print(f"{manifest.name}: a {manifest.task} model for the {manifest.engine} engine")
    print(f"{package.digest}  verified, {human_size(package.size)}\n")
    sides = (("input", manifest.signature.inputs), ("output", manifest.signature.outputs))
    print_table(
        ["", "name", "type", "shape"],
        [(side, spec.name, spec.dtype, spec.shape_text) for side, specs in sides for spec in specs],
    )
    if manifest.processing is not None:
        print()
        for line in manifest.processing.describe():
            print(f"step: {line}")
    print()
    for line in describe_parity(manifest.parity):
        print(line)
    print()
    for key, value in sorted(manifest.provenance.items()):
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{key}: {text if text != '' else 'none'}")
    return 0
