"""Plain data as the text of YAML and JSON files: the same data, the same bytes."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import yaml

#: What YAML 1.2 and Go's YAML take for a number, and PyYAML, which follows 1.1, leaves unquoted.
_NUMBER: Final = re.compile(r"[-+]?(\.?\d[\d_]*(\.[\d_]*)?([eE][-+]?\d+)?|0[xob][\da-fA-F_]+)")
#: And for true and false.
_BOOLEANS: Final = ("y", "Y", "n", "N")


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # it comes without types
    """Block style, no aliases, texts of several lines as they are."""

    def ignore_aliases(self, data: Any) -> bool:
        """Every value is written where it stands."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Lists are indented below their key."""
        super().increase_indent(flow, False)


def _text(dumper: _Dumper, value: str) -> Any:
    quoted = _NUMBER.fullmatch(value) or value in _BOOLEANS
    style = "|" if "\n" in value else "'" if quoted else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(*documents: Any, comment: str = "") -> str:
    """YAML documents in the order of their keys, after a comment."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    parts = [
        yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
        for document in documents
    ]
    return head + "---\n".join(parts)


def to_json(document: Any) -> str:
    """A JSON document with two spaces and a newline at its end."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
