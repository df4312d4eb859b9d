"""The request path inside a process of somebody else's: loaded and proven when this returns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelport.core.options import ServeOptions
from modelport.core.settings import resolve
from modelport.serve.app import App
from modelport.serve.discover import find_in_store, models_here, models_in, numbered, renamed
from modelport.serve.guard import Guard
from modelport.serve.metrics import metrics_of
from modelport.serve.platforms import detect
from modelport.serve.stage import app_of, loading_options
from modelport.serve.table import ModelTable


def load_app(models: Sequence[str | Path] = (), options: ServeOptions | None = None) -> App:
    """Load and prove models, and answer for them without a server.

    Parameters
    ----------
    models : sequence of str or Path
        Package folders, ``.onnx`` files, or folders of these. None: what ``MODELPORT_MODELS``
        lists, or what the platform put here (see `modelport.serve.platforms`).
    options : ServeOptions, optional
        Settings of the environment and the platform unless given. What concerns sockets and
        processes means nothing here.

    Returns
    -------
    App
        For `App.handle` in an event loop (call ``app.table.attach(loop)`` first), or
        `App.answer` on threads.

    Raises
    ------
    ModelportError
        When a model cannot be found, verified, loaded or proven.
    """
    detected = detect(os.environ)
    options = options or resolve(ServeOptions, platform=detected.options)
    specs = [spec for model in models for spec in models_in(Path(model))]
    specs = renamed(
        numbered(specs or models_here(os.environ, detected, none_needed=options.model_control)),
        options.name,
    )
    np.seterr(over="ignore", invalid="ignore")  # a number too large for float32 is infinity
    find = find_in_store(options.model_store) if options.model_control else None
    table = ModelTable(specs, metrics_of(specs, 1), loading_options(options), find)
    table.load_all()
    return app_of(table, "protocol", options, Guard.of(options))
