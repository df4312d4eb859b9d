"""AWS Lambda: ``modelport.serve.awslambda.handler`` is the handler of a function.

It answers API Gateway (REST and HTTP APIs, payloads 1.0 and 2.0), function URLs, Application
Load Balancers, and direct invocations with a bare inference document. The models are loaded and
proven when the runtime looks `handler` up, in the initialization phase; importing the module
loads nothing.
"""

from __future__ import annotations

import gc
import importlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from modelport.core.errors import (
    DeadlineError,
    EngineError,
    InputError,
    LimitError,
    ModelportError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from modelport.core.options import ServeOptions
from modelport.serve.app import App
from modelport.serve.base import Request, Response
from modelport.serve.embed import load_app
from modelport.serve.hosts.envelopes import bare_request, text_of
from modelport.serve.hosts.lambda_events import LARGEST, Event, Source, body_of, source_of

_FAILURES: Final[dict[int, type[ModelportError]]] = {
    401: UnauthenticatedError,
    413: LimitError,
    503: UnavailableError,
    504: DeadlineError,
}


class Handler:
    """A Lambda handler: ``handler(event, context)``.

    Parameters
    ----------
    app : App
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, event: Any, context: object = None) -> Any:
        """Answer one event.

        Returns
        -------
        dict
            For HTTP events the object that their source expects; for a bare inference document
            the protocol's answer itself.

        Raises
        ------
        ModelportError
            For bare documents alone: what Lambda calls a function error, so that retries,
            dead-letter queues and ``Catch`` of Step Functions see it.
        """
        source = source_of(event)
        if source is None:
            return self._direct(event)
        request, response = self._answer(source, event)
        reply = source.reply(event, response)
        if source.is_over(reply):
            error = LimitError(
                f"the answer has {len(response.body)} bytes, and no more than {source.largest} "
                "are passed on, as JSON with base64 for binary: ask for fewer rows or outputs"
            )
            reply = source.reply(event, self._app.refuse(request, error))
        return reply

    def _answer(self, source: Source, event: Event) -> tuple[Request, Response]:
        request = Request("POST", "/", {}, b"")
        try:
            request = source.read(event)
            body = body_of(event)
        except ModelportError as error:
            return request, self._app.refuse(request, error)
        refused = self._app.before_body(request, len(body))
        if refused is not None:
            return request, refused
        request.body = body
        return request, self._app.answer(request)

    def _direct(self, event: Any) -> Any:
        request = bare_request(event, self._app.table.names)
        response = self._app.before_body(request, len(request.body)) or self._app.answer(request)
        text = text_of(response)
        if response.status >= 400:
            default = EngineError if response.status >= 500 else InputError
            raise _FAILURES.get(response.status, default)(_message(text or ""))
        if text is None:
            raise UnsupportedError("binary outputs need an HTTP event; ask for JSON")
        if len(response.body) > LARGEST:
            raise LimitError(f"the answer has {len(text)} bytes, Lambda passes on {LARGEST}")
        return json.loads(text)


def create_handler(
    models: Sequence[str | Path] = (), *, options: ServeOptions | None = None
) -> Handler:
    """Load and prove models, for a handler of one's own name.

    Parameters
    ----------
    models, options
        As in `modelport.serve.embed.load_app`.

    Raises
    ------
    ModelportError
        When a model cannot be found, verified, loaded or proven.
    """
    handler = Handler(load_app(models, options))
    # Nothing here goes stale in a snapshot of SnapStart: no connection, no credentials, no random
    # numbers. What is garbage by then need not be in it.
    if find_spec("snapshot_restore_py") is not None:
        importlib.import_module("snapshot_restore_py").register_before_snapshot(gc.collect)
    return handler


def _message(text: str) -> str:
    """What an error body says."""
    try:
        document = json.loads(text)
    except ValueError:
        return text
    if isinstance(document, dict):
        return str(document.get("error") or document.get("message") or text)
    return text


def __getattr__(name: str) -> Any:
    """Load the models when the runtime asks for `handler` (PEP 562)."""
    if name == "handler":
        return globals().setdefault("handler", create_handler())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
