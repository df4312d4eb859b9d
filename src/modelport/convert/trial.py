"""One attempt to export, tried: exported, loaded, compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelport.adapters import find_adapter
from modelport.convert.base import Attempt, Export, SourceModel
from modelport.convert.parity import (
    RowsVerdict,
    ServedRows,
    as_served,
    compare_rows,
    one_line,
    serve_rows,
    tolerance_for,
)
from modelport.convert.probes import ask, judge, rows_made_to_hurt
from modelport.core.compare import TOLERANCES, OutputComparison, Tolerance, compare
from modelport.core.errors import EngineError, ModelportError
from modelport.core.golden import GoldenRecords, golden_rows
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import Array
from modelport.engines.base import Engine, EngineOptions, LoadedModel


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
    """

    name: str
    outcome: str
    reason: str = ""
    candidate: Candidate | None = None


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
        model = engine.load(export.model, EngineOptions())
    except ModelportError as error:
        return Trial(attempt.name, "not loaded", _reason(error))
    if rows is None:
        return Trial(attempt.name, "agrees", candidate=Candidate(export, export.signature))
    progress(f"comparing: {attempt.name} on {len(rows)} rows")
    served = serve_rows(rows, export.signature)
    try:
        outcome = _Comparison(source, model, export, rows, served).run()
    except EngineError as error:
        outcome = _reason(error)
    if isinstance(outcome, str):
        return Trial(attempt.name, "differs", outcome)
    return Trial(attempt.name, "agrees", candidate=outcome)


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
        self._tolerance = tolerance_for(export.signature, self._expected)

    def run(self) -> Candidate | str:
        """The candidate, or why it is none.

        Raises
        ------
        EngineError
            When the export fails on rows that the source model answers.
        """
        signature, inputs = self._export.signature, self._served.inputs
        verdict = compare_rows(self._model, signature, inputs, self._expected, self._tolerance)
        if not verdict.agrees:
            return _describe_all(verdict.outputs)
        golden = self._golden()
        independent = verdict.row_independent
        replayed = golden.replay(self._model.run, self._tolerance, in_parts=independent)
        if not all(output.agrees for output in replayed):
            return f"golden records: {_describe_all(replayed)}"
        signature, probes = self._probe()
        given = [] if self._served.exact else [self._as_given()]
        refusing = [probe for probe in (*given, *probes) if probe["refuses"]]
        if refusing:
            return "; ".join(f"{probe['name']}: {probe['note']}" for probe in refusing)
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

    def _golden(self) -> GoldenRecords:
        signature, inputs, expected = self._export.signature, self._served.inputs, self._expected
        if signature.batch_symbol is not None:
            chosen = golden_rows(inputs)
            inputs = {name: array[chosen] for name, array in inputs.items()}
            expected = {name: array[chosen] for name, array in expected.items()}
        return GoldenRecords(dict(inputs), as_served(expected, signature))

    def _probe(self) -> tuple[Signature, list[dict[str, Any]]]:
        """Ask the source model first: what it refuses, the served signature refuses too."""
        seen, signature = self._served.seen, self._export.signature
        probes = [*rows_made_to_hurt(seen, signature), *self._source.probes(seen)]
        answers = [ask(self._source, probe) for probe in probes]
        refused = [a.probe.special for a in answers if len(a.refused) and a.probe.special]
        inputs = tuple(
            replace(spec, refuses=tuple(kind for name, kind in refused if name == spec.name))
            for spec in signature.inputs
        )
        signature = Signature(inputs, signature.outputs)
        return signature, [judge(a, self._model, signature, self._tolerance) for a in answers]

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
    return "; ".join(output.describe() for output in outputs if not output.agrees)


def _reason(error: Exception) -> str:
    if isinstance(error, ModelportError):
        return one_line(error.message)
    return one_line(f"{type(error).__name__}: {error}")
