"""What a module returns, as named tensors: tuples, dictionaries, dataclasses, any nesting."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from modelport.core.errors import UnsupportedError

_ONLY = "output"


def named_tensors(result: Any, taken: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """The tensors in a module's result, in order, by name.

    A dictionary, a named tuple or a dataclass names its parts; parts of a tuple have their
    numbers. A part that is None is left out, and so are numbers and texts.

    Parameters
    ----------
    result : object
        What ``forward`` returned.
    taken : collection of str
        Names of inputs: ONNX has one space of names.

    Raises
    ------
    UnsupportedError
        When there is something else in it, or no tensor at all.
    """
    named: dict[str, torch.Tensor] = {}
    for path, tensor in _leaves(result, ()):
        name = "_".join(path) if path else _ONLY
        if not path or path[0].isdigit():
            name = "_".join((_ONLY, *path))
        while name in named or name in taken:
            name += "_out"
        named[name] = tensor
    if not named:
        raise UnsupportedError("the model returns no tensor")
    (first, *others) = named
    if not others and re.fullmatch(r"output(_\d+)*(_out)*", first):
        return {f"{_ONLY}_out" if _ONLY in taken else _ONLY: named[first]}
    return named


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, (*path, _word(key)))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, part in zip(value._fields, value, strict=True):
            yield from _leaves(part, (*path, _word(key)))
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name), (*path, _word(field.name)))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _leaves(part, (*path, str(number)))
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise UnsupportedError(
            f"the model returns a {type(value).__name__}",
            hint="return tensors, or tuples, dictionaries and dataclasses of them",
        )


def _word(key: Any) -> str:
    return "".join(c if c.isalnum() or c == "_" else "_" for c in str(key)) or "_"
