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
    parser.add_argument("--name", help="what clients call the first model")
    _add_listening(parser.add_argument_group("listening"))
    _add_security(parser.add_argument_group("security"))
    _add_limits(parser.add_argument_group("resources and limits"))
    control = parser.add_argument_group("model control")
    control.add_argument(
        "--model-control", action=_SWITCH, default=None, help="clients may load and unload models"
    )
    control.add_argument(
        "--model-store", metavar="DIR", help="packages that clients may load, beside the registry's"
    )


_SWITCH = argparse.BooleanOptionalAction


def _add_listening(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    group.add_argument("--port", type=int, help="TCP port of HTTP (default 8080)")
    group.add_argument("--grpc-port", type=int, metavar="PORT", help="TCP port of gRPC")
    group.add_argument("--predict-route", metavar="PATH", help="one more path of the first model")
    group.add_argument("--health-route", metavar="PATH", help="one more path of its readiness")


def _add_security(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--api-key-file", metavar="FILE", help="keys, one per line; or set MODELPORT_API_KEY"
    )
    group.add_argument(
        "--guard-health", action=_SWITCH, default=None, help="health routes need the key, too"
    )
    group.add_argument(
        "--allow-anonymous",
        action=_SWITCH,
        default=None,
        help="listen on a non-loopback address although nobody is authenticated",
    )
    group.add_argument("--tls-cert", metavar="FILE", help="the server's certificate chain, PEM")
    group.add_argument("--tls-key", metavar="FILE", help="its private key, PEM")
    group.add_argument(
        "--tls-client-ca", metavar="FILE", help="clients must show a certificate signed by these"
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    numbers = (
        ("--workers", int, "N", "processes (default 1)"),
        ("--threads", int, "N", "inference threads per worker (default: cores)"),
        ("--max-body", int, "BYTES", "largest request body (default 64 MiB)"),
        ("--max-batch", int, "ROWS", "most rows in a shared execution (default 64; 1: off)"),
        ("--max-queue", int, "N", "most requests waiting per model (default 1024)"),
        ("--timeout", float, "SECONDS", "time to wait and run (default 60; 0: no limit)"),
        ("--body-timeout", float, "SECONDS", "time for a request to arrive (default 60)"),
        ("--grace", float, "SECONDS", "time to finish after SIGTERM (default 30)"),
        ("--compress-above", int, "BYTES", "compress larger answers (default 16 KiB; 0: none)"),
    )
    for flag, kind, unit, text in numbers:
        group.add_argument(flag, type=kind, metavar=unit, help=text)


def run(options: argparse.Namespace) -> int:
    """Serve until stopped."""
    flags = {item.name: getattr(options, item.name, None) for item in fields(ServeOptions)}
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
