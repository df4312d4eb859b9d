"""Whether an export gives the source model's answers, on rows that people use.

All rows are run through the export in batches of 1, 2, 7 and all at once, and in reverse order;
every answer is compared with the source model's. Whether a row's answer depends on the rows
beside it follows from the same runs.

Where the model answers with labels, a label that flips is a difference. Where it answers with
scores of classes, a class that becomes the best one is counted as a label flip too, unless it ties
with the best one within the tolerance; a flip away from a tie is always outside the tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from modelport.convert.base import SourceModel
from modelport.core.compare import REGRESSION, TOLERANCES, OutputComparison, Tolerance, compare
from modelport.core.errors import InputError, ParityError
from modelport.core.golden import choose_rows
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import Array, Tensors, TensorSpec
from modelport.engines.base import LoadedModel

#: Sizes that take other code paths: vectors, tails of vectors, one row.
BATCHES: Final = (1, 2, 7)
#: Small batches are run on at most so many executions, evenly spread over the rows.
_EXECUTIONS: Final = 1000
#: Tasks whose floating-point outputs can be scores of classes.
_SCORES: Final = ("classification", "unknown")
#: Rows that are asked for twice.
_ASKED_TWICE: Final = 8
#: See `widened`.
_SEVERAL: Final = 4
_MOST_ERROR: Final = 1e-2


def refuse_unsteady(source: SourceModel, rows: Rows) -> None:
    """Refuse a source model whose answers differ from call to call: there is nothing to keep to.

    Raises
    ------
    ParityError
        With the output, the place and both answers.
    InputError
        When the model refuses the rows.
    """
    few = Rows({n: a[:_ASKED_TWICE] if a.ndim else a for n, a in rows.columns.items()}, rows.where)
    try:
        first = source.predict(few)
    except InputError:
        # Rows of a fixed number, perhaps: all of them, then.
        few = rows
        first = source.predict(few)
    again = source.predict(few)
    for output in compare(first, again, TOLERANCES["float32"]):
        if not output.agrees:
            raise ParityError(
                "the source model's answers differ from call to call: "
                + (
                    output.problem
                    or f"{output.name} at {list(output.worst)} is "
                    f"{output.expected}, and then {output.actual}"
                ),
                hint="put it into evaluation mode before it is saved (model.eval(), "
                "training=False), and fix the seed of layers that draw random numbers",
            )


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


def bind_wide(rows: Rows, signature: Signature) -> dict[str, Array]:
    """Bind `rows` to `signature` without rounding floating-point numbers."""
    return rows.bind(_widest(signature))


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


def tolerance_for(signature: Signature, expected: Tensors, task: str = "") -> Tolerance:
    """What "the same answer" means for this model.

    The tolerance is that of the least precise floating-point output, and stricter for predicted
    quantities (`modelport.core.compare.REGRESSION`). It is made for answers around 1; where a
    single output is all smaller (a rate, a probability of something rare), its absolute part
    shrinks with it.
    """
    floats = [spec for spec in signature.outputs if spec.numpy_dtype.kind == "f"]
    coarsest = min((s.dtype for s in floats), key=lambda d: np.dtype(d).itemsize, default="float32")
    tolerance = (REGRESSION if task == "regression" else TOLERANCES)[coarsest]
    if len(floats) == 1 and floats[0].name in expected:
        array = expected[floats[0].name].astype(np.float64)
        largest = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
        if 0.0 < largest < 1.0:
            return Tolerance(tolerance.relative, float(f"{tolerance.absolute * largest:.3g}"))
    return tolerance


def widened(tolerance: Tolerance, own_error: Mapping[str, float], expected: Tensors) -> Tolerance:
    """The tolerance, wide enough for what the source model's own answers differ by.

    An export adds up in another order everywhere in the network, and not at its inputs alone: it
    may differ a few times as much. More than one part in a hundred is never accepted.
    """
    absolute = tolerance.absolute
    for name, error in own_error.items():
        array = expected[name].astype(np.float64)
        largest = max(1.0, float(np.abs(array[np.isfinite(array)]).max(initial=0.0)))
        absolute = max(absolute, min(_SEVERAL * error / largest, _MOST_ERROR))
    return Tolerance(tolerance.relative, float(f"{absolute:.3g}"))


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
    task : str
        The source model's.
    """

    rows: int
    outputs: list[OutputComparison]
    batches: list[int]
    row_independent: bool
    notes: list[str]
    task: str = ""

    @property
    def label_flips(self) -> int:
        """Elements of integer, boolean and string outputs that differ.

        Where there are none, and the outputs can be scores of classes: rows with another best one.
        """
        exact = [output.differing for output in self.outputs if output.exact]
        if exact or self.task not in _SCORES:
            return sum(exact)
        return sum(output.argmax_flips for output in self.outputs)

    @property
    def worst_row(self) -> int:
        """The row with the worst error of the first output that differs; else 0."""
        found = [o.worst[0] for o in self.outputs if not o.agrees and o.worst]
        return found[0] if found else 0

    @property
    def agrees(self) -> bool:
        """Whether every answer is inside the tolerance, and no label flips."""
        return not self.label_flips and all(output.agrees for output in self.outputs)


def compare_rows(
    model: LoadedModel,
    signature: Signature,
    inputs: Tensors,
    expected: Tensors,
    tolerance: Tolerance,
    task: str = "",
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
    task : str
        The source model's: it tells whether scores are scores of classes.

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
        return RowsVerdict(count, outputs, [], False, [], task)
    if signature.batch_symbol is None:
        note = "the model has no batch dimension: it was run on the rows at once, as they are"
        return RowsVerdict(count, outputs, [], False, [note], task)
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
    notes += [
        f"{output.name}: in {output.ties} rows another class is the best, and ties with it"
        for output in outputs
        if output.ties and task in _SCORES
    ]
    return RowsVerdict(count, outputs, batches, independent and count > 1, notes, task)


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
        if (bool(b.problem), b.differing, b.argmax_flips, b.max_absolute)
        >= (bool(a.problem), a.differing, a.argmax_flips, a.max_absolute)
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
        "argmax_flips": output.argmax_flips,
        "ties": output.ties,
    }
