"""Turn a trained model into a package that is proven to give the same answers.

The source is scanned before it is loaded, exported, and compared with the original on your
sample rows and on rows made to hurt. A difference refuses the package (exit code 3).
"""

from __future__ import annotations

import argparse

from modelport import api
from modelport.cli.output import human_size, print_json, print_progress
from modelport.core.options import PackOptions
from modelport.core.parity_report import describe_parity
from modelport.core.settings import resolve

EXAMPLES = """\
examples:
  modelport pack model.joblib --name churn --sample rows.csv
  modelport pack net.onnx --name net --out packages --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("source", metavar="SOURCE", help=".joblib .pkl .skops .onnx …")
    parser.add_argument("--name", required=True, help="the model's name")
    parser.add_argument(
        "--sample",
        metavar="FILE",
        help="rows like those the model will see: .npy .npz .csv .parquet .json .jsonl",
    )
    parser.add_argument("--out", metavar="DIR", default=".", help="write DIR/NAME (default: here)")
    parser.add_argument(
        "--trust",
        action="store_true",
        default=None,
        help="load the source even if the scan finds globals it does not know; recorded",
    )
    parser.add_argument(
        "--allow",
        metavar="NAMES",
        help="let exactly these globals pass the scan (package.module.Class, …); recorded",
    )
    parser.add_argument(
        "--engine",
        choices=("onnx", "native"),
        help="native: do not convert, run the original framework when served (larger, slower)",
    )
    parser.add_argument(
        "--factory",
        metavar="MODULE:NAME",
        help="the class or function that makes the model, for files that hold weights only",
    )
    parser.add_argument(
        "--force",
        dest="replace",
        action="store_true",
        default=None,
        help="replace another package at DIR/NAME",
    )
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(options: argparse.Namespace) -> int:
    """Pack, and print the parity report."""
    package = api.pack(
        options.source,
        options.name,
        sample=options.sample,
        out=options.out,
        options=resolve(
            PackOptions,
            {
                "trust": options.trust,
                "allow": options.allow,
                "engine": options.engine,
                "factory": options.factory,
                "replace": options.replace,
            },
        ),
        progress=print_progress,
    )
    manifest = package.manifest
    if options.json:
        print_json(
            {
                "path": str(package.path),
                "digest": package.digest,
                "size": package.size,
                "signature": manifest.signature.to_json(),
                "task": manifest.task,
                "parity": manifest.parity,
                "row_independent": manifest.row_independent,
                "provenance": manifest.provenance,
            }
        )
        return 0
    for line in describe_parity(manifest.parity):
        print(line)
    print(f"packed {package.path} ({human_size(package.size)}, {package.digest[:19]})")
    return 0
