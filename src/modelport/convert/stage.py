"""The convert stage: from an audited source model to an artifact that gives the same answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from modelport import __version__
from modelport.adapters import Adapter, adapters_of
from modelport.convert.base import Attempt, Framework, SourceModel
from modelport.convert.baseline import describe_rows
from modelport.convert.processed import finish, prepare
from modelport.convert.proof.parity import output_to_json, refuse_unsteady
from modelport.convert.proof.trial import Candidate, Trial, try_attempt
from modelport.core.artifact import Artifact
from modelport.core.errors import InputError, ParityError, UnsupportedError
from modelport.core.processing import Declaration
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource

#: Where model files stand in a package.
MODEL_FOLDER: Final = "model"

_FURTHER: Final = "agrees on the rounded rows, and not on some as they were given"
_NO_EXPORT: Final = ("not exported", "not loaded")


def _silent(_line: str) -> None:
    """Report progress to nobody."""


def _unmeasured(_name: str, _value: float) -> None:
    """Report measurements to nobody."""


def convert(
    audited: AuditedSource,
    rows: Rows | None,
    *,
    native: bool = False,
    declaration: Declaration | None = None,
    progress: Callable[[str], None] = _silent,
    measure: Callable[[str, float], None] = _unmeasured,
) -> Artifact:
    """Convert a source model, and prove that the result gives the same answers.

    The framework's ways to export are tried in order. An export is kept when it agrees with the
    source model on all rows and on the rows made to hurt; of several the first that also agrees
    before the rows are rounded to its element types, else the first.

    Parameters
    ----------
    audited : AuditedSource
        A source that the scan has passed.
    rows : Rows or None
        Sample rows of the user's data; None: made-up rows, where the framework can make them.
    native : bool
        Keep the model in its own framework's format, to be run by that framework when served.
    declaration : Declaration or None
        Processing around the model; the rows are then what clients will send.
    progress : callable
        Told one line for people at each step.
    measure : callable
        Told what was measured on this machine, by name: ``load_ms``, how long the engine takes to
        load the model. The artifact holds no such numbers: it is the same everywhere.

    Returns
    -------
    Artifact
        The same source and rows always give the same bytes.

    Raises
    ------
    InputError
        When the source cannot be loaded, or refuses the rows.
    UnsupportedError
        When no framework knows the source, or nothing can export it.
    ParityError
        When there are exports and all of them give other answers.
    """
    source = _load(audited, progress)
    prepared = None
    if declaration is not None:
        prepared = prepare(declaration, source, rows, progress)
        rows = prepared.rows
    origin = "sample"
    if rows is None:
        rows = source.made_up_rows()
        origin = "none" if rows is None else "made up"
    if rows is not None:
        refuse_unsteady(source, rows)
    trials = _try(_attempts(audited, source, rows, native), source, rows, progress)
    if not any(trial.candidate for trial in trials):
        repairs = [trial.repair for trial in trials if trial.repair is not None]
        trials += _try(repairs, source, rows, progress)
    agreeing = [(t, t.candidate) for t in trials if t.candidate is not None]
    if not agreeing:
        raise _refusal(audited, trials)
    kept, candidate = next(((t, c) for t, c in agreeing if c.close), agreeing[0])
    progress(f"kept: {kept.name}")
    if kept.load_ms is not None:
        measure("load_ms", kept.load_ms)
    sampled = bool(candidate.inputs) and origin == "sample"
    model_file = f"{MODEL_FOLDER}/{candidate.export.file_name}"
    artifact = Artifact(
        engine=candidate.export.engine,
        model_file=model_file,
        files={model_file: candidate.export.model},
        signature=candidate.signature,
        task=source.task,
        tolerance=candidate.tolerance,
        golden=candidate.golden,
        row_independent=candidate.verdict is not None and candidate.verdict.row_independent,
        parity=_report(candidate, [_attempt_to_json(t, t is kept) for t in trials], origin),
        # Statistics of made-up rows would be lies about the data.
        baseline=describe_rows(candidate.inputs, candidate.signature) if sampled else {},
        provenance=_provenance(audited, source, kept.name, candidate),
    )
    return artifact if prepared is None else finish(prepared, artifact, candidate.inputs)


def _try(
    attempts: Sequence[Attempt],
    source: SourceModel,
    rows: Rows | None,
    progress: Callable[[str], None],
) -> list[Trial]:
    """Try the attempts in order, up to the first that agrees in every respect."""
    trials: list[Trial] = []
    for attempt in attempts:
        trials.append(try_attempt(attempt, source, rows, progress))
        if trials[-1].candidate is not None and trials[-1].candidate.close:
            break
    return trials


def _load(audited: AuditedSource, progress: Callable[[str], None]) -> SourceModel:
    readers = _readers(audited)
    for adapter in readers:
        if adapter.missing():
            continue
        framework: Framework = adapter.load()
        if framework.recognises(audited):
            _check_choices(audited, adapter)
            progress(f"loading {audited.source.name} with the {adapter.name} framework")
            return framework.load(audited)
    for adapter in readers:
        if adapter.missing():
            adapter.load()  # says which package is missing
    known = ", ".join(adapter.summary for adapter in adapters_of("framework"))
    raise UnsupportedError(
        f"no framework adapter knows this source: {audited.source.name} ({audited.format})",
        hint=f"modelport converts {known}",
    )


def _check_choices(audited: AuditedSource, adapter: Adapter) -> None:
    for name in ("factory", "signature"):
        value = getattr(audited.source, name)
        if value and name not in adapter.choices:
            raise InputError(
                f"the {name} {value!r} means nothing to a {audited.format} source, which the "
                f"{adapter.name} framework reads",
                where=audited.source.name,
                hint=f"leave it out, or look whether this is the file that you mean: --{name}",
            )


def _readers(audited: AuditedSource) -> list[Adapter]:
    """Frameworks that may know the source, so that no other one is imported in order to ask."""
    adapters = adapters_of("framework")
    if audited.source.path is None:
        roots = {cls.__module__.partition(".")[0] for cls in type(audited.source.model).__mro__}
        return [adapter for adapter in adapters if adapter.requires[0] in roots]
    readers = [adapter for adapter in adapters if audited.format in adapter.formats]
    named = {name.partition(".")[0] for name in audited.globals}
    return [adapter for adapter in readers if adapter.requires[0] in named] or readers


def _attempts(
    audited: AuditedSource, source: SourceModel, rows: Rows | None, native: bool
) -> Sequence[Attempt]:
    if not native:
        return source.attempts(rows)
    attempt = source.native(rows)
    if attempt is None:
        engines = ", ".join(adapter.name for adapter in adapters_of("engine"))
        raise UnsupportedError(
            f"there is no engine that runs {source.framework_version} models as they are",
            where=audited.source.name,
            hint=f"convert it (leave out --engine native); there are engines for {engines}",
        )
    return [attempt]


def _refusal(audited: AuditedSource, trials: Sequence[Trial]) -> ParityError | UnsupportedError:
    name = audited.source.name
    reasons: dict[str, list[str]] = {}
    for trial in trials:
        reasons.setdefault(f"{trial.outcome}: {trial.reason}", []).append(trial.name)
    lines = "".join(f"\n  {', '.join(names)}: {reason}" for reason, names in reasons.items())
    if all(trial.outcome in _NO_EXPORT for trial in trials):
        return UnsupportedError(
            f"{name} cannot be exported; the exporters say:{lines}",
            hint="replace the step that has no exporter; Keras and PyTorch models can be served "
            "by their own framework: --engine native",
        )
    text = next((trial.text for trial in trials if trial.text), "")
    shown = f"\n  the row that differs most reads: {text}" if text else ""
    return ParityError(
        f"no export of {name} gives the source model's answers:{lines}{shown}",
        hint="the difference is real: look at the row named above with both models; if the row "
        "lies on a tie or a step of the model, leave it out of the sample on purpose",
        report={"attempts": [_trial_to_json(trial) for trial in trials]},
    )


def _trial_to_json(trial: Trial) -> dict[str, Any]:
    """For programs: what became of an attempt, and where it parts from the source model."""
    return {
        "name": trial.name,
        "outcome": trial.outcome,
        "reason": trial.reason,
        "divergence": trial.divergence.to_json() if trial.divergence else None,
        "load_ms": trial.load_ms,
    }


def _report(candidate: Candidate, attempts: list[dict[str, str]], origin: str) -> dict[str, Any]:
    verdict = candidate.verdict
    return {
        "rows": verdict.rows if verdict else 0,
        "rows_are": origin,
        "attempts": attempts,
        "outputs": [output_to_json(output) for output in verdict.outputs] if verdict else [],
        "batches": verdict.batches if verdict else [],
        "label_flips": verdict.label_flips if verdict else 0,
        "probes": candidate.probes,
        "tolerance": candidate.tolerance.to_json(),
        "notes": [*(verdict.notes if verdict else ()), *candidate.export.notes],
    }


def _attempt_to_json(trial: Trial, kept: bool) -> dict[str, str]:
    close = trial.candidate is None or trial.candidate.close
    return {
        "name": trial.name,
        "outcome": "kept" if kept else trial.outcome,
        "reason": trial.reason if close else _FURTHER,
    }


def _provenance(
    audited: AuditedSource, source: SourceModel, attempt: str, candidate: Candidate
) -> dict[str, Any]:
    return {
        "source": audited.source.name,
        "source_sha256": audited.source.digest,
        "format": audited.format,
        "trusted": list(audited.trusted),
        "framework": source.framework_version,
        "exporter": candidate.export.exporter,
        "attempt": attempt,
        "opset": dict(candidate.export.opset),
        "modelport": __version__,
        "containers": list(audited.containers),
        "notes": [*audited.notes, *source.notes],
    }
