"""From the picked variant to an artifact that says where it comes from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from modelport.core.artifact import Artifact
from modelport.core.compare import Tolerance
from modelport.core.golden import GoldenRecords
from modelport.core.package import BASELINE, Package
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import Variant

REPORT: Final = "optimization.json"

#: What the widest error is multiplied by: another processor rounds otherwise.
_MARGIN: Final = 2.0


def emit(
    package: Package,
    variant: Variant,
    report: dict[str, Any],
    answer: Callable[[Tensors], Tensors],
) -> Artifact:
    """The artifact of a variant.

    Its golden records are the parent's: the source model's answers, with a tolerance that is
    measured, and without the rows whose label it changed, or for which it answers NaN or infinity;
    the report says how many.

    Parameters
    ----------
    package : Package
        The parent.
    variant : Variant
    report : dict
        Goes into the package as ``optimization.json``, with what is found here.
    answer : callable
        From the package's inputs to the variant's answers.
    """
    manifest = package.manifest
    golden, tolerance, found = _golden(package, answer)
    document = {**report, "parent": package.digest, "golden": found}
    files = {
        name: (package.path / name).read_bytes()
        for name in (manifest.processing.files if manifest.processing else ())
    }
    files |= {**variant.files, manifest.model_file: variant.model}
    files[REPORT] = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
    return Artifact(
        engine=variant.engine,
        model_file=manifest.model_file,
        files=files,
        signature=manifest.signature,
        task=manifest.task,
        tolerance=tolerance,
        golden=golden,
        row_independent=manifest.row_independent and variant.row_independent,
        parity=_parity(manifest.parity, variant),
        baseline=json.loads((package.path / BASELINE).read_bytes()),
        provenance={
            **manifest.provenance,
            "parent": package.digest,
            "optimization": report["sentence"],
        },
        processing=manifest.processing,
    )


def _parity(parent: Any, variant: Variant) -> dict[str, Any]:
    note = f"this is the parent's parity; {variant.name} then changed it, see {REPORT}"
    return {**parent, "notes": [*parent.get("notes", ()), note]}


def _golden(
    package: Package, answer: Callable[[Tensors], Tensors]
) -> tuple[GoldenRecords | None, Tolerance, dict[str, Any]]:
    """The records that hold, the tolerance they need, and what to say about them."""
    records, tolerance = package.golden(), package.manifest.tolerance
    if records is None:
        return None, tolerance, {"records": 0}
    found = answer(records.inputs)
    same = np.ones(records.rows, dtype=bool)
    for name, expected in records.outputs.items():
        unequal = _incomparable(expected, found[name])
        same &= ~unequal.reshape(records.rows, -1).any(axis=1)
    needed = max(
        (_needed(expected[same], found[name][same], tolerance.relative)
         for name, expected in records.outputs.items() if expected.dtype.kind == "f"),
        default=0.0,
    )  # fmt: skip
    wide = replace(tolerance, absolute=max(tolerance.absolute, _rounded_up(_MARGIN * needed)))
    told = {
        "records": int(same.sum()),
        "labels_changed": int((~same).sum()),
        "tolerance": wide.to_json(),
    }
    if not same.any():
        return None, wide, told
    return GoldenRecords(_chosen(records.inputs, same), _chosen(records.outputs, same)), wide, told


def _incomparable(expected: Array, found: Array) -> Array:
    """Elements that no tolerance makes agree: other labels, and NaN or infinity for a number."""
    unequal = np.asarray(expected != found, dtype=bool)
    if expected.dtype.kind != "f":
        return unequal
    finite = np.isfinite(expected) & np.isfinite(found)
    return unequal & ~finite & ~(np.isnan(expected) & np.isnan(found))


def _needed(expected: Array, found: Array, relative: float) -> float:
    """The absolute tolerance that makes two outputs agree; see `modelport.core.compare`."""
    reference, other = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(reference) & np.isfinite(other)
    magnitude = np.abs(np.where(finite, reference, 0.0))
    error = np.abs(np.where(finite, other - reference, 0.0))
    by_column = magnitude.ndim == 2 and len(magnitude) >= 8
    scale = np.maximum(1.0, magnitude.max(axis=0 if by_column else None, initial=0.0))
    return float(np.max((error - relative * magnitude) / scale, initial=0.0))


def _rounded_up(value: float) -> float:
    """To two digits."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.2g}")


def _chosen(tensors: Tensors, rows: Array) -> dict[str, Array]:
    return {name: array[rows] for name, array in tensors.items()}
