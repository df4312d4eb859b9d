"""Converting a model with declared processing.

The sample rows go through the same input steps that will serve them, then to the source model and
to its exports as ever. The golden records of the package hold what clients send (encoded images,
sentences) and what the source model's answers become, so that replaying them on another machine
proves its image decoder and its tokenizer, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Final

import numpy as np

from modelport.adapters import find_adapter
from modelport.convert.base import SourceModel
from modelport.core.artifact import Artifact
from modelport.core.compare import Tolerance
from modelport.core.errors import InputError, ParityError
from modelport.core.golden import GoldenRecords, choose_rows, golden_rows
from modelport.core.processing import Declaration, Processing
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, STRING, Array, Tensors, TensorSpec, holds_bytes
from modelport.engines.base import Engine, EngineOptions
from modelport.processing.base import (
    Facts,
    ProcessedModel,
    Transform,
    fit_inputs,
    fit_outputs,
    open_inputs,
    wrap,
)

#: Bytes of encoded images among the golden records.
_MOST_FILE_BYTES: Final = 4 << 20
#: Bytes of decoded sample rows: about a hundred photographs. Of more images an even choice is
#: used, since parity also runs all rows at once, and networks need many times the memory of their
#: inputs.
_MOST_BYTES: Final = 64 << 20

_PROCESSED_BEFORE: Final = (
    "the sample rows were tensors already: the answers are proven, the processing steps are not"
)


@dataclass(frozen=True)
class Prepared:
    """Sample rows on both sides of the input steps.

    Parameters
    ----------
    declaration : Declaration
    fitted : Processing
        As far as the model was known before its export.
    rows : Rows or None
        For the source model.
    given : dict of str to ndarray or None
        The same rows as clients send them, where input steps made `rows` of them.
    notes : tuple of str
        For the parity report.
    """

    declaration: Declaration
    fitted: Processing
    rows: Rows | None
    given: dict[str, Array] | None = None
    notes: tuple[str, ...] = field(default=())


def prepare(
    declaration: Declaration,
    source: SourceModel,
    rows: Rows | None,
    progress: Callable[[str], None],
) -> Prepared:
    """Run the input steps on the sample rows.

    Raises
    ------
    InputError
        When the steps do not fit the model or the rows.
    """
    if not declaration.processing.inputs:
        return Prepared(declaration, declaration.processing, rows)
    facts = Facts(_signature_of(source), declaration.files)
    fitted = fit_inputs(declaration.processing, facts)
    transforms = open_inputs(fitted.inputs, facts)
    takes = tuple(spec for transform in transforms for spec in transform.takes)
    if rows is None:
        return Prepared(declaration, fitted, None)
    given = _bind(rows, takes)
    if given is None:
        return Prepared(declaration, fitted, rows, notes=(_PROCESSED_BEFORE,))
    progress(f"processing {len(rows)} rows: {'; '.join(s.describe() for s in fitted.inputs)}")
    chosen = _usable(given, transforms, facts.lead)
    given = {name: array[chosen] for name, array in given.items()}
    names = [rows.names[i] for i in chosen] if rows.names else []
    made = _run(transforms, given, names)
    others = _others(rows, takes, facts.signature) if "" not in made else []
    columns = {**{name: rows.columns[name][chosen] for name in others}, **made}
    left = len(rows) - len(chosen)
    notes = (f"{len(chosen)} of {len(rows)} sample rows were used",) if left else ()
    return Prepared(declaration, fitted, Rows(columns, rows.where), given, notes)


def _signature_of(source: SourceModel) -> Signature | None:
    """What the model takes, where it can be told without the sample."""
    for rows in (lambda: None, source.made_up_rows):
        try:
            return source.attempts(rows())[0].export().signature
        except Exception:  # noqa: S112 - exporters raise anything; the export proper reports it
            continue
    return None


def _bind(rows: Rows, takes: Sequence[TensorSpec]) -> dict[str, Array] | None:
    """The rows as clients send them; None where they are the model's own tensors already."""
    free = tuple(replace(spec, shape=("N", *spec.shape[1:])) for spec in takes)
    wanted = Signature(free, free)
    texts = {spec.name for spec in takes if spec.dtype in (STRING, BYTES)}
    numbers = all(array.dtype.kind in "fiub" for array in rows.columns.values())
    if numbers and (texts or not {spec.name for spec in takes} <= rows.columns.keys()):
        return None
    return rows.bind(wanted)


def _others(rows: Rows, takes: Sequence[TensorSpec], signature: Signature | None) -> list[str]:
    """Columns that go to the model as they are: of those that are left, the ones that it takes."""
    used = {spec.name for spec in takes}
    left = [name for name in rows.columns if name and name not in used and len(rows.columns) > 1]
    return [name for name in left if signature is None or name in signature.inputs_by_name]


