"""Answers to requests that never were any: what transports refuse by themselves, and count."""

from __future__ import annotations

from modelport.serve.app import App
from modelport.serve.base import Response
from modelport.serve.json_codec import dumps


def refuse_plainly(app: App, status: int, message: str) -> Response:
    """Answer what cannot be read as a request, or never came to its end.

    No protocol is responsible, so the error has the shape that most of them share; and no key is
    looked at, as the answer says nothing about what is served.

    Parameters
    ----------
    app : App
        Counts it, under no model.
    status : int
    message : str
    """
    counters, _ = app.table.metrics.model(0)
    counters.started()
    counters.answered(status, 0.0)
    return Response(status, dumps({"error": message}))
