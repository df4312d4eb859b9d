"""Reading steps from JSON, strictly: unknown keys and other types are refused with their place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar

from modelport.core.errors import InputError
from modelport.core.steps import Column

AnyStep = TypeVar("AnyStep")


def read_step(kind: type[AnyStep], document: Mapping[str, Any], where: str) -> AnyStep:
    """Build a step of a plain object, field by field.

    Raises
    ------
    InputError
        For unknown keys, values of another type, and values that the step refuses, with the
        place.
    """
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    check_keys(document, known, where)
    values = {
        name: _READERS[str(known[name].type)](value, f"{where}.{name}")
        for name, value in document.items()
    }
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"a field is missing: {error}", where=where) from error
    except InputError as error:
        error.where = f"{where}.{error.where}"
        raise


def check_keys(document: Mapping[str, Any], known: Any, where: str) -> None:
    """Raise `InputError` for keys that are not among `known`."""
    for key in document:
        if key not in known:
            raise InputError(f"unknown key: {key!r}; there is: {', '.join(known)}", where=where)


def as_object(value: Any, where: str) -> Mapping[str, Any]:
    """`value`, if it is a JSON object."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f"not an object: {_shown(value)}", where=where)
    return value


def as_list(value: Any, where: str) -> list[Any]:
    """`value`, if it is a JSON array."""
    if not isinstance(value, list | tuple):
        raise InputError(f"not a list: {_shown(value)}", where=where)
    return list(value)


def as_type(value: Any, kind: type, where: str) -> Any:
    """`value`, if it is exactly a `kind`: true is no number."""
    if type(value) is not kind:
        raise InputError(f"not a {kind.__name__}: {_shown(value)}", where=where)
    return value


def _number(value: Any, where: str) -> float:
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"not a finite number: {_shown(value)}", where=where)
    return number


def _each(read: Callable[[Any, str], Any]) -> Callable[[Any, str], tuple[Any, ...]]:
    def several(value: Any, where: str) -> tuple[Any, ...]:
        return tuple(read(item, f"{where}[{i}]") for i, item in enumerate(as_list(value, where)))

    return several


def _text(value: Any, where: str) -> str:
    text: str = as_type(value, str, where)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"not text: {error}", where=where) from error
    return text


def _codes(value: Any, where: str) -> dict[str, float]:
    return {
        _text(name, where): _number(number, f"{where}.{name}")
        for name, number in as_object(value, where).items()
    }


def _optional_number(value: Any, where: str) -> float | None:
    return None if value is None else _number(value, where)


#: By a field's annotation, what reads its value.
_READERS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "str": _text,
    "int": lambda value, where: as_type(value, int, where),
    "bool": lambda value, where: as_type(value, bool, where),
    "float": _number,
    "float | None": _optional_number,
    "tuple[int, ...]": _each(lambda value, where: as_type(value, int, where)),
    "tuple[float, ...]": _each(_number),
    "tuple[str, ...]": _each(_text),
    "tuple[Column, ...]": _each(
        lambda value, where: read_step(Column, as_object(value, where), where)
    ),
    "Mapping[str, float]": _codes,
}


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 40 else text[:37] + "…"
