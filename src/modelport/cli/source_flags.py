"""The flags that say what is converted, for the verbs that convert."""

from __future__ import annotations

import argparse
from typing import Any


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the source and everything that says how it is read."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a model file or folder: .joblib .keras .pt2 .ubj .onnx SavedModel MLmodel …",
    )
    parser.add_argument(
        "--sample",
        metavar="FILE",
        help="rows like those the model will see: .npy .npz .csv .parquet .json .jsonl .txt, "
        "an image, or a folder of images or texts",
    )
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
        "--factory",
        metavar="MODULE:NAME",
        help="the class or function that makes the model, for files that hold weights only",
    )
    parser.add_argument(
        "--signature",
        metavar="NAME",
        help="which of a SavedModel's signatures, where it has several",
    )


def source_flags(options: argparse.Namespace) -> dict[str, Any]:
    """The flags' values, for `modelport.core.settings.resolve`."""
    return {
        "trust": options.trust,
        "allow": options.allow,
        "factory": options.factory,
        "signature": options.signature,
    }
