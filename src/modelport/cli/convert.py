"""Turn a trained model into one ONNX file that is proven to give the same answers.

The proof is that of 'modelport pack': the source is scanned before it is loaded, and every way
to export it is compared with the original on your sample rows and on rows made to hurt. Nothing
is written when no export gives the same answers (exit code 3).
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
  modelport convert model.joblib --out model.onnx --sample rows.csv
  modelport convert net.keras --out net.onnx --sample images.npy --json
  modelport convert weights.pt --factory nets:make_net --out net.onnx --sample rows.npy
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add_source(parser)
    parser.add_argument("--out", metavar="FILE.onnx", required=True, help="the file to write")
    parser.add_argument(
        "--force",
        dest="replace",
        action="store_true",
        default=None,
        help="replace another file at FILE.onnx",
    )
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(options: argparse.Namespace) -> int:
    """Convert, and print the parity report."""
    chosen = resolve(PackOptions, {**source_flags(options), "replace": options.replace})
    measured: dict[str, float] = {}
    with Progress() as progress:
        artifact = api.convert(
            options.source,
            options.out,
            sample=options.sample,
            options=chosen,
            progress=progress,
            measure=measured.__setitem__,
        )
    size = len(artifact.files[artifact.model_file])
    if options.json:
        print_json(
            {
                "path": options.out,
                "size": size,
                "signature": artifact.signature.to_json(),
                "task": artifact.task,
                "measured": measured,
                "parity": artifact.parity,
                "row_independent": artifact.row_independent,
                "provenance": artifact.provenance,
            }
        )
        return 0
    for line in describe_parity(artifact.parity):
        print(line)
    print(f"wrote {options.out} ({human_size(size)})")
    return 0
