"""Serve packages: one worker in this process, or several that it watches over."""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from modelport.adapters import adapters_of, find_adapter
from modelport.core.errors import (
    ConflictError,
    EngineError,
    InputError,
    ModelportError,
    NotFoundError,
    UnsupportedError,
)
from modelport.core.options import ServeOptions
from modelport.serve.app import App
from modelport.serve.base import ModelSpec, SideTransport, Transport
from modelport.serve.guard import Guard
from modelport.serve.hosts.azure import CustomHandler
from modelport.serve.limits import usable_cores
from modelport.serve.metrics import metrics_of
from modelport.serve.models import LoadingOptions, ServedModel
from modelport.serve.table import Finder, ModelTable
from modelport.serve.workers import supervise

Report = Callable[[str], None]

#: The smallest value of each option that has one; 0 means none, or no limit, where it may be 0.
_LEAST: Final = {
    "workers": 1,
    "threads": 0,
    "max_body": 1,
    "max_batch": 1,
    "max_queue": 1,
    "timeout": 0,
    "body_timeout": 0,
    "grace": 0,
    "compress_above": 0,
}

_log = logging.getLogger(__name__)


def serve(
    models: Sequence[ModelSpec],
    options: ServeOptions,
    report: Report,
    find: Finder | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT.

    Parameters
    ----------
    models : sequence of ModelSpec
        At least one; a name and version occurs once.
    options : ServeOptions
    report : callable
        Told what happens, a line at a time.
    find : callable, optional
        How models that clients want to load are found, where `ServeOptions.model_control` lets
        them.

    Returns
    -------
    int
        The exit code: 0 after an orderly stop.

    Raises
    ------
    ModelportError
        When the server cannot start: the address is taken, a package is damaged, a golden
        record is answered wrongly.
    """
    guard = Guard.of(options)
    _check(models, options, guard)
    if not options.model_control:
        find = None
    metrics = metrics_of(models, options.workers)

    def work(worker: int, again: bool) -> int:
        speak = report if worker == 0 else _silent
        metrics.enter_worker(worker)
        table = ModelTable(models, metrics, loading_options(options), find)
        return _work(table, options, guard, speak, load_first=again)

    if options.workers == 1:
        return work(0, False)

    return supervise(work, options.workers, options.grace, report)


def loading_options(options: ServeOptions) -> LoadingOptions:
    """How each worker loads its models."""
    return LoadingOptions(
        threads=options.threads or max(1, usable_cores() // options.workers),
        max_batch=options.max_batch,
        max_queue=options.max_queue,
        timeout=options.timeout,
    )


def app_of(table: ModelTable, kind: str, options: ServeOptions, guard: Guard) -> App:
    """The request path of every ``protocol`` (over HTTP), or of every ``rpc``."""
    return App(table, [adapter.load() for adapter in adapters_of(kind)], options, guard)


def _work(
    table: ModelTable,
    options: ServeOptions,
    guard: Guard,
    report: Report,
    *,
    load_first: bool = False,
) -> int:
    """Be one worker: listen, load beside, be ready when everything is proven.

    A worker that replaces another loads first: the others answer meanwhile, and a connection
    that reached it would only be told to wait.
    """
    np.seterr(over="ignore", invalid="ignore")  # a number too large for float32 is infinity
    app = app_of(table, "protocol", options, guard)
    if options.custom_handler:
        app = CustomHandler(table, app.protocols, options, guard)
    transport: Transport = find_adapter("transport", "http" if options.http2 else "http1").load()
    stop_grpc = _start_grpc(table, options, guard)
    failure: list[ModelportError] = []

    def load() -> None:
        try:
            _load(table, report)
        except ModelportError as error:
            failure.append(error)
        except Exception as error:  # on a thread, where nobody else would notice it
            _log.exception("defect while loading")
            failure.append(EngineError(f"a defect in modelport while loading: {error!r}"))
        if failure:
            signal.raise_signal(signal.SIGTERM)
        else:
            report(f"listening on {_addresses(options)} (press Ctrl-C to stop)")

    def listening() -> None:
        table.attach(asyncio.get_running_loop())
        if not load_first:
            threading.Thread(target=load, name="modelport-loader", daemon=True).start()

    def stopping() -> Callable[[], None]:
        table.draining = True
        return stop_grpc(options.grace)

    if load_first:
        _load(table, report)
    transport.run(app, options, listening, stopping)
    if failure:
        raise failure[0]
    return 0


def _start_grpc(
    table: ModelTable, options: ServeOptions, guard: Guard
) -> Callable[[float], Callable[[], None]]:
    if not options.grpc_port:
        return lambda grace: lambda: None
    transport: SideTransport = find_adapter("transport", "grpc").load()
    return transport.start(app_of(table, "rpc", options, guard), options)


def _load(table: ModelTable, report: Report) -> None:
    table.load_all()
    # What is loaded now lives as long as the process: keep it out of every collection.
    gc.collect()
    gc.freeze()
    for model in table.models:
        report(_ready_line(model))


def _ready_line(model: ServedModel) -> str:
    proof = (
        f"{model.proven} golden records answered correctly"
        if model.proven
        else "unproven: it has no golden records"
    )
    labels = f" ({', '.join(model.spec.labels)})" if model.spec.labels else ""
    return f"ready: {model.spec.name} version {model.spec.version}{labels}: {proof}"


def _check(models: Sequence[ModelSpec], options: ServeOptions, guard: Guard) -> None:
    if not models and not options.model_control:
        raise InputError("no model to serve", hint="name one, or say --model-control")
    seen: dict[tuple[str, int], str] = {}
    for model in models:
        key = (model.name, model.version)
        if key in seen:
            raise InputError(
                f"model {model.name} version {model.version} is given twice: "
                f"{seen[key]} and {model.path}"
            )
        seen[key] = model.path
    _check_numbers(options)
    # SageMaker makes the folder with the first model.
    store = "" if options.multi_model else options.model_store
    if store and not Path(store).expanduser().is_dir():
        raise NotFoundError("model store", store)
    if options.workers > 1 and not hasattr(os, "fork"):
        raise UnsupportedError("several workers need a system with fork()")
    if options.multi_model and not options.model_control:
        raise InputError(
            "a multi-model endpoint is one whose models clients load",
            hint="say --model-control and --model-store, too",
        )
    if options.model_control and options.workers > 1:
        raise UnsupportedError(
            f"clients cannot load models into {options.workers} workers: each has its own",
            hint="say --workers 1; a worker runs models on as many threads as there are cores",
        )
    authenticated = guard.closed or options.tls_client_ca
    if not (options.allow_anonymous or authenticated or _is_loopback(options.host)):
        raise InputError(
            f"nobody is authenticated, and {options.host} can be reached from other machines",
            hint="set MODELPORT_API_KEY or --api-key-file, listen on 127.0.0.1, or say "
            "--allow-anonymous",
        )
    _check_port(options.host, options.port, "--port")
    if options.grpc_port:
        if options.grpc_port == options.port:
            raise InputError(
                f"HTTP and gRPC cannot share port {options.port}",
                hint="choose another --grpc-port",
            )
        _check_port(options.host, options.grpc_port, "--grpc-port")


def _check_numbers(options: ServeOptions) -> None:
    for name, least in _LEAST.items():
        value = getattr(options, name)
        if not value >= least:  # nan is neither
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} is {value}, expected at least {least}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_port(host: str, port: int, flag: str) -> None:
    """Find out whether the port is free.

    Workers listen with ``SO_REUSEPORT``, by which a second server would start without an
    error and take every other request.
    """
    if not 0 < port < 65536:
        raise InputError(f"{flag} is {port}, expected 1 to 65535")
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
            0
        ]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        raise ConflictError(
            f"cannot listen on {_address(host, port)}: {error.strerror or error}",
            hint=f"another program uses the port: stop it, or choose another with {flag}"
            if error.errno == errno.EADDRINUSE
            else f"choose another --host or {flag}",
        ) from error


def _addresses(options: ServeOptions) -> str:
    scheme = "https" if options.tls_cert else "http"
    http = f"{scheme}://{_address(options.host, options.port)}"
    if not options.grpc_port:
        return http
    scheme = "grpcs" if options.tls_cert else "grpc"
    return f"{http} and {scheme}://{_address(options.host, options.grpc_port)}"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _silent(line: str) -> None:
    """Say nothing: the first worker speaks for all."""
