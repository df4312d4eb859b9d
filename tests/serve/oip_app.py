"""V2 over REST in this process: `App` on real packages, without a transport."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelport.adapters import find_adapter
from modelport.core.options import ServeOptions
from modelport.serve.app import App
from modelport.serve.base import ModelSpec, Request
from modelport.serve.discover import find_in_store
from modelport.serve.guard import Guard
from modelport.serve.metrics import metrics_of
from modelport.serve.models import LoadingOptions
from modelport.serve.table import ModelTable

HEADER = "inference-header-content-length"


class Answered:
    """One answer.

    Parameters
    ----------
    status : int
    headers : mapping of str to str
    body : bytes
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body, or its JSON part."""
        return json.loads(self.body[: int(self.headers.get(HEADER, len(self.body)))])

    def error(self) -> str:
        """What an error says, in the protocol's own shape."""
        document = self.json()
        assert list(document) == ["error"]
        assert self.headers["content-type"] == "application/json"
        return str(document["error"])


class OipApp:
    """The protocol on packages in folders.

    Parameters
    ----------
    specs : sequence of ModelSpec
    store : Path or None
        Clients may load models from here.
    """

    def __init__(self, specs: Sequence[ModelSpec], store: Path | None = None) -> None:
        self.options = ServeOptions(model_control=store is not None)
        find = find_in_store(str(store)) if store is not None else None
        self.table = ModelTable(specs, metrics_of(specs, 1), LoadingOptions(), find)
        self.table.load_all()
        protocol = find_adapter("protocol", "oip").load()
        self.app = App(self.table, [protocol], self.options, Guard([]))

    def ask(
        self,
        method: str,
        path: str,
        document: Any = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """One request; a body that is no `bytes` is sent as JSON."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        response = self.app.answer(Request(method, path, dict(headers or {}), body))
        return Answered(response.status, dict(response.headers), response.body)

    def infer(self, model: str, document: Any, buffers: bytes = b"") -> Answered:
        """An inference request; raw bytes may follow the document."""
        head = json.dumps(document).encode()
        headers = {HEADER: str(len(head))} if buffers else {}
        return self.ask("POST", f"/v2/models/{model}/infer", head + buffers, headers)
