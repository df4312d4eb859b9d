"""Azure Functions and Google Cloud Functions.

Azure, the Python worker (``function_app.py``)::

    from modelport.serve.functions import function_app as app

Azure, a custom handler: ``modelport serve``, see `modelport.serve.hosts.azure`.

Google, the functions framework (``main.py``)::

    from modelport.serve.functions import http

Sources: ``azure-functions`` and ``functions-framework``, the platforms' own packages for Python.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from modelport.core.errors import InputError, ModelportError
from modelport.core.lazy import load_module
from modelport.core.options import ServeOptions
from modelport.serve.app import App
from modelport.serve.asgi import NOT_LOADED, Application
from modelport.serve.base import Headers, Request
from modelport.serve.embed import load_app
from modelport.serve.guard import Guard
from modelport.serve.hosts.azure import PrefixedApp
from modelport.serve.hosts.on_demand import OnDemand

_log = logging.getLogger(__name__)


def create_function_app(
    models: Sequence[str | Path] = (),
    *,
    options: ServeOptions | None = None,
    auth_level: str = "FUNCTION",
) -> Any:
    """An application for the Python worker of Azure Functions; loaded at the first request.

    Parameters
    ----------
    models, options
        As in `modelport.serve.embed.load_app`.
    auth_level : str
        Whose key the host itself asks for: ``ANONYMOUS``, ``FUNCTION`` or ``ADMIN``.

    Returns
    -------
    azure.functions.AsgiFunctionApp

    Raises
    ------
    MissingPackageError
        When azure-functions is not installed.
    InputError
        When there is no such level.
    """
    azure = load_module("azure.functions", extra="", purpose="to run in Azure Functions")
    levels = [level.name for level in azure.AuthLevel]
    if auth_level not in levels:
        raise InputError(f"auth_level is {auth_level!r}, expected one of: {', '.join(levels)}")
    application = Application(partial(_load_prefixed, tuple(models), options))
    return azure.AsgiFunctionApp(app=application, http_auth_level=azure.AuthLevel[auth_level])


def http(request: Any) -> tuple[bytes, int, Headers]:
    """Answer one request of Google's functions framework.

    The first request of a process loads the models, since the framework forks its workers after
    this module is imported. Let the service's start-up probe ask ``/v2/health/ready``: then
    users never wait for it, and a model that cannot be loaded never takes traffic.

    Parameters
    ----------
    request : flask.Request

    Returns
    -------
    tuple
        Body, status and headers, as Flask takes them.
    """
    try:
        app = _google.get()
    except ModelportError:
        _log.exception("the models could not be loaded")
        return NOT_LOADED.body, NOT_LOADED.status, NOT_LOADED.headers
    query = request.query_string.decode("latin-1")
    inner = Request(request.method, request.path, request.headers, b"", query)
    size = request.content_length
    has_body = bool(size) or inner.method not in ("GET", "HEAD")
    response = app.before_body(inner, size) if has_body else None
    if response is None:
        inner.body = request.stream.read(app.max_body + 1)
        too_large = len(inner.body) > app.max_body
        response = app.too_large(inner, None) if too_large else app.answer(inner)
    return response.body, response.status, response.headers


def _load_prefixed(models: Sequence[str | Path], options: ServeOptions | None) -> App:
    app = load_app(models, options)
    return PrefixedApp(app.table, app.protocols, app.options, Guard.of(app.options))


_google = OnDemand(load_app)


def __getattr__(name: str) -> Any:
    """Make `function_app` when the worker's module asks for it (PEP 562)."""
    if name == "function_app":
        return globals().setdefault("function_app", create_function_app())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
