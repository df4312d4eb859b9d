"""``--set key=value``: from text to a target's settings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import Field, field, fields
from typing import Any, Final, TypeVar

from modelport.core.errors import InputError, NotFoundError
from modelport.deploy.base import Settings

Chosen = TypeVar("Chosen", bound=Settings)

_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")
_LABEL: Final = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_WORDS: Final = {int: "a whole number", float: "a number", bool: "yes or no", str: "a text"}
_UNITS: Final = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30,
}  # fmt: skip


def setting(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:  # noqa: A002
    """A field of a target's settings.

    Parameters
    ----------
    default : str, int, float or bool
        Its type is the setting's type. An empty text: the user has to set it, or the target finds
        it out; the target says which.
    help : str
        For ``deploy --to TARGET --help``-like listings: what it is, in a few words.
    choices : tuple of str
        The only values, if not empty.
    """
    return field(default=default, metadata={"help": help, "choices": choices})


def read_settings(kind: type[Chosen], pairs: Iterable[str]) -> Chosen:
    """Read ``key=value`` pairs.

    Raises
    ------
    NotFoundError
        When the target has no such setting, with those that it has.
    InputError
        When a pair is none, or a value is not of the setting's type.
    """
    known = {item.name.replace("_", "-"): item for item in fields(kind)}
    chosen: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise InputError(f"not a setting: {pair!r}", hint="--set key=value")
        item = known.get(key.strip().replace("_", "-"))
        if item is None:
            raise NotFoundError("setting", key, list(known), where=f"--set {pair}")
        chosen[item.name] = _convert(item, text.strip(), pair)
    return kind(**chosen)


def describe_settings(kind: type[Settings]) -> list[tuple[str, str, str]]:
    """Key, default and help of every setting."""
    rows = []
    for item in fields(kind):
        choices = item.metadata.get("choices", ())
        text = item.metadata["help"] + (f" ({', '.join(choices)})" if choices else "")
        rows.append((item.name.replace("_", "-"), str(item.default), text))
    return rows


def key_of(pair: str) -> str:
    """What a ``key=value`` pair sets, as `describe_settings` spells it."""
    return pair.partition("=")[0].strip().replace("_", "-")


def service_name(text: str) -> str:
    """`text` as a DNS label.

    Raises
    ------
    InputError
        When it cannot be one.
    """
    name = re.sub(r"[._]", "-", text)
    if not _LABEL.fullmatch(name):
        raise InputError(
            f"not a service name: {text!r}",
            hint="--set name=…: lower-case letters, digits and dashes, at most 63",
        )
    return name


def quantity(text: str, where: str) -> int:
    """Bytes, as Kubernetes writes them: ``512Mi``, ``2G``.

    Raises
    ------
    InputError
        When it is no such quantity.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(k|M|G|Ki|Mi|Gi)?", text)
    if match is None:
        raise InputError(f"not an amount of memory: {text!r}", where=where, hint="512Mi, 2Gi")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def mebibytes(size: int) -> str:
    """Bytes as Kubernetes writes them, rounded up: ``512Mi``."""
    return f"{-(-size // (1 << 20))}Mi"


def _convert(item: Field[Any], text: str, pair: str) -> Any:
    choices = item.metadata.get("choices", ())
    if choices and text not in choices:
        raise NotFoundError("value", text, list(choices), where=f"--set {pair}")
    kind: type[Any] = type(item.default)
    try:
        if kind is bool:
            if text.lower() in _TRUE + _FALSE:
                return text.lower() in _TRUE
            raise ValueError(text)
        return kind(text)
    except ValueError as error:
        raise InputError(f"not {_WORDS[kind]}: {text!r}", where=f"--set {pair}") from error
