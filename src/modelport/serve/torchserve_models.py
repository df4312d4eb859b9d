"""TorchServe's management API: what is served, and loading and unloading it.

Source: ``pytorch/serve`` 0.12 (``ManagementRequestHandler``, ``ApiUtils``, ``ListModelsResponse``,
``DescribeModelResponse``). What TorchServe has and this server has not is refused: workers of
one model, archives with code in them, and a default version other than the newest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

from modelport.core.errors import InputError, ModelportError, NotFoundError, UnsupportedError
from modelport.core.options import ServeOptions
from modelport.serve.base import Headers, Place, Request, Response
from modelport.serve.json_codec import dumps, parse_object, plain
from modelport.serve.models import ServedModel, State
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable
from modelport.serve.uploads.forms import media_type_of

#: What TorchServe calls an error of a status: its Java classes.
_TYPES: Final = {
    400: "BadRequestException",
    401: "InvalidKeyException",
    403: "InvalidModelVersionException",
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    409: "ConflictStatusException",
    413: "TooLongFrameException",
    415: "UnsupportedMediaTypeException",
    501: "UnsupportedOperationException",
    503: "ServiceUnavailableException",
    504: "RequestTimeoutException",
    507: "WorkerOutOfMemoryException",
}

#: Every answer has them; source: ``NettyUtils.sendHttpResponse``.
_HEADERS: Final[Headers] = (
    ("content-type", "application/json"),
    ("pragma", "no-cache"),
    ("cache-control", "no-cache; no-store, must-revalidate, private"),
    ("expires", "Thu, 01 Jan 1970 00:00:00 UTC"),
)

_MOST_LISTED: Final = 100

#: Part of a URL, of a label and of a metric as it is.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

#: No file system has longer names.
_LONGEST_URL: Final = 255

_ARCHIVES: Final = (".mar", ".tar.gz", ".tgz", ".zip")

_STATES: Final = {State.LOADING: "LOADING", State.AVAILABLE: "READY"}


def answer(body: bytes, status: int = 200, *extra: tuple[str, str]) -> Response:
    """An answer with TorchServe's headers."""
    return Response(status, body, (*_HEADERS, ("x-request-id", str(uuid4())), *extra))


def failure(status: int, message: str, *extra: tuple[str, str], kind: str = "") -> Response:
    """An error in TorchServe's shape."""
    name = kind or _TYPES.get(status, "InternalServerException")
    return answer(dumps({"code": status, "type": name, "message": message}), status, *extra)


def failure_of(error: ModelportError) -> Response:
    """The same, of one of our errors."""
    kind = ""
    if isinstance(error, NotFoundError) and error.what.startswith("model"):
        kind = "ModelNotFoundException"
    elif isinstance(error, NotFoundError) and error.what.startswith("version"):
        kind = "ModelVersionNotFoundException"
    return failure(status_of(error), error.line, kind=kind)


def version_of(text: str | None) -> str | None:
    """A version as TorchServe writes it: ``1.0`` is our 1."""
    return None if text is None else text.removesuffix(".0")


