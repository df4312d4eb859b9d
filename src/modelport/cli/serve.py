"""Serve models over HTTP: TensorFlow Serving REST v1 and Open Inference V2 on one port.

A MODEL is a package folder, an .onnx file, or name, name@alias or name@3 of the registry. It
is ready only after its golden records have been answered correctly. SIGTERM drains.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields

from modelport import api
from modelport.cli.output import print_progress
from modelport.cli.registry_flags import add_registry, registry_options
from modelport.core.options import ServeOptions
from modelport.core.settings import resolve

EXAMPLES = """\
examples:
  modelport serve ./churn
  modelport serve churn@champion churn@candidate --port 9000 --workers 2
  curl -d '{"instances": [[5.1, 3.5, 1.4, 0.2]]}' http://127.0.0.1:8080/v1/models/churn:predict
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("models", metavar="MODEL", nargs="+", help="what to serve")
    add_registry(parser)
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="TCP port (default 8080)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default 1)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="inference threads per worker (default: cores)"
    )
    parser.add_argument(
        "--max-body", type=int, metavar="BYTES", help="largest request body (default 64 MiB)"
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        metavar="ROWS",
        help="most rows that concurrent requests share in one execution (default 64; 1: off)",
    )
    parser.add_argument(
        "--max-queue", type=int, metavar="N", help="most requests waiting per model (default 1024)"
    )
    parser.add_argument(
        "--grace", type=float, metavar="SECONDS", help="time to finish after SIGTERM (default 30)"
    )
    parser.add_argument(
        "--allow-anonymous",
        action="store_true",
        default=None,
        help="listen on a non-loopback address although nobody is authenticated",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until stopped."""
    flags = {item.name: getattr(options, item.name) for item in fields(ServeOptions)}
    code = api.serve(
        options.models,
        options=resolve(ServeOptions, flags),
        registry=registry_options(options),
        report=print_progress,
    )
    # Everything is answered. A thread that still loads or infers must not hold up the end, and
    # the engine aborts the process when Python takes itself apart under it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
