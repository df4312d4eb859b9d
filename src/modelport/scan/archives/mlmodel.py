"""The part of an ``MLmodel`` file that says what flavors there are.

The file is YAML as PyYAML writes it: a block mapping of mappings. Its ``flavors`` need a few
lines of it only, so that no YAML library is asked (and none can be tricked): anything beyond
plain and quoted texts is not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from modelport.core.errors import InputError

Flavors = Mapping[str, Mapping[str, str]]

_LINE = re.compile(r"( *)([\w.\-]+):(?: (.*))?", re.ASCII)
_NOTHING: Final = frozenset({"", "null", "~", "''", '""'})
_SPECIAL: Final = tuple("!&*|>{[%@`")


def read_flavors(content: bytes, where: str) -> Flavors:
    """The entries of each flavor by name; only those that are texts, and not nested deeper.

    Raises
    ------
    InputError
        When there are none.
    """
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"MLmodel is not text: {error}", where=where) from error
    flavors: dict[str, dict[str, str]] = {}
    inside, current, indents = False, "", [0]
    for line in lines:
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            continue  # items of lists, and the rest of long texts
        indent, key, value = len(match[1]), match[2], (match[3] or "").strip()
        if indent == 0:
            inside = key == "flavors"
        elif inside:
            while indents[-1] > indent:
                indents.pop()
            if indent > indents[-1]:
                indents.append(indent)
            if len(indents) == 2:
                current = key
                if key in flavors:
                    raise InputError(f"MLmodel has the flavor {key} twice", where=where)
                flavors[key] = {}
            elif len(indents) == 3:
                flavors[current][key] = _text(value)
    if not flavors:
        raise InputError("MLmodel names no flavor", where=where, hint="save the model again")
    return flavors


def _text(value: str) -> str:
    """The text; empty for what is none."""
    if value in _NOTHING or value.startswith(_SPECIAL):
        return ""
    if value[0] == value[-1] and value[0] in "'\"" and len(value) > 1:
        return value[1:-1].replace("''", "'")
    return value
