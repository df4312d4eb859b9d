"""Compare texts with files in ``golden/``; ``UPDATE_GOLDEN=1`` writes them anew."""

from __future__ import annotations

import os
from difflib import unified_diff
from pathlib import Path
from typing import Final

from modelport.core.package import Package
from modelport.deploy.limits import amount

_FOLDER: Final = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str, package: Package) -> None:
    """Hold `text` against ``golden/NAME``.

    What depends on the versions that wrote the package (its digest and size) is replaced by words.
    """
    hexadecimal = package.digest.removeprefix("sha256:")
    for found, word in (
        (hexadecimal, "DIGEST"),
        (hexadecimal[:12], "TAG"),
        (amount(package.size, "bytes"), "SIZE"),
    ):
        text = text.replace(found, word)
    path = _FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"{path} is missing: UPDATE_GOLDEN=1 writes it"
    golden = path.read_text(encoding="utf-8")
    changes = unified_diff(golden.splitlines(), text.splitlines(), str(path), "now", lineterm="")
    assert text == golden, "\n".join(changes)