def _usable(given: Mapping[str, Array], transforms: Sequence[Transform], lead: int | str) -> Array:
    """Indices of the rows that are used: all, unless their tensors are too large.

    Of a model that takes a fixed number of rows at once, so many are used.
    """
    count = len(next(iter(given.values())))
    if isinstance(lead, int):
        return choose_rows(count, max(1, lead))
    if not any(spec.dtype == BYTES for transform in transforms for spec in transform.takes):
        return np.arange(count)
    row = sum(
        prod(size for size in spec.shape[1:] if isinstance(size, int)) * spec.numpy_dtype.itemsize
        for transform in transforms
        for spec in transform.gives
    )
    return choose_rows(count, max(1, _MOST_BYTES // max(1, row)))


def _run(
    transforms: Sequence[Transform], given: Mapping[str, Array], names: Sequence[str]
) -> dict[str, Array]:
    """The model's own inputs; an image that fails is named by its file."""
    made: dict[str, Array] = {}
    for transform in transforms:
        if any(spec.dtype != BYTES for spec in transform.takes):
            made.update(transform.run(given))
            continue
        (spec,) = transform.takes
        parts = []
        for row, item in enumerate(given[spec.name]):
            one = np.empty(1, dtype=object)
            one[0] = item
            try:
                parts.append(transform.run({spec.name: one}))
            except InputError as error:
                error.where = names[row] if names else f"{spec.name}[{row}]"
                raise
        made.update({n: np.concatenate([part[n] for part in parts]) for n in parts[0]})
    return made


def finish(prepared: Prepared, artifact: Artifact, inputs: Tensors) -> Artifact:
    """The artifact as clients see it.

    Parameters
    ----------
    prepared : Prepared
    artifact : Artifact
        Of the model itself.
    inputs : mapping of str to ndarray
        All rows that parity was checked on, as the model takes them; empty without rows.

    Raises
    ------
    InputError
        When the steps do not fit the exported model.
    ParityError
        When golden records are answered differently through the steps that will serve them.
    """
    golden, files = artifact.golden, prepared.declaration.files
    facts = Facts(artifact.signature, files, golden.outputs if golden is not None else {})
    processing = replace(
        fit_outputs(_fit_again(prepared, facts), facts),
        signature=artifact.signature,
        proven=golden is not None and (prepared.given is not None or not prepared.fitted.inputs),
    )
    engine: Engine = find_adapter("engine", artifact.engine).load()
    model = wrap(
        engine.load(artifact.files[artifact.model_file], EngineOptions()), processing, files
    )
    notes = list(prepared.notes)
    if golden is not None and processing.proven:
        golden, more = _golden(prepared, artifact, golden, inputs, model)
        notes += more
        # As they will be read from the package.
        _prove(GoldenRecords.from_bytes(golden.to_bytes()), model, artifact.tolerance)
    shares = model.signature.batch_symbol is not None and model.row_independent
    return replace(
        artifact,
        files={**artifact.files, **files},
        signature=model.signature,
        golden=golden,
        row_independent=artifact.row_independent and shares,
        parity={**artifact.parity, "notes": [*artifact.parity["notes"], *notes]},
        provenance={**artifact.provenance, "processing": model.libraries},
        processing=processing,
    )


def _fit_again(prepared: Prepared, facts: Facts) -> Processing:
    """Fit the declaration to the exported model, which tells more than before its export."""
    try:
        return fit_inputs(prepared.declaration.processing, facts)
    except InputError:
        return fit_inputs(prepared.fitted, facts)


def _golden(
    prepared: Prepared,
    artifact: Artifact,
    golden: GoldenRecords,
    inputs: Tensors,
    model: ProcessedModel,
) -> tuple[GoldenRecords, list[str]]:
    """The golden records as clients send and get them.

    A label that a rounding error may flip proves nothing, and would refuse the package on the
    next machine: such rows are left out, or their labels where all rows are such.
    """
    batched = artifact.signature.batch_symbol is not None
    sent: Mapping[str, Array] = golden.inputs
    if prepared.given is not None:
        chosen = golden_rows(inputs) if batched else slice(None)
        taken = {name: array[chosen] for name, array in prepared.given.items()}
        sent = {
            n: (taken if n in taken else golden.inputs)[n] for n in model.signature.inputs_by_name
        }
    expected = model.finish(golden.outputs)
    if batched:
        small = _small(sent)
        sent = {name: array[small] for name, array in sent.items()}
        expected = {name: array[small] for name, array in expected.items()}
        golden = GoldenRecords(dict(sent), {n: a[small] for n, a in golden.outputs.items()})
    clear = model.clear(golden.outputs, artifact.tolerance)
    if clear.all():
        return GoldenRecords(dict(sent), expected), []
    if clear.any() and batched:
        records = GoldenRecords(
            {name: array[clear] for name, array in sent.items()},
            {name: array[clear] for name, array in expected.items()},
        )
        return records, [f"{int((~clear).sum())} rows with close scores are no golden records"]
    labels = model.decisions
    kept: dict[str, Any] = {name: array for name, array in expected.items() if name not in labels}
    return GoldenRecords(dict(sent), kept), ["labels of close scores are in no golden record"]


def _small(sent: Mapping[str, Array]) -> Array:
    """Indices of the rows whose files are small enough to travel: the smallest, at least one."""
    files = [array for array in sent.values() if holds_bytes(array)]
    if not files:
        return np.arange(len(next(iter(sent.values()))))
    sizes = np.sum([[len(item) for item in array] for array in files], axis=0)
    order = np.argsort(sizes, kind="stable")
    count = max(1, int((np.cumsum(sizes[order]) <= _MOST_FILE_BYTES).sum()))
    return np.sort(order[:count])


def _prove(golden: GoldenRecords, model: ProcessedModel, tolerance: Tolerance) -> None:
    compared = golden.replay(model.run, tolerance, in_parts=model.row_independent)
    wrong = [output for output in compared if not output.agrees]
    if wrong:
        raise ParityError(
            f"the answers change between the sample and the served steps: {wrong[0].describe()}",
            hint="declare every field of the steps that the model cannot tell by itself",
        )
