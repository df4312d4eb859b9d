"""Whether an export gives the source model's answers, on rows that people use.

All rows are run through the export in batches of 1, 2, 7 and all at once, and in reverse order;
every answer is compared with the source model's. Whether a row's answer depends on the rows
beside it follows from the same runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from modelport.core.compare import TOLERANCES, OutputComparison, Tolerance, compare
from modelport.core.golden import choose_rows
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import Array, Tensors, TensorSpec
from modelport.engines.base import LoadedModel

#: Sizes that take other code paths: vectors, tails of vectors, one row.
BATCHES: Final = (1, 2, 7)
#: Small batches are run on at most so many executions, evenly spread over the rows.
_EXECUTIONS: Final = 1000


@dataclass(frozen=True)
class ServedRows:
    """Rows as the served model receives them.

    Parameters
    ----------
    inputs : dict of str to ndarray
        Bound to the export's signature, in its element types.
    seen : Rows
        The same values for the source model, at its precision and without its own rounding.
    exact : bool
        Whether the element types of the signature hold the given values exactly.
    """

    inputs: dict[str, Array]
    seen: Rows
    exact: bool


def serve_rows(rows: Rows, signature: Signature) -> ServedRows:
    """Bind `rows` to `signature`, and show what is left of them.

    Raises
    ------
    SignatureError
        When the rows do not fit.
    """
    inputs = rows.bind(signature)
    by_name = inputs.keys() <= rows.columns.keys()
    given = rows.columns if by_name else rows.bind(_widest(signature))
    # The source may also want columns that the export found it does not use.
    columns = dict(rows.columns) if by_name else {}
    exact = True
    for name, array in inputs.items():
        seen = _at_precision_of(given[name], array)
        columns[name] = seen
        exact = exact and _same_values(given[name], seen)
    return ServedRows(inputs, Rows(columns, rows.where), exact)


def _widest(signature: Signature) -> Signature:
    """The signature with float64 in place of other floating-point types."""
    wide = [
        TensorSpec(s.name, "float64", s.shape, s.columns) if s.numpy_dtype.kind == "f" else s
        for s in signature.inputs
    ]
    return Signature(tuple(wide), signature.outputs)


def _at_precision_of(given: Array, served: Array) -> Array:
    """The served values, in the precision that the source model was given."""
    served = served.reshape(given.shape)
    if served.dtype.kind == "f":
        return served.astype(given.dtype if given.dtype.kind == "f" else np.float64)
    if served.dtype == object and given.dtype == object:
        # A missing text is served as an empty one; the source knows it as missing.
        missing = np.reshape([_is_missing(item) for item in given.ravel()], given.shape)
        return np.where(missing, given, served)
    return served


def _is_missing(item: Any) -> bool:
    return item is None or (isinstance(item, float) and item != item)


def _same_values(given: Array, seen: Array) -> bool:
    if given.dtype.kind not in "biuf" or seen.dtype.kind not in "biuf":
        return True
    return np.array_equal(given.astype(np.float64), seen.astype(np.float64), equal_nan=True)


def tolerance_for(signature: Signature, expected: Tensors) -> Tolerance:
    """What "the same answer" means for this model.

    The tolerance is that of the least precise floating-point output. It is made for answers
    around 1; where a single output is all smaller (a rate, a probability of something rare), its
    absolute part shrinks with it.
    """
    floats = [spec for spec in signature.outputs if spec.numpy_dtype.kind == "f"]
    coarsest = min((s.dtype for s in floats), key=lambda d: np.dtype(d).itemsize, default="float32")
    tolerance = TOLERANCES[coarsest]
    if len(floats) == 1 and floats[0].name in expected:
        array = expected[floats[0].name].astype(np.float64)
        largest = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
        if 0.0 < largest < 1.0:
            return Tolerance(tolerance.relative, float(f"{tolerance.absolute * largest:.3g}"))
    return tolerance


def as_served(expected: Tensors, signature: Signature) -> dict[str, Array]:
    """The source model's answers in the element types that are served."""
    with np.errstate(over="ignore"):
        return {s.name: expected[s.name].astype(s.numpy_dtype) for s in signature.outputs}


