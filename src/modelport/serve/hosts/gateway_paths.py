"""Which of our paths a gateway means: its own stages and base paths stand in front."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

_PARAMETER: Final = re.compile(r"\{([^{}+]+)\+?\}")


def inner_path(
    path: str,
    *,
    template: str = "",
    parameters: Mapping[str, Any] | None = None,
    stage: str = "",
    base: str = "",
) -> str:
    """A path, decoded, without what the gateway put in front of it.

    Parameters
    ----------
    path : str
        As the event has it.
    template : str
        The route that the gateway matched, as ``/{proxy+}``; empty if it does not tell.
    parameters : mapping
        Of the template. What stands before the template, filled in, is the gateway's: a stage, or
        a mapping of a domain name.
    stage : str
        The stage, where it is in front and no template tells it.
    base : str
        What the user says is in front.

    Returns
    -------
    str
        Begins with a slash.
    """
    path = unquote(path)
    front = _before(path, template, parameters or {})
    path = without_front(path, stage) if front is None else path[len(front) :]
    return without_front(path, base) or "/"


def query_of(values: Sequence[tuple[str, str]]) -> str:
    """A query string of decoded pairs."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in values)


def _before(path: str, template: str, parameters: Mapping[str, Any]) -> str | None:
    """What precedes the filled-in template in a path; None when that cannot be told."""
    if not template.startswith("/"):
        return None
    filled = unquote(_PARAMETER.sub(lambda m: str(parameters.get(m[1], m[0])), template))
    if not path.endswith(filled):
        return None
    front = path[: len(path) - len(filled)]
    return front if front == "" or front.startswith("/") else None


def without_front(path: str, front: str) -> str:
    """A path without the segments in front of it, if it has them; ``/`` when nothing is left."""
    front = "/" + front.strip("/") if front.strip("/") else ""
    if front and (path == front or path.startswith(f"{front}/")):
        return path[len(front) :] or "/"
    return path
