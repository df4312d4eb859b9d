"""Serve models: every protocol in one process, over HTTP and, with --grpc-port, gRPC.

A MODEL is a package folder, an .onnx file, a folder of these, or name, name@alias or name@3 of
the registry. It is ready only after its golden records have been answered correctly. SIGTERM
drains. In a container, port, routes and models come from what the platform sets: MODEL may be
left out. The start arguments of TensorFlow Serving, Triton and KServe are understood, too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

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
    parser.add_argument("models", metavar="MODEL", nargs="*", help="what to serve")
    add_registry(parser)
    parser.add_argument("--name", help="what clients call the first model")
    _add_listening(parser.add_argument_group("listening"))
    _add_security(parser.add_argument_group("security"))
    _add_limits(parser.add_argument_group("resources and limits"))
    _add_foreign(parser)
    control = parser.add_argument_group("model control")
    control.add_argument(
        "--model-control", action=_SWITCH, default=None, help="clients may load and unload models"
    )
    control.add_argument(
        "--multi-model", action=_SWITCH, default=None, help="SageMaker's multi-model /models routes"
    )
    control.add_argument(
        "--model-store", metavar="DIR", help="packages that clients may load, beside the registry's"
    )


_SWITCH = argparse.BooleanOptionalAction


def _add_listening(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    group.add_argument("--port", type=int, help="TCP port of HTTP (default 8080)")
    group.add_argument("--grpc-port", type=int, metavar="PORT", help="TCP port of gRPC")
    group.add_argument(
        "--http2", action=_SWITCH, default=None, help="HTTP/2 as well; HTTP/1.1 then costs more"
    )
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


def _add_foreign(parser: argparse.ArgumentParser) -> None:
    """What other servers call it: platforms append such arguments to an image's own.

    Sources: KServe's ServingRuntimes, ``tensorflow_model_server --help``, ``tritonserver --help``.
    """

    def alias(*flags: str, to: str, kind: Callable[[str], Any] = str) -> None:
        parser.add_argument(*flags, dest=to, type=kind, default=None, help=argparse.SUPPRESS)

    alias("--model_name", to="name")
    alias("--model_dir", "--model_base_path", to="model_dir")
    alias("--model-repository", to="model_dir")
    alias("--http_port", "--http-port", to="port", kind=int)
    alias("--grpc_port", to="grpc_port", kind=int)
    alias("--rest_api_port", to="rest_api_port", kind=int)
    alias("--rest_api_timeout_in_ms", to="rest_api_timeout_in_ms", kind=float)
    for flag in ("--allow-grpc", "--allow-http", "--enable_grpc", "--enable_docs_url"):
        alias(flag, to="ignored")


def _translate(options: argparse.Namespace) -> None:
    """Turn other servers' arguments into ours."""
    if options.models and options.models[0] == "serve" and not Path("serve").exists():
        options.models.pop(0)  # SageMaker's and MLflow's start argument, after an own 'serve'
    if options.model_dir:
        options.models.append(options.model_dir)
    if options.rest_api_port:  # TensorFlow Serving: --port is gRPC's
        options.grpc_port = options.port or options.grpc_port
        options.port = options.rest_api_port
    if options.rest_api_timeout_in_ms:
        options.timeout = options.rest_api_timeout_in_ms / 1000


def run(options: argparse.Namespace) -> int:
    """Serve until stopped."""
    from modelport.serve.platforms import detect

    _translate(options)
    flags = {item.name: getattr(options, item.name, None) for item in fields(ServeOptions)}
    code = api.serve(
        options.models,
        options=resolve(ServeOptions, flags, platform=detect(os.environ).options),
        registry=registry_options(options),
        report=print_progress,
    )
    # Everything is answered. A thread that still loads or infers must not hold up the end, and
    # the engine aborts the process when Python takes itself apart under it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
