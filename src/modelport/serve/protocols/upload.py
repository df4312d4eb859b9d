"""Files and images: ``POST /predict``, multipart or raw.

``curl -F image=@cat.jpg``, ``curl --data-binary @cat.jpg``, a text, a form, or JSON: see
`modelport.serve.uploads.bodies`. A protocol of modelport's own; it has no other source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs

from modelport.core.errors import InputError, ModelportError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve.base import (
    JSON_HEADERS,
    Call,
    ModelIdentity,
    Place,
    Request,
    Response,
    Route,
)
from modelport.serve.json_codec import dumps
from modelport.serve.openapi import (
    INFERENCE_FAILURES,
    Schema,
    by_name,
    operation,
)
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable
from modelport.serve.uploads import bodies as uploads
from modelport.serve.uploads.labelled import best_labels, dumps_strict, label_outputs, rows_by_name

_PATTERN: Final = re.compile(r"/predict(?:/(?P<model>[^/]+))?")

_METHODS: Final = "OPTIONS, POST"


class Upload:
    """See the module."""

    name = "upload"
    carrier = "http"
    prefix = "/predict/"

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        return tuple(
            Route(method, _PATTERN, example, answer)
            for example in ("/predict", "/predict/{model}")
            for method, answer in (("POST", None), ("OPTIONS", _options))
        )

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        return Place(groups.get("model") or "")

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`."""
        wanted = _wanted(request.query, model)
        return Call(uploads.read(request, model).tensors, context=wanted)

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`."""
        names = label_outputs(model.signature)
        others = {n: array for n, array in outputs.items() if n not in (names or ())}
        if names is None:
            found = rows_by_name(others)
            return Response(
                200,
                dumps_strict({"predictions": found} if found is not None else {"outputs": others}),
            )
        several = len(model.signature.outputs_by_name[names[0]].shape) == 2
        predictions: list[dict[str, Any]] = []
        for position, best in enumerate(best_labels(outputs, names)):
            row = dict(best[0]) if best else {}
            if several:
                row["top_k"] = best[: call.context]
            predictions.append(row | _row_of(others, position, len(outputs[names[0]])))
        return Response(200, dumps_strict({"predictions": predictions}))

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        return Response(status_of(error), dumps({"error": error.line}))

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        if methods:
            allow = ("allow", ", ".join(methods))
            return Response(405, dumps({"error": "Method Not Allowed"}), (*JSON_HEADERS, allow))
        return Response(404, dumps({"error": "Not Found"}))

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        if route.method == "OPTIONS":
            return operation("Which methods the path takes", failures=(404,))
        one_of = label_outputs(model.signature)
        query = {"top_k": {"type": "integer", "minimum": 1}} if one_of else None
        return operation(
            "Files, texts or rows through the model",
            body=uploads.body_schemas(model.signature),
            answer={"application/json": _answer(model)},
            failures=INFERENCE_FAILURES,
            query=query,
        )


def _row_of(outputs: Mapping[str, Array], position: int, count: int) -> dict[str, Any]:
    """One row of outputs beside the labels; what has no rows stands there whole."""
    return {
        name: array[position] if array.ndim and len(array) == count else array
        for name, array in outputs.items()
    }


def _answer(model: ModelIdentity) -> Schema:
    if label_outputs(model.signature) is None:
        row: Schema = {"type": "object"}
    else:
        label = {"label": {"type": "string"}, "probability": {"type": ["number", "null"]}}
        top = {"type": "array", "items": {"type": "object", "properties": label}}
        row = {
            "type": "object",
            "required": list(label),
            "properties": {**label, "top_k": top},
        }
    return {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": row}, "outputs": by_name(())},
    }


def _wanted(query: str, model: ModelIdentity) -> int | None:
    """How many labels the client wants, by ``?top_k=``; None: all that there are."""
    if not query:
        return None
    texts = parse_qs(query, keep_blank_values=True).get("top_k")
    if texts is None:
        return None
    names = label_outputs(model.signature)
    if names is None:
        raise InputError("top_k: the model answers no labels")
    shape = model.signature.outputs_by_name[names[0]].shape
    most = shape[1] if len(shape) == 2 else 1
    text = texts[-1]
    wanted = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if wanted < 1 or (isinstance(most, int) and wanted > most):
        raise InputError(
            f"top_k is {text[:40]!r}; the model answers 1 to {most} labels per row",
            hint="pack it with a larger --top-k",
        )
    return wanted


def _options(table: ModelTable, place: Place, request: Request) -> Response:
    if place.model:
        table.get(place.model)
    return Response(200, b"", (("allow", _METHODS),))
