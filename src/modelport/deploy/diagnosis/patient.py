"""An endpoint that answers HTTP, and what it answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from modelport.core.errors import ModelportError
from modelport.deploy.verify.base import Answer, Ask
from modelport.deploy.verify.web import WebCarrier, send, shown


@dataclass(frozen=True)
class Patient:
    """An endpoint, asked route by route.

    Parameters
    ----------
    url : str
    base : str
        The path before the routes of contracts.
    platform : str
        Whose host it is: the target's name; empty: nobody's that is known.
    carrier : WebCarrier
    answers : dict
        By path below the base.
    """

    url: str
    base: str
    platform: str
    carrier: WebCarrier
    answers: dict[str, Answer]

    def get(self, path: str) -> Answer | None:
        """The answer at a path below the base, asked once; None when there is none."""
        if path not in self.answers:
            try:
                self.answers[path] = send(self.carrier, Ask("GET", self.base + path), self.url)
            except ModelportError:
                return None
        return self.answers[path]

    def names(self) -> list[str]:
        """The models that the server says it has."""
        for path in ("/v2/models", "/v1/models"):
            answer = self.get(path)
            found = read_json(answer) if answer is not None and answer.status == 200 else None
            models = found.get("models") if isinstance(found, dict) else found
            if isinstance(models, list):
                names = [m.get("name") if isinstance(m, dict) else m for m in models]
                return sorted({shown(name) for name in names if name})
        return []


def is_ok(answer: Answer | None) -> bool:
    """Whether a program answered 200: a page for people is none."""
    return (
        answer is not None
        and answer.status == 200
        and "html" not in answer.headers.get("content-type", "")
    )


def read_json(answer: Answer) -> Any:
    """The JSON of an answer; None where it is none."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