class Management:
    """Answers the routes; each takes the table, the place in the path, and the request.

    Parameters
    ----------
    options : ServeOptions
    """

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._workers = max(1, options.workers)

    def names(self, table: ModelTable, place: Place, request: Request) -> Response:
        """``GET /models?limit=&next_page_token=``."""
        given = _query(request)
        limit = _integer(given, "limit", _MOST_LISTED)
        first = max(0, _integer(given, "next_page_token", 0))
        limit = limit if 0 < limit <= _MOST_LISTED else _MOST_LISTED
        names = sorted(table.names)
        models = [
            {"modelName": name, "modelUrl": _file_name(table.get(name))}
            for name in names[first : first + limit]
        ]
        document: dict[str, Any] = {"models": models}
        if first + limit < len(names):
            document = {"nextPageToken": str(first + limit), **document}
        return answer(dumps(document))

    def describe(self, table: ModelTable, place: Place, request: Request) -> Response:
        """``GET /models/{m}``, ``/models/{m}/{v}`` and ``/models/{m}/all``."""
        if place.version == "all":
            models = table.versions(place.model)
        else:
            models = [table.get(place.model, place.version)]
        return answer(dumps([self._described(table, model) for model in models]))

    def register(self, table: ModelTable, place: Place, request: Request) -> Response:
        """``POST /models?url=&model_name=``: load from the store; nothing else is done with it."""
        if not self._options.model_control:
            return self._not_allowed()
        given = _parameters(request)
        url = given.get("url", "")
        if not url:
            raise InputError("parameter url is required")
        if not url.isprintable() or len(url) > _LONGEST_URL:
            raise InputError(f"url is {url[:80]!r}; at most {_LONGEST_URL} printable characters")
        if url.lower().endswith(_ARCHIVES):
            raise InputError(
                f"{url[:200]} is an archive: a model archive holds code, which nothing here runs; "
                "url names a package folder in the model store"
            )
        name = given.get("model_name") or PurePosixPath(unquote(urlsplit(url).path)).name
        if not _NAME.fullmatch(name):
            raise InputError(
                f"model_name is {name[:128]!r}; letters, digits, '.', '_' and '-', at most 128"
            )
        models = table.load(name, url, again=False)
        version = models[-1].spec.version
        text = f'Model "{name}" Version: {version} registered with {self._workers} initial workers'
        return answer(dumps({"status": text}))

    def scale(self, table: ModelTable, place: Place, request: Request) -> Response:
        """``PUT /models/{m}?min_worker=&max_worker=``: agreed to where it is so already."""
        table.get(place.model, place.version)
        given = _parameters(request)
        least = _integer(given, "min_worker", 1)
        most = _integer(given, "max_worker", max(least, self._workers))
        if not least <= self._workers <= most:
            raise InputError(
                f"min_worker is {least} and max_worker {most}; every model has {self._workers}, "
                "as chosen with --workers when the server started"
            )
        text = f"Workers scaled to {self._workers} for model: {place.model}"
        return answer(dumps({"status": text}))

    def unregister(self, table: ModelTable, place: Place, request: Request) -> Response:
        """``DELETE /models/{m}[/{v}]``: unload and forget."""
        if not self._options.model_control:
            return self._not_allowed()
        chosen = table.get(place.model, place.version)
        if chosen is table.get(place.model) and len(table.versions(place.model)) > 1:
            return failure(403, f"Cannot remove default version for model {place.model}")
        table.unload(place.model, str(chosen.spec.version), forget=True)
        return answer(dumps({"status": f'Model "{place.model}" unregistered'}))

    def set_default(self, table: ModelTable, place: Place, request: Request) -> Response:
        """``PUT /models/{m}/{v}/set-default``: agreed to where it is so already."""
        wanted, default = table.get(place.model, place.version), table.get(place.model)
        if wanted is not default:
            raise UnsupportedError(
                f"version {default.spec.version} of model {place.model} answers by default: the "
                "newest that is loaded; unregister it, or name versions in the path"
            )
        text = (
            f'Default version successfully updated for model "{place.model}" '
            f'to "{wanted.spec.version}"'
        )
        return answer(dumps({"status": text}))

    def _not_allowed(self) -> Response:
        return failure(
            405,
            "Requested method is not allowed: clients may not load and unload models; "
            "start the server with --model-control",
            ("allow", "GET, PUT"),
        )

    def _described(self, table: ModelTable, model: ServedModel) -> dict[str, Any]:
        ready = table.model_ready(model)
        status = _STATES.get(model.state, "UNLOADING")
        pending = model.in_flight
        described = {
            "modelName": model.spec.name,
            "modelVersion": str(model.spec.version),
            "modelUrl": _file_name(model),
            "engine": model.identity.platform if model.identity else "",
            "runtime": "python",
            "minWorkers": self._workers,
            "maxWorkers": self._workers,
            "batchSize": self._options.max_batch,
            "maxBatchDelay": 0,
            # Of several workers the one that answers can tell of itself alone.
            "workers": [
                {
                    "id": str(os.getpid()),
                    "status": status if ready or status != "READY" else "LOADING",
                    "pid": os.getpid(),
                    "gpu": False,
                }
            ],
            "jobQueueStatus": {
                "remainingCapacity": max(0, self._options.max_queue - pending),
                "pendingRequests": pending,
            },
        }
        if not self._options.model_control:
            described["loadedAtStartup"] = True
        return described


def _file_name(model: ServedModel) -> str:
    """Where it comes from, without what clients need not know of this machine."""
    return PurePosixPath(model.spec.path).name


def _query(request: Request) -> dict[str, str]:
    try:
        return dict(parse_qsl(request.query, keep_blank_values=True, max_num_fields=64))
    except ValueError as error:
        raise InputError("the query has more than 64 parameters") from error


def _parameters(request: Request) -> dict[str, str]:
    """Parameters of the query, and of a JSON body, which clients send as well."""
    given = _query(request)
    kind, _ = media_type_of(request.headers.get("content-type"))
    if kind == "application/json" and request.body:
        for name, node in parse_object(request.body).items():
            value = plain(node)
            if value is not None and name not in given:
                given[name] = value if isinstance(value, str) else str(value)
    return given


def _integer(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, "")
    if not text:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise InputError(f"parameter {name} is {text[:40]!r}, expected an integer")
    return int(text)
