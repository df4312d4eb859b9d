"""One order for every setting: flag > environment > platform > settings file > default.

A field ``port`` of an options dataclass is set by the flag ``--port``, by the variable
``MODELPORT_PORT``, or by a line ``port = 9000`` in the settings file: ``modelport.toml`` in
the working folder, or the file that ``MODELPORT_CONFIG`` names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from modelport.core.errors import InputError, NotFoundError

Options = TypeVar("Options")

PREFIX = "MODELPORT_"
FILE_VARIABLE = "MODELPORT_CONFIG"
DEFAULT_FILE = "modelport.toml"

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


def resolve(
    options: type[Options],
    flags: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    platform: Mapping[str, Any] | None = None,
) -> Options:
    """Build `options` from all these places.

    Parameters
    ----------
    options : type
        A dataclass whose fields are `str`, `int`, `float` or `bool`.
    flags : mapping
        Explicit values; None means "not given".
    environment : mapping
        Defaults to `os.environ`.
    platform : mapping
        What the platform that runs this process asks for by its own variables.

    Raises
    ------
    InputError
        When a value cannot be read as its field's type, with its place.
    """
    environment = os.environ if environment is None else environment
    file, file_values = _read_file(environment)
    chosen: dict[str, Any] = {}
    for item in fields(options):  # type: ignore[arg-type]
        variable = PREFIX + item.name.upper()
        flag = (flags or {}).get(item.name)
        if flag is not None:
            chosen[item.name] = flag
        elif variable in environment:
            chosen[item.name] = _convert(environment[variable], item.type, variable)
        elif platform and item.name in platform:
            chosen[item.name] = platform[item.name]
        elif item.name in file_values:
            where = f"{file}: {item.name}"
            chosen[item.name] = _convert(str(file_values[item.name]), item.type, where)
    return options(**chosen)


def _read_file(environment: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    named = environment.get(FILE_VARIABLE)
    path = Path(named or DEFAULT_FILE)
    if not path.is_file():
        if named:
            raise NotFoundError("settings file", named, where=FILE_VARIABLE)
        return path, {}
    import tomllib  # only who has a settings file pays for its parser

    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"settings file is not TOML: {error}", where=str(path)) from error


def _convert(text: str, kind: Any, where: str) -> Any:
    kind = kind if isinstance(kind, str) else kind.__name__
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "bool":
            if text.lower() in _TRUE | _FALSE:
                return text.lower() in _TRUE
            raise ValueError(text)
    except ValueError as error:
        raise InputError(f"not a {kind}: {text!r}", where=where) from error
    return text