@dataclass(frozen=True)
class RowsVerdict:
    """What the comparison on the rows found.

    Parameters
    ----------
    rows : int
        How many there were.
    outputs : list of OutputComparison
        Per output, the worst over all batches.
    batches : list of int
        Sizes that were run; the last is all rows.
    row_independent : bool
        See `modelport.core.artifact.Artifact`.
    notes : list of str
        What was not compared.
    """

    rows: int
    outputs: list[OutputComparison]
    batches: list[int]
    row_independent: bool
    notes: list[str]

    @property
    def label_flips(self) -> int:
        """Elements of integer, boolean and string outputs that differ."""
        return sum(output.differing for output in self.outputs if output.exact)

    @property
    def agrees(self) -> bool:
        """Whether every answer is inside the tolerance."""
        return all(output.agrees for output in self.outputs)


def compare_rows(
    model: LoadedModel,
    signature: Signature,
    inputs: Tensors,
    expected: Tensors,
    tolerance: Tolerance,
) -> RowsVerdict:
    """Run all rows in batches of several sizes and compare every answer.

    Parameters
    ----------
    model : LoadedModel
        The export, as it will be served.
    inputs : mapping of str to ndarray
        All rows, bound to `signature`.
    expected : mapping of str to ndarray
        The source model's answers for them, at its own precision.

    Raises
    ------
    EngineError
        When the export fails on a batch.
    """
    expected = {spec.name: expected[spec.name] for spec in signature.outputs}
    whole = model.run(inputs)
    outputs = compare(expected, whole, tolerance)
    first = next(iter(inputs.values()))
    count = len(first) if first.ndim else 1
    if any(output.problem for output in outputs):
        return RowsVerdict(count, outputs, [], False, [])
    if signature.batch_symbol is None:
        note = "the model has no batch dimension: it was run on the rows at once, as they are"
        return RowsVerdict(count, outputs, [], False, [note])
    notes: list[str] = []
    independent = True
    for size in (*(b for b in BATCHES if b < count), count):
        chosen = _choose(count, size)
        if size == count:
            chosen = chosen[::-1]  # the same batch in another composition
        elif len(chosen) < count:
            notes.append(f"batches of {size} were run on {len(chosen)} of {count} rows")
        actual = _run_in_batches(model, _take(inputs, chosen), size)
        independent = independent and _all_agree(compare(_take(whole, chosen), actual, tolerance))
        outputs = _worse(outputs, compare(_take(expected, chosen), actual, tolerance), chosen)
    batches = [*(b for b in BATCHES if b < count), count]
    return RowsVerdict(count, outputs, batches, independent and count > 1, notes)


def _choose(count: int, size: int) -> Array:
    """Rows to run in batches of `size`: whole batches, evenly spread."""
    if count <= size * _EXECUTIONS:
        return np.arange(count)
    return choose_rows(count, size * _EXECUTIONS)


def _take(arrays: Tensors, chosen: Array) -> dict[str, Array]:
    return {name: array[chosen] for name, array in arrays.items()}


def _run_in_batches(model: LoadedModel, inputs: Tensors, size: int) -> dict[str, Array]:
    count = len(next(iter(inputs.values())))
    pieces = [
        model.run({name: array[start : start + size] for name, array in inputs.items()})
        for start in range(0, count, size)
    ]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _all_agree(outputs: Sequence[OutputComparison]) -> bool:
    return all(output.agrees for output in outputs)


def _worse(
    before: list[OutputComparison], after: list[OutputComparison], chosen: Array
) -> list[OutputComparison]:
    """Per output the worse of two comparisons, with its position among all rows."""
    return [
        b
        if (bool(b.problem), b.differing, b.max_absolute)
        >= (bool(a.problem), a.differing, a.max_absolute)
        else _at_row(a, chosen)
        for b, a in zip(before, after, strict=True)
    ]


def _at_row(output: OutputComparison, chosen: Array) -> OutputComparison:
    if not output.worst:
        return output
    return replace(output, worst=(int(chosen[output.worst[0]]), *output.worst[1:]))


def one_line(message: str) -> str:
    """An engine's or exporter's message on one line of at most 300 characters."""
    text = " ".join(message.split())
    return text if len(text) <= 300 else text[:299] + "…"


def output_to_json(output: OutputComparison) -> dict[str, Any]:
    """The plain form of a comparison, for the parity report."""
    return {
        "name": output.name,
        "elements": output.elements,
        "differing": output.differing,
        "max_absolute": output.max_absolute,
        "max_relative": output.max_relative,
        "worst": list(output.worst),
        "expected": output.expected,
        "actual": output.actual,
        "exact": output.exact,
        "problem": output.problem,
    }
