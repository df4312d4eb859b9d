"""Variants that were made already, so that a run that was interrupted goes on where it ended.

::

    FOLDER/KEY/0.json, 0.onnx, 1.json, 1.onnx …, done

The key holds everything that a pass's variants depend on: the pass, the variant that it changes,
the rows with their right answers, the task, and modelport's version. Files are written beside and
renamed; a pass without ``done``, interrupted or out of time, is run again.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelport import __version__
from modelport.core.digest import canonical_json, sha256_bytes
from modelport.core.package import write_durably
from modelport.core.tensors import Tensors
from modelport.optimize.base import OWN_STUDENT, Pass, Progress, Subject, Variant

_DONE: Final = "done"


def rows_digest(rows: Tensors) -> str:
    """Of everything in some rows."""
    parts = []
    for name, array in sorted(rows.items()):
        is_text = array.dtype.kind in "OU"  # as NumPy has texts, each takes as much as the longest
        plain = json.dumps([str(v) for v in array.flat]).encode() if is_text else array.tobytes()
        parts.append([name, str(array.dtype), list(array.shape), sha256_bytes(plain)])
    return sha256_bytes(canonical_json(parts))


@dataclass(frozen=True)
class Shelf:
    """Where variants are kept.

    Parameters
    ----------
    folder : Path
    rows : str
        The digest of the calibration rows.
    """

    folder: Path
    rows: str

    def variants(self, one: Pass, subject: Subject, report: Progress) -> Iterator[Variant]:
        """What a pass makes of a subject, now or in an earlier run."""
        place = self.folder / self._key(one, subject)
        if (place / _DONE).is_file():
            count = int((place / _DONE).read_text())
            report(f"  {count} of {one.name} are there from an earlier run")
            yield from (_read(place, index, subject.variant) for index in range(count))
            return
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        count = 0
        for variant in one.variants(subject, report):
            _write(place, count, variant)
            count += 1
            yield variant
        if time.monotonic() >= subject.deadline:
            return  # with more time it may make more
        write_durably(place / f"{_DONE}.new", str(count).encode())
        (place / f"{_DONE}.new").replace(place / _DONE)

    def clear(self) -> None:
        """A run that ended needs it no more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _key(self, one: Pass, subject: Subject) -> str:
        variant = subject.variant
        plain: list[Any] = [
            __version__, one.name, self.rows, subject.max_drop, subject.threads, subject.task,
            "" if subject.target is None else rows_digest({"": subject.target}),
            sha256_bytes(variant.model), variant.name, variant.engine,
            json.dumps(dict(variant.detail), sort_keys=True),
            {name: sha256_bytes(data) for name, data in variant.files.items()},
            # The user's code may have changed since.
            secrets.token_hex() if one.name == OWN_STUDENT else "",
        ]  # fmt: skip
        return sha256_bytes(canonical_json(plain))[:24]


def _write(place: Path, index: int, variant: Variant) -> None:
    files = {name: base64.b64encode(data).decode() for name, data in variant.files.items()}
    document = {
        "name": variant.name,
        "passes": list(variant.passes),
        "detail": dict(variant.detail),
        "files": files,
        "row_independent": variant.row_independent,
        "engine": variant.engine,
    }
    write_durably(place / f"{index}.onnx", variant.model)
    write_durably(place / f"{index}.json", json.dumps(document).encode())


def _read(place: Path, index: int, parent: Variant) -> Variant:
    document = json.loads((place / f"{index}.json").read_bytes())
    return Variant(
        name=document["name"],
        model=(place / f"{index}.onnx").read_bytes(),
        passes=tuple(document["passes"]),
        detail=document["detail"],
        files={name: base64.b64decode(data) for name, data in document["files"].items()},
        row_independent=document["row_independent"] and parent.row_independent,
        engine=document["engine"],
    )
