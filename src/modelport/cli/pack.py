"""Turn a trained model into a package that is proven to give the same answers.

The source is scanned before it is loaded, exported, and compared with the original on your
sample rows and on rows made to hurt. A difference refuses the package (exit code 3).
"""

from __future__ import annotations

import argparse

from modelport import api
from modelport.cli.output import Progress, human_size, print_json
from modelport.cli.source_flags import add_source, source_flags
from modelport.core.options import PackOptions
from modelport.core.parity_report import describe_parity
from modelport.core.settings import resolve

EXAMPLES = """\
examples:
  modelport pack model.joblib --name churn --sample rows.csv
  modelport pack net.onnx --name net --out packages --json
  modelport pack cats.onnx --name cats --image imagenet --labels names.txt --sample photos/
  modelport pack mails.onnx --name mails --text tokenizer.json --sample mails.csv
"""


_FLAGS = ("engine", "replace", "image", "text", "labels", "top_k", "processing")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add_source(parser)
    parser.add_argument("--name", required=True, help="the model's name")
    parser.add_argument("--out", metavar="DIR", default=".", help="write DIR/NAME (default: here)")
    parser.add_argument(
        "--engine",
        choices=("onnx", "native"),
        help="native: do not convert, run the original framework when served (larger, slower)",
    )
    _add_processing(parser)
    parser.add_argument(
        "--force",
        dest="replace",
        action="store_true",
        default=None,
        help="replace another package at DIR/NAME",
    )
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def _add_processing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image",
        metavar="PRESET",
        help="the model takes images: keras, imagenet, tf, caffe, none, or a JSON file",
    )
    parser.add_argument(
        "--text",
        metavar="FILE",
        help="the model takes texts: a tokenizer.json, or a list of words, one per line",
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="names of the classes: one per line, or a JSON list"
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="answer the best K labels (default: the best)"
    )
    parser.add_argument(
        "--processing", metavar="FILE", help="a JSON file that declares all processing steps"
    )


def run(options: argparse.Namespace) -> int:
    """Pack, and print the parity report."""
    chosen = resolve(
        PackOptions,
        {
            **source_flags(options),
            **{name: getattr(options, name) for name in _FLAGS},
        },
    )
    measured: dict[str, float] = {}
    with Progress() as progress:
        package = api.pack(
            options.source,
            options.name,
            sample=options.sample,
            out=options.out,
            options=chosen,
            progress=progress,
            measure=measured.__setitem__,
        )
    manifest = package.manifest
    if options.json:
        print_json(
            {
                "path": str(package.path),
                "digest": package.digest,
                "size": package.size,
                "signature": manifest.signature.to_json(),
                **({"processing": manifest.processing.to_json()} if manifest.processing else {}),
                "task": manifest.task,
                "measured": measured,
                "parity": manifest.parity,
                "row_independent": manifest.row_independent,
                "provenance": manifest.provenance,
            }
        )
        return 0
    for line in manifest.processing.describe() if manifest.processing else ():
        print(f"step: {line}")
    for line in describe_parity(manifest.parity):
        print(line)
    print(f"packed {package.path} ({human_size(package.size)}, {package.digest[:19]})")
    return 0
