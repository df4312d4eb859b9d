"""Serve packages: one worker in this process, or several that it watches over."""

from __future__ import annotations

import gc
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence

import numpy as np

from modelport.adapters import adapters_of, find_adapter
from modelport.core.errors import (
    ConflictError,
    EngineError,
    InputError,
    ModelportError,
    UnsupportedError,
)
from modelport.core.options import ServeOptions
from modelport.serve.app import App
from modelport.serve.base import ModelSpec, Transport
from modelport.serve.limits import usable_cores
from modelport.serve.metrics import Metrics, model_labels
from modelport.serve.models import LoadingOptions, ModelTable, ServedModel
from modelport.serve.workers import supervise

Report = Callable[[str], None]

_log = logging.getLogger(__name__)


def serve(models: Sequence[ModelSpec], options: ServeOptions, report: Report) -> int:
    """Serve until SIGTERM or SIGINT.

    Parameters
    ----------
    models : sequence of ModelSpec
        At least one; a name and version occurs once.
    options : ServeOptions
    report : callable
        Told what happens, a line at a time.

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
    _check(models, options)
    labels = ['model="",version=""', *(model_labels(m.name, m.version) for m in models)]
    metrics = Metrics(labels, options.workers)
    if options.workers == 1:
        return _work(0, models, options, metrics, report)

    def work(worker: int, again: bool) -> int:
        speak = report if worker == 0 else _silent
        return _work(worker, models, options, metrics, speak, load_first=again)

    return supervise(work, options.workers, options.grace, report)


def _work(
    worker: int,
    specs: Sequence[ModelSpec],
    options: ServeOptions,
    metrics: Metrics,
    report: Report,
    *,
    load_first: bool = False,
) -> int:
    """Be one worker: listen, load beside, be ready when everything is proven.

    A worker that replaces another loads first: the others answer meanwhile, and a connection
    that reached it would only be told to wait.
    """
    np.seterr(over="ignore", invalid="ignore")  # a number too large for float32 is infinity
    metrics.enter_worker(worker)
    models = [ServedModel(spec, metrics.model(i)) for i, spec in enumerate(specs, start=1)]
    threads = options.threads or max(1, usable_cores() // options.workers)
    table = ModelTable(
        models, metrics, LoadingOptions(threads, options.max_batch, options.max_queue)
    )
    protocols = [adapter.load() for adapter in adapters_of("protocol")]
    app = App(table, protocols, metrics, max_body=options.max_body)
    transport: Transport = find_adapter("transport", "http").load()
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
            report(f"listening on http://{_address(options)} (press Ctrl-C to stop)")

    if load_first:
        _load(table, report)
        transport.run(app, options, lambda: None)
    else:
        loader = threading.Thread(target=load, name="modelport-loader", daemon=True)
        transport.run(app, options, loader.start)
    if failure:
        raise failure[0]
    return 0


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


def _check(models: Sequence[ModelSpec], options: ServeOptions) -> None:
    if not models:
        raise InputError("no model to serve")
    seen: dict[tuple[str, int], str] = {}
    for model in models:
        key = (model.name, model.version)
        if key in seen:
            raise InputError(
                f"model {model.name} version {model.version} is given twice: "
                f"{seen[key]} and {model.path}"
            )
        seen[key] = model.path
    if options.workers < 1 or options.threads < 0:
        raise InputError(f"workers is {options.workers}, threads is {options.threads}")
    if options.workers > 1 and not hasattr(os, "fork"):
        raise UnsupportedError("several workers need a system with fork()")
    if not (options.allow_anonymous or _is_loopback(options.host)):
        raise InputError(
            f"nobody is authenticated, and {options.host} can be reached from other machines",
            hint="listen on 127.0.0.1, or say --allow-anonymous",
        )
    _check_port(options)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_port(options: ServeOptions) -> None:
    """Find out whether the port is free.

    Workers listen with ``SO_REUSEPORT``, by which a second server would start without an
    error and take every other request.
    """
    if not 0 < options.port < 65536:
        raise InputError(f"port is {options.port}, expected 1 to 65535")
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        raise ConflictError(
            f"cannot listen on {_address(options)}: {error.strerror or error}",
            hint="another program uses the port: stop it, or choose --port",
        ) from error


def _address(options: ServeOptions) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{host}:{options.port}"


def _silent(line: str) -> None:
    """Say nothing: the first worker speaks for all."""
