"""Variants that were made already, so that a run that was interrupted goes on where it ended.

::

    FOLDER/KEY/0.json, 0.onnx, 1.json, 1.onnx …, done

The key holds everything that a pass's variants depend on: the pass, the model that it changes, the
rows, and modelport's version. Files are written beside and renamed; a pass without ``done`` is
run again.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelport import __version__
from modelport.core.digest import canonical_json, sha256_bytes
from modelport.core.package import write_durably
from modelport.core.tensors import Tensors
from modelport.optimize.base import Pass, Progress, Subject, Variant

_DONE: Final = "done"


def rows_digest(rows: Tensors) -> str:
    """Of everything in some rows."""
    parts = []
    for name, array in sorted(rows.items()):
        plain = array if array.dtype != object else array.astype(np.str_)
        parts.append([name, str(plain.dtype), list(plain.shape), sha256_bytes(plain.tobytes())])
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
        write_durably(place / f"{_DONE}.new", str(count).encode())
        (place / f"{_DONE}.new").replace(place / _DONE)

    def clear(self) -> None:
        """A run that ended needs it no more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _key(self, one: Pass, subject: Subject) -> str:
        plain: list[Any] = [
            __version__, one.name, sha256_bytes(subject.variant.model), self.rows,
            subject.max_drop, subject.threads,
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
    )
