"""SageMaker's multi-model endpoints: ``/models``, through which the platform loads and unloads.

Names are opaque: the platform makes them, and nothing in them means anything here. Requests are
written ``model_name``, answers ``modelName``. Source: the SageMaker developer guide,
"Multi-model endpoints: contract for custom containers", and Triton's ``src/sagemaker_server.cc``.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs
from weakref import WeakKeyDictionary

from modelport.core.errors import InputError, NotFoundError, RefusedError
from modelport.serve.base import Place, Request, Response, Route
from modelport.serve.json_codec import dumps, parse_object, plain
from modelport.serve.models import ServedModel, State
from modelport.serve.table import ModelTable

#: Models on one page of the list; as many as TorchServe shows.
_PAGE: Final = 100
_LONGEST_NAME: Final = 1024

#: Nothing below these is a model, and reading some of it has effects.
_FORBIDDEN: Final = ("/dev", "/proc", "/sys")

#: Where the platform said that each model is: a table knows where its package is, which may be
#: a folder further down.
_urls: WeakKeyDictionary[ModelTable, dict[str, str]] = WeakKeyDictionary()
_lock = threading.Lock()

_MODEL: Final = r"/models/(?P<model>(?s:.+))"


def model_routes() -> Sequence[Route]:
    """The routes below ``/models``."""
    models, model = re.compile("/models"), re.compile(_MODEL)
    return (
        Route("POST", re.compile(f"{_MODEL}/invoke"), "/models/{model}/invoke"),
        Route("POST", models, "/models", _load, control=True),
        Route("GET", models, "/models", _list),
        Route("GET", model, "/models/{model}", _describe),
        Route("DELETE", model, "/models/{model}", _unload, control=True),
    )


def _load(table: ModelTable, place: Place, request: Request) -> Response:
    """Load a model: 200, 409 where it is loaded already, 507 where there is no memory for it."""
    document = parse_object(request.body)
    name, url = _text(document, "model_name"), _text(document, "url")
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise InputError(f"'model_name' is no name of up to {_LONGEST_NAME} printable characters")
    _check(url)
    try:
        table.load(name, url, again=False)
    except (NotFoundError, RefusedError) as error:
        # 404 would mean that the model is not loaded, upon which the platform loads it, and 503
        # that it may come to pass later.
        raise InputError(error.message, where=error.where or url, hint=error.hint) from error
    with _lock:
        _urls.setdefault(table, {})[name] = url
    return _answer(name, url)


def _text(document: dict[str, Any], key: str) -> str:
    value = plain(document.get(key))
    if not isinstance(value, str) or not value:
        raise InputError(f"key {key!r} is missing or not a string")
    return value


def _check(url: str) -> None:
    path = Path(url)
    if "\0" in url or not path.is_absolute():
        raise InputError(f"'url' is {url[:80]!r}: it must be the absolute path of a folder")
    try:
        places = (str(path), str(path.resolve()))
    except (OSError, RuntimeError) as error:  # links that go round in a circle
        raise InputError(f"'url' cannot be followed: {error}") from error
    for found in places:
        if any(found == root or found.startswith(f"{root}/") for root in _FORBIDDEN):
            raise InputError(f"'url' is {url[:80]!r}: no model may be loaded from there")


def _list(table: ModelTable, place: Place, request: Request) -> Response:
    """The models by name, a page at a time; the token is the last name of the page before."""
    after = _after(request.query)
    loaded = {m.spec.name: m for m in table.models if m.state is State.AVAILABLE}
    names = sorted(name for name in loaded if name > after)
    page = [_described(table, loaded[name]) for name in names[:_PAGE]]
    document: dict[str, Any] = {"models": page}
    if len(names) > _PAGE:
        last = names[_PAGE - 1].encode("utf-8", "surrogatepass")
        document["nextPageToken"] = base64.urlsafe_b64encode(last).decode()
    return Response(200, dumps(document))


def _after(query: str) -> str:
    token = parse_qs(query).get("next_page_token", [""])[-1]
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InputError(f"'next_page_token' is {token[:80]!r}: no list gave it") from error


def _describe(table: ModelTable, place: Place, request: Request) -> Response:
    return Response(200, dumps(_described(table, _loaded(table, place.model))))


def _unload(table: ModelTable, place: Place, request: Request) -> Response:
    """Unload a model, and answer when its memory is free."""
    described = _described(table, _loaded(table, place.model))
    table.unload(place.model, forget=True)
    with _lock:
        _urls.get(table, {}).pop(place.model, None)
    return Response(200, dumps(described))


def _loaded(table: ModelTable, name: str) -> ServedModel:
    model = table.get(name)
    if model.state is not State.AVAILABLE:
        raise NotFoundError("loaded model", name)
    return model


def _described(table: ModelTable, model: ServedModel) -> dict[str, str]:
    name = model.spec.name
    return {"modelName": name, "modelUrl": _urls.get(table, {}).get(name, model.spec.path)}


def _answer(name: str, url: str) -> Response:
    return Response(200, dumps({"modelName": name, "modelUrl": url}))
