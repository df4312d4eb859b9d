"""From answers to what is said of them."""

from __future__ import annotations

import numpy as np

from modelport.core.compare import compare
from modelport.core.golden import GoldenRecords
from modelport.core.package import Package
from modelport.core.tensors import Array, Tensors
from modelport.deploy.verify.base import Verification
from modelport.deploy.verify.records import is_asked_row_by_row


def compared(
    url: str,
    name: str,
    package: Package,
    records: GoldenRecords,
    left_out: int,
    outputs: Tensors,
    seconds: tuple[float, ...],
    *,
    strict: bool,
) -> Verification:
    """Hold the answers to all records against the expected ones.

    Parameters
    ----------
    url, name : str
        The endpoint and its protocol.
    package : Package
    records : GoldenRecords
    left_out : int
        How many the protocol cannot carry.
    outputs : mapping of str to ndarray
        The answers.
    seconds : tuple of float
        How long each request took.
    strict : bool
        NaN and infinities travel as null.
    """
    expected = {n: _sendable(a) if strict else a for n, a in records.outputs.items()}
    tolerance = package.manifest.tolerance
    return Verification(
        url, name, records.rows, left_out, tuple(compare(expected, outputs, tolerance)),
        tolerance, seconds,
        _differing(expected, outputs, package) if is_asked_row_by_row(package) else (),
    )  # fmt: skip


def nothing_compared(
    url: str, name: str, package: Package, left_out: int, seconds: tuple[float, ...]
) -> Verification:
    """What is said where the package has no record that this protocol carries."""
    return Verification(url, name, 0, left_out, (), package.manifest.tolerance, seconds)


def _differing(expected: Tensors, actual: Tensors, package: Package) -> tuple[int, ...]:
    """The records that lie outside the tolerance, held as all of them are: together.

    Every other record is taken as right, so that the scale stays that of all records.
    """
    found: set[int] = set()
    for name, array in expected.items():
        other = actual.get(name)
        if other is None or other.shape != array.shape:
            return tuple(range(len(array)))
        for row in range(len(array)):
            mixed = array.copy()
            mixed[row] = other[row]
            (comparison,) = compare({name: array}, {name: mixed}, package.manifest.tolerance)
            if not comparison.agrees:
                found.add(row)
    return tuple(sorted(found))


def _sendable(array: Array) -> Array:
    """With NaN for what travels as null."""
    if array.dtype.kind != "f":
        return array
    return np.where(np.isfinite(array), array, np.array(np.nan, array.dtype))


def to_json(verification: Verification) -> dict[str, object]:
    """A verification as plain data."""
    return {
        "url": verification.url,
        "protocol": verification.protocol,
        "agrees": verification.agrees,
        "records": verification.records,
        "left_out": verification.left_out,
        "differing_records": list(verification.differing_records),
        "tolerance": verification.tolerance.to_json(),
        "outputs": [
            {
                "name": c.name,
                "elements": c.elements,
                "differing": c.differing,
                "max_absolute": c.max_absolute,
                "max_relative": c.max_relative,
                "flips": c.differing if c.exact else c.argmax_flips,
                "problem": c.problem,
                "agrees": c.agrees,
            }
            for c in verification.comparisons
        ],
        "seconds": {
            "median": float(np.median(verification.seconds)) if verification.seconds else None,
            "largest": max(verification.seconds, default=None),
        },
    }
