"""One attempt to export, tried: exported, loaded, compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Final

import numpy as np

from modelport.adapters import find_adapter
from modelport.convert.base import Attempt, Export, Inexact, SourceModel
from modelport.convert.diverge.base import ROWS, Case, Divergence, find_divergence
from modelport.convert.proof.lengths import change_lengths, rows_of_other_lengths
from modelport.convert.proof.parity import (
    RowsVerdict,
    ServedRows,
    as_served,
    bind_wide,
    compare_rows,
    one_line,
    serve_rows,
    tolerance_for,
    widened,
)
from modelport.convert.proof.probes import (
    Answer,
    ask,
    judge,
    judge_no_rows,
    rows_made_to_hurt,
    take_rows,
)
from modelport.convert.proof.unsure import excuse_unsure
from modelport.core.compare import TOLERANCES, OutputComparison, Tolerance, compare
from modelport.core.errors import EngineError, InputError, ModelportError, SignatureError
from modelport.core.golden import GoldenRecords, choose_rows, golden_rows
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import Engine, EngineOptions, LoadedModel

#: An export is loaded so many times, unless the first took longer than so many seconds.
_LOADS: Final = 3
#: Characters of a text that a refusal quotes.
_SHOWN: Final = 120
_LONG: Final = 1.0


@dataclass(frozen=True)
class Candidate:
    """An export that agrees with the source model, and the evidence.

    Parameters
    ----------
    export : Export
    signature : Signature
        The export's, with the special values marked that the source refuses.
    tolerance : Tolerance
    inputs : dict of str to ndarray
        All rows, as served; empty without rows.
    golden : GoldenRecords or None
    verdict : RowsVerdict or None
        None without rows.
    probes : list of dict
        Entries of the parity report.
    close : bool
        True when the user's rows give the same answers before they are rounded to the served
        element types, too. Of two candidates the close one is the better.
    """

    export: Export
    signature: Signature
    tolerance: Tolerance = TOLERANCES["float32"]
    inputs: dict[str, Array] = field(default_factory=dict)
    golden: GoldenRecords | None = None
    verdict: RowsVerdict | None = None
    probes: list[dict[str, Any]] = field(default_factory=list)
    close: bool = True


@dataclass(frozen=True)
class Trial:
    """What became of an attempt.

    Parameters
    ----------
    name : str
        The attempt's.
    outcome : str
        ``agrees``, ``differs``, ``not exported`` or ``not loaded``.
    reason : str
        Why, where it does not agree.
    candidate : Candidate or None
        Where it agrees.
    divergence : Divergence or None
        Where it differs, and what explains it is known.
    repair : Attempt or None
        Where it differs: the same export with the cause undone.
    load_ms : float or None
        How long the engine takes to load the export, the best of several times.
    text : str
        Where it differs on texts: how the worst row begins. For the person who is refused, and
        never for a report that travels with a package.
    """

    name: str
    outcome: str
    reason: str = ""
    candidate: Candidate | None = None
    divergence: Divergence | None = None
    repair: Attempt | None = None
    load_ms: float | None = None
    text: str = ""


def try_attempt(
    attempt: Attempt, source: SourceModel, rows: Rows | None, progress: Callable[[str], None]
) -> Trial:
    """Export, load and compare.

    Raises
    ------
    InputError
        When the source model refuses the rows themselves.
    """
    progress(f"exporting: {attempt.name}")
    try:
        export = attempt.export()
    except Exception as error:  # exporters raise whatever they like; the report quotes it
        return Trial(attempt.name, "not exported", _reason(error))
    engine: Engine = find_adapter("engine", export.engine).load()
    try:
        model, load_ms = _load(engine, export)
    except ModelportError as error:
        return Trial(attempt.name, "not loaded", _reason(error))
    progress(f"loads in {load_ms:.3g} ms")
    if rows is None:
        candidate = Candidate(export, export.signature)
        return Trial(attempt.name, "agrees", candidate=candidate, load_ms=load_ms)
    progress(f"comparing: {attempt.name} on {len(rows)} rows")
    served = serve_rows(rows, export.signature)
    try:
        comparison = _Comparison(source, model, export, rows, served)
    except InputError as error:
        if served.exact:
            raise
        reason = f"the source model refuses the rows as this export rounds them: {_reason(error)}"
        return Trial(attempt.name, "differs", reason, load_ms=load_ms)
    try:
        outcome = comparison.run()
    except EngineError as error:
        outcome = _Difference(_reason(error), comparison.case(served.seen, 0))
    if isinstance(outcome, Candidate):
        return Trial(attempt.name, "agrees", candidate=outcome, load_ms=load_ms)
    progress(f"looking for the difference: {attempt.name}")
    divergence = find_divergence(outcome.case) if outcome.case else None
    reason = f"{outcome.reason}; {divergence.describe()}" if divergence else outcome.reason
    repair = _repair(attempt, export, divergence)
    text = _text(outcome.case) if outcome.case else ""
    return Trial(attempt.name, "differs", reason, None, divergence, repair, load_ms, text)


def _text(case: Case) -> str:
    """How the first, the worst row begins, where it has text."""
    columns = case.seen.columns.values()
    texts = [str(array.ravel()[0]) for array in columns if array.dtype == object and array.size]
    return ", ".join(repr(text[:_SHOWN]) + ("…" if text[_SHOWN:] else "") for text in texts[:3])


def _load(engine: Engine, export: Export) -> tuple[LoadedModel, float]:
    """The model, and the milliseconds that it takes to load."""
    times = []
    for _ in range(_LOADS):
        start = perf_counter()
        model = engine.load(export.model, EngineOptions())
        times.append(perf_counter() - start)
        if times[0] > _LONG:
            break
    return model, 1000 * min(times)


def _repair(attempt: Attempt, export: Export, divergence: Divergence | None) -> Attempt | None:
    """The export with the cause undone, to be tried like any other."""
    if divergence is None or divergence.repaired is None:
        return None
    name = f"{attempt.name} {divergence.repair}"
    note = f"the exporter's graph was changed: {divergence.node} {divergence.repair}"
    repaired = replace(export, model=divergence.repaired, notes=(*export.notes, note))
    return Attempt(name, lambda: repaired)


@dataclass(frozen=True)
class _Difference:
    """Why an export is no candidate, and rows that show it."""

    reason: str
    case: Case | None = None


class _Comparison:
    """One export against the source model.

    Parameters
    ----------
    rows : Rows
        As the user gave them.
    served : ServedRows
        The same, bound to the export's signature.
    """

    def __init__(
        self,
        source: SourceModel,
        model: LoadedModel,
        export: Export,
        rows: Rows,
        served: ServedRows,
    ) -> None:
        self._source = source
        self._model = model
        self._export = export
        self._rows = rows
        self._served = served
        self._expected = source.predict(served.seen)
        self._tolerance = tolerance_for(export.signature, self._expected, source.task)
        if isinstance(source, Inexact) and source.task != "regression":
            own_error = source.own_error(served.seen)
            self._tolerance = widened(self._tolerance, own_error, self._expected)

    def run(self) -> Candidate | _Difference:
        """The candidate, or why it is none.

        Raises
        ------
        EngineError
            When the export fails on rows that the source model answers.
        """
        signature, inputs = self._export.signature, self._served.inputs
        verdict = compare_rows(
            self._model, signature, inputs, self._expected, self._tolerance, self._source.task
        )
        if not verdict.agrees:
            reason = _describe_all(verdict.outputs)
            return _Difference(reason, self.case(self._served.seen, verdict.worst_row))
        golden = self._golden()
        independent = verdict.row_independent
        replayed = golden.replay(self._model.run, self._tolerance, in_parts=independent)
        if not all(output.agrees for output in replayed):
            return _Difference(f"golden records: {_describe_all(replayed)}")
        given = [] if self._served.exact else [self._as_given()]
        signature, probes, answers = self._probe()
        refusing = [probe for probe in (*given, *probes) if probe["refuses"]]
        if refusing:
            reason = "; ".join(f"{probe['name']}: {probe['note']}" for probe in refusing)
            return _Difference(reason, self._case_of(refusing[0], answers))
        return Candidate(
            export=self._export,
            signature=signature,
            tolerance=self._tolerance,
            inputs=inputs,
            golden=golden,
            verdict=verdict,
            probes=[*given, *probes],
            close=all(probe["passed"] for probe in given),
        )

    def case(self, seen: Rows, worst: int) -> Case | None:
        """A few of these rows, the worst one first; None where the source refuses them."""
        signature = self._export.signature
        chosen = np.arange(len(seen))
        if signature.batch_symbol is not None:
            others = choose_rows(len(seen), ROWS)
            chosen = np.asarray([worst, *others[others != worst]][:ROWS])
            seen = Rows({n: a[chosen] for n, a in seen.columns.items()}, seen.where)
        try:
            answers = self._source.predict(seen)
            served = serve_rows(seen, signature)
        except (InputError, SignatureError):
            return None
        return Case(
            source=self._source,
            export=self._export,
            inputs=served.inputs,
            seen=seen,
            expected={spec.name: answers[spec.name] for spec in signature.outputs},
            tolerance=self._tolerance,
            wide={} if served.exact else bind_wide(seen, signature),
            chosen=tuple(int(row) for row in chosen) if signature.batch_symbol else (),
        )

    def _case_of(self, refusing: Mapping[str, Any], answers: Sequence[Answer]) -> Case | None:
        name = refusing["name"]
        found = [a for a in answers if a.probe.name == name and len(a.answered)]
        if not found:
            return self.case(self._rows, self._worst(self._rows, self._source.predict(self._rows)))
        rows = take_rows(found[0].probe.rows, found[0].answered)
        return self.case(rows, self._worst(rows, found[0].outputs))

    def _worst(self, rows: Rows, answers: Tensors) -> int:
        actual = self._model.run(rows.bind(self._export.signature))
        expected = {spec.name: answers[spec.name] for spec in self._export.signature.outputs}
        outputs = compare(expected, actual, self._tolerance)
        return next((o.worst[0] for o in outputs if not o.agrees and o.worst), 0)

    def _golden(self) -> GoldenRecords:
        signature, inputs, expected = self._export.signature, self._served.inputs, self._expected
        if signature.batch_symbol is not None:
            chosen = golden_rows(inputs)
            inputs = {name: array[chosen] for name, array in inputs.items()}
            expected = {name: array[chosen] for name, array in expected.items()}
        return GoldenRecords(dict(inputs), as_served(expected, signature))

    def _probe(self) -> tuple[Signature, list[dict[str, Any]], list[Answer]]:
        """Ask the source model first: what it refuses, the served signature refuses too."""
        seen, signature = self._served.seen, self._export.signature
        own = self._source.probes(seen)
        probes = [*rows_made_to_hurt(seen, signature), *own]
        if signature.batch_symbol is not None and not change_lengths(own, seen):
            probes += rows_of_other_lengths(seen, signature)
        answers = [ask(self._source, probe) for probe in probes]
        refused = [a.probe.special for a in answers if len(a.refused) and a.probe.special]
        inputs = tuple(
            # An adapter may refuse more: values that its export answers in another way.
            replace(
                spec,
                refuses=tuple(
                    dict.fromkeys([*spec.refuses, *(k for name, k in refused if name == spec.name)])
                ),
            )
            for spec in signature.inputs
        )
        signature = Signature(inputs, signature.outputs)
        judged = [judge(a, self._model, signature, self._tolerance) for a in answers]
        excuse_unsure(self._source, answers, judged, self._tolerance)
        if signature.batch_symbol is not None:
            judged.append(judge_no_rows(self._model, seen, self._export.signature))
        return signature, judged, answers

    def _as_given(self) -> dict[str, Any]:
        """The user's rows before they are rounded to the served element types.

        What counts is the answer people act on: a label that flips refuses the export, and
        where there are no labels, any number that differs.
        """
        answers = self._source.predict(self._rows)
        expected = {spec.name: answers[spec.name] for spec in self._export.signature.outputs}
        outputs = compare(expected, self._model.run(self._served.inputs), self._tolerance)
        flips = sum(output.differing for output in outputs if output.exact)
        differing = sum(output.differing for output in outputs)
        labels = any(output.exact for output in outputs)
        return {
            "name": "rows as given, before they are rounded to the served element types",
            "rows": len(self._rows),
            "refused": 0,
            "flips": flips,
            "differing": differing,
            "max_error": max(output.max_absolute for output in outputs),
            "gate": True,
            "refuses": bool(flips if labels else differing),
            "passed": not differing,
            "note": "" if not differing else _describe_all(outputs),
        }


def _describe_all(outputs: Sequence[OutputComparison]) -> str:
    differing = [output for output in outputs if not output.agrees]
    # Scores may be near enough, and the best of them another one.
    flipping = [output for output in outputs if output.argmax_flips]
    return "; ".join(output.describe() for output in differing or flipping)


def _reason(error: Exception) -> str:
    if isinstance(error, ModelportError):
        return one_line(error.message)
    return one_line(f"{type(error).__name__}: {error}")
