"""Predict with a package, a registered model or a running server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from modelport import api
from modelport.cli.output import print_json, print_table
from modelport.cli.registry_flags import add_registry, registry_options
from modelport.core.tensors import Array, Tensors

EXAMPLES = """\
examples:
  modelport predict ./churn --input rows.csv
  modelport predict churn@champion --input rows.parquet --json
  modelport predict ./cats --input cat.jpg
  modelport predict http://127.0.0.1:8080/churn --input rows.json
"""

_SHOWN_ROWS = 50


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument(
        "model",
        metavar="MODEL_OR_URL",
        help="as for serve, or http://host:port/name",
    )
    parser.add_argument(
        "--input",
        metavar="FILE",
        required=True,
        help=".npy .npz .csv .parquet .json .jsonl .txt, an image, or a folder of images or texts",
    )
    add_registry(parser)
    parser.add_argument("--json", action="store_true", help="print all outputs as JSON")


def run(options: argparse.Namespace) -> int:
    """Predict, and print the outputs."""
    rows = api.to_rows(options.input)
    outputs = api.predict(options.model, rows, registry=registry_options(options))
    if options.json:
        print_json({"outputs": outputs})
    else:
        _print_rows(outputs, rows.names)
    return 0


def _print_rows(outputs: Tensors, names: Sequence[str]) -> None:
    lengths = {len(array) if array.ndim else 1 for array in outputs.values()}
    rows = min(lengths)
    shown = min(rows, _SHOWN_ROWS)
    print_table(
        ["row", *outputs],
        [
            (names[i] if len(names) == rows else i,
             *(_cell(array[i] if array.ndim else array) for array in outputs.values()))
            for i in range(shown)
        ],
    )  # fmt: skip
    if shown < rows:
        print(f"… and {rows - shown} more rows; --json prints all")


def _cell(value: Array) -> str:
    if not getattr(value, "shape", ()):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    flat = value.ravel()
    text = " ".join(
        f"{item:.4g}" if isinstance(item, float) else str(item) for item in flat[:10].tolist()
    )
    return text + (" …" if flat.size > 10 else "")
