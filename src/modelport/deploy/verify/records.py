"""What of a package's golden records is asked, or what is asked instead."""

from __future__ import annotations

import numpy as np

from modelport.core.errors import SignatureError
from modelport.core.golden import GoldenRecords
from modelport.core.package import Package
from modelport.core.tensors import BYTES, Array


def is_asked_row_by_row(package: Package) -> bool:
    """Whether every record is a request of its own: no row depends on the others."""
    return package.manifest.row_independent and package.manifest.signature.batch_symbol is not None


def replayable_records(package: Package, *, strict: bool) -> tuple[GoldenRecords | None, int]:
    """The records that can be sent, and how many cannot."""
    golden = package.golden()
    if golden is None:
        return None, 0
    signature = package.manifest.signature
    try:
        inputs = signature.check(golden.inputs)
    except SignatureError:  # the inner tensors of a model with processing
        return None, 0
    golden = GoldenRecords(inputs, golden.outputs)
    if not strict or signature.batch_symbol is None:
        return golden, 0
    keep = np.ones(golden.rows, dtype=bool)
    for array in inputs.values():
        if array.dtype.kind == "f":
            keep &= np.isfinite(array).reshape(golden.rows, -1).all(axis=1)
    if not keep.any():
        return None, golden.rows
    chosen = [{n: a[keep] for n, a in side.items()} for side in (inputs, golden.outputs)]
    return GoldenRecords(*chosen), int((~keep).sum())


def one_row(package: Package) -> dict[str, Array] | None:
    """A golden record, or a made-up row; all records where they depend on each other."""
    records, _ = replayable_records(package, strict=False)
    if records is None:
        return made_up_row(package)
    if is_asked_row_by_row(package):
        return {name: array[:1] for name, array in records.inputs.items()}
    return records.inputs


def made_up_row(package: Package) -> dict[str, Array] | None:
    """One row of zeros, empty texts for texts; None where encoded files would be needed."""
    row: dict[str, Array] = {}
    for spec in package.manifest.signature.inputs:
        if spec.dtype == BYTES:
            return None
        shape = tuple(size if isinstance(size, int) else 1 for size in spec.shape)
        fill = "" if spec.numpy_dtype.kind == "O" else 0
        row[spec.name] = np.full(shape, fill, dtype=spec.numpy_dtype)
    return row
