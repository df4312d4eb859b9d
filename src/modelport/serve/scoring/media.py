"""Media types: what a body is, and what the answer shall be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from modelport.core.errors import MediaTypeError, NotAcceptableError

JSON: Final = "application/json"
JSON_LINES: Final = "application/jsonlines"
CSV: Final = "text/csv"
NPY: Final = "application/x-npy"
PARQUET: Final = "application/vnd.apache.parquet"
OCTETS: Final = "application/octet-stream"
TEXT: Final = "text/plain"
IMAGE: Final = "application/x-image"
#: Triton on SageMaker: V2 JSON, then raw tensors; `V2_JSON_SIZE` says how much of it is JSON.
V2_BINARY: Final = "application/vnd.sagemaker-triton.binary+json"
V2_JSON_SIZE: Final = "json-header-size"

#: Other names in use.
_SAME: Final = {
    "application/jsonl": JSON_LINES,
    "application/x-jsonlines": JSON_LINES,
    "application/x-ndjson": JSON_LINES,
    "application/x-parquet": PARQUET,
}

#: What a client may say about a body beside its character set.
_PARAMETERS: Final = {CSV: ("header", "label_size"), V2_BINARY: (V2_JSON_SIZE,)}


def canonical(name: str) -> str:
    """One name for each format."""
    return _SAME.get(name, name)


def parse(header: str) -> tuple[str, dict[str, str]]:
    """A media type in lower case, and its parameters."""
    name, *parts = header.split(";")
    parameters = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key.strip():
            parameters[key.strip().lower()] = value.strip().strip('"')
    return name.strip().lower(), parameters


def content_type(header: str | None) -> tuple[str, dict[str, str]]:
    """The format of a body and its parameters; without a header: JSON.

    Raises
    ------
    MediaTypeError
        For a character set other than UTF-8, and for parameters that would change how the body
        is to be read: ``format=pandas-split`` of MLflow 1 (source: ``mlflow``,
        ``pyfunc/scoring_server/__init__.py: invocations``).
    """
    if not header or not header.strip():
        return JSON, {}
    name, parameters = parse(header)
    name = canonical(name)
    charset = parameters.pop("charset", "utf-8").lower()
    textual = name in (JSON, JSON_LINES, CSV, TEXT)
    if textual and charset not in ("utf-8", "utf8", "us-ascii"):
        raise MediaTypeError(f"the body is in {charset[:40]}; only UTF-8 is read")
    if textual or name == V2_BINARY:
        for key in parameters:
            if key not in _PARAMETERS.get(name, ()):
                raise MediaTypeError(f"parameter {key[:40]!r} of {name} is not known")
    return name, parameters


def negotiate(header: str | None, offers: Collection[str], default: str) -> str:
    """The media type of the answer, of those that a client accepts the one it likes most.

    Parameters
    ----------
    header : str or None
        ``Accept``; absent, empty or ``*/*``: the default.
    offers : collection of str
        What can be written.
    default : str
        One of `offers`.

    Raises
    ------
    NotAcceptableError
        Listing what there is.
    """
    if not header or not header.strip():
        return default
    accepted = [_range(part) for part in header.split(",") if part.strip()]
    refused = {name for name, quality in accepted if quality == 0}
    left = [offer for offer in offers if offer not in refused]
    for name, quality in sorted(accepted, key=lambda item: -item[1]):
        if quality > 0 and (found := _match(name, left, default)):
            return found
    raise NotAcceptableError(
        f"the answer cannot be {header.strip()[:80]}; it can be {', '.join(offers)}"
    )


def _match(name: str, offers: Sequence[str], default: str) -> str:
    family, _, kind = name.partition("/")
    if kind != "*":
        return name if canonical(name) in offers else ""
    fitting = [o for o in offers if family == "*" or o.startswith(f"{family}/")]
    return default if default in fitting else next(iter(fitting), "")


def _range(part: str) -> tuple[str, float]:
    name, parameters = parse(part)
    try:
        quality = float(parameters.get("q", 1))
    except ValueError:
        quality = 1.0
    return name, quality if 0 <= quality <= 1 else 1.0
