"""Rows made to hurt: what real rows seldom hold, and clients send one day.

A source model may refuse such rows (NaN, an unknown category). Then the served model must not
quietly answer them: its signature refuses NaN or infinity as the source does, and the report says
so where it answers all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from modelport.convert.base import Probe, SourceModel
from modelport.convert.proof.parity import one_line
from modelport.core.compare import OutputComparison, Tolerance, compare
from modelport.core.errors import EngineError, InputError, SignatureError
from modelport.core.golden import choose_rows
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import STRING, Array, Tensors, TensorSpec
from modelport.engines.base import LoadedModel

_BASE_ROWS: Final = 8
_POSITIONS: Final = 16
#: Less than half the distance of neighbouring float32 numbers.
_BELOW_FLOAT32: Final = 2.0**-26
_LONG_TEXT: Final = 10_000
_MAGNITUDES: Final = (1e3, 1e6)
_NEVER_SEEN: Final = ("\N{SNOWMAN} never seen", "", "ŻÓŁĆ 東京 \N{BALLOON}")
#: Letters whose lower case is longer, or another one in another place or language.
_LETTERS: Final = (
    "İSTANBUL ΣΑΣ STRASSE ẞ ﬁ Ǆ",
    "e\N{COMBINING ACUTE ACCENT} \N{ZERO WIDTH JOINER}",
)


def rows_made_to_hurt(rows: Rows, signature: Signature) -> list[Probe]:
    """Probes that any model gets, made of a few of its own rows.

    Parameters
    ----------
    rows : Rows
        As `modelport.convert.proof.parity.ServedRows.seen`.
    signature : Signature
        Of the export; the probes depend on its element types.
    """
    if signature.batch_symbol is None:
        return []
    count = len(rows)
    base = take_rows(rows, choose_rows(count, _BASE_ROWS))
    floats = [spec for spec in signature.inputs if spec.numpy_dtype.kind == "f"]
    probes = []
    for spec in floats:
        nan = _with_specials(base, spec, [np.nan])
        probes.append(Probe(f"NaN in {spec.name}", nan, special=(spec.name, "nan")))
        infinite = _with_specials(base, spec, [np.inf, -np.inf])
        probes.append(Probe(f"infinity in {spec.name}", infinite, special=(spec.name, "infinity")))
    if floats:
        probes += _of_all_floats(base, floats)
    for spec in signature.inputs:
        if spec.dtype == STRING:
            probes += _of_text(base, spec)
        elif spec.numpy_dtype.kind in "iu":
            probes.append(
                Probe(f"integers never seen in {spec.name}", _with_integers(rows, base, spec))
            )
            limits = np.iinfo(spec.numpy_dtype)
            widest = _with_values(base, spec, [limits.max, limits.min])
            probes.append(Probe(f"largest integers in {spec.name}", widest, gate=False))
        elif spec.dtype == "bool":
            both = _with_values(base, spec, [True, False])
            probes.append(Probe(f"true and false everywhere in {spec.name}", both))
    return probes


def _of_text(base: Rows, spec: TensorSpec) -> list[Probe]:
    known = str(base.columns[spec.name].ravel()[0])
    unseen = [*_NEVER_SEEN, known.upper(), known.lower()]
    spaced = [f" {known}", f"{known}\n", f"\t{known}\n{known}", " ", "\N{NO-BREAK SPACE}"]
    # scikit-learn's character analyzers make one blank of several; ONNX has no operator for it.
    runs = [f"  {known}", f"{known}\r\n\r\n{known}   "]
    long = [f"{known} " * (_LONG_TEXT // (len(known) + 1) + 1), "\N{PARTY POPPER}" * _LONG_TEXT]

    def probe(what: str, values: Sequence[str], *, gate: bool = True) -> Probe:
        return Probe(f"{what} in {spec.name}", _with_values(base, spec, values), gate=gate)

    return [
        probe("text never seen", unseen),
        probe("blanks and line ends", spaced),
        probe("runs of blanks", runs),
        probe("long text", long),
        probe("letters with rules of their own", _LETTERS, gate=False),
        # Engines written in C may see the end of the text in it.
        probe("text with a NUL character", [f"{known}\0{known}", "\0"], gate=False),
    ]


def _of_all_floats(base: Rows, floats: Sequence[TensorSpec]) -> list[Probe]:
    def edited(edit: Callable[[Array], Array]) -> Rows:
        columns = {spec.name: edit(base.columns[spec.name].astype(np.float64)) for spec in floats}
        return Rows({**base.columns, **columns})

    probes = [
        Probe("zeros", edited(np.zeros_like)),
        Probe("constant rows", edited(lambda a: np.full_like(a, np.nan_to_num(a).mean()))),
    ]
    for factor in _MAGNITUDES:
        large = edited(partial(np.multiply, factor))
        probes.append(Probe(f"values {factor:g} times as large", large, gate=False))
    if any(spec.dtype != "float64" for spec in floats):
        between = edited(lambda a: a * (1.0 + _BELOW_FLOAT32))
        probes.append(Probe("float64 values between two float32 values", between, gate=False))
    return probes


def take_rows(rows: Rows, chosen: Array) -> Rows:
    """Some of the rows."""
    return Rows({name: array[chosen] for name, array in rows.columns.items()}, rows.where)


def _with_specials(base: Rows, spec: TensorSpec, values: Sequence[float]) -> Rows:
    """One special value in each row, at another place each time; everywhere in the last rows."""
    elements = int(np.prod(base.columns[spec.name].shape[1:], dtype=np.int64))
    positions = choose_rows(elements if elements > 1 else 0, _POSITIONS)
    count = len(positions) + len(values)
    repeated = take_rows(base, np.arange(count) % len(base))
    array = repeated.columns[spec.name].astype(np.float64)
    flat = array.reshape(count, -1)
    for row, position in enumerate(positions):
        flat[row, position] = values[row % len(values)]
    flat[len(positions) :] = np.asarray(values)[:, np.newaxis]
    return Rows({**repeated.columns, spec.name: flat.reshape(array.shape)})


def _with_values(base: Rows, spec: TensorSpec, values: Sequence[Any]) -> Rows:
    """One value everywhere in each row."""
    repeated = take_rows(base, np.arange(len(values)) % len(base))
    array = np.empty(repeated.columns[spec.name].shape, dtype=spec.numpy_dtype)
    array.reshape(len(values), -1)[:] = np.asarray(values, dtype=spec.numpy_dtype)[:, np.newaxis]
    return Rows({**repeated.columns, spec.name: array})


def _with_integers(rows: Rows, base: Rows, spec: TensorSpec) -> Rows:
    column = rows.columns[spec.name]
    limits = np.iinfo(spec.numpy_dtype)
    values = [min(int(column.max()) + 1, limits.max), max(int(column.min()) - 1, limits.min)]
    return _with_values(base, spec, values)


@dataclass(frozen=True)
class Answer:
    """What the source model says to a probe.

    Parameters
    ----------
    probe : Probe
    answered, refused : ndarray of int
        Which rows the source model answers, and which it refuses.
    outputs : mapping of str to ndarray
        For the rows in `answered`.
    refusal : str
        The source model's message.
    """

    probe: Probe
    answered: Array
    refused: Array
    outputs: Tensors
    refusal: str = ""


def ask(source: SourceModel, probe: Probe) -> Answer:
    """Ask the source model; row by row where it does not take them all."""
    everything = np.arange(len(probe.rows))
    try:
        return Answer(probe, everything, everything[:0], source.predict(probe.rows))
    except InputError as error:
        refusal = str(error.__cause__ or error.message)
    except Exception as error:  # on rows like these a framework raises whatever it likes
        refusal = f"{type(error).__name__}: {error}"
    if len(everything) == 1:
        return Answer(probe, everything[:0], everything, {}, refusal)
    answered, pieces = [], []
    for row in everything:
        try:
            piece = source.predict(take_rows(probe.rows, everything[row : row + 1]))
        except Exception:  # noqa: S112 - as above
            continue
        pieces.append(piece)
        answered.append(row)
    outputs = {n: np.concatenate([p[n] for p in pieces]) for n in (pieces[0] if pieces else ())}
    refused = np.setdiff1d(everything, answered)
    return Answer(probe, np.asarray(answered, dtype=np.int64), refused, outputs, refusal)


def judge(
    answer: Answer, model: LoadedModel, signature: Signature, tolerance: Tolerance
) -> dict[str, Any]:
    """Compare the export's answers to a probe with the source model's.

    Returns
    -------
    dict
        The entry of the parity report: ``name``, ``rows``, ``refused`` (by the source model),
        ``flips``, ``differing`` (elements outside the tolerance), ``max_error``, ``gate``,
        ``refuses`` (the export, for a difference), ``passed``, ``note``.
    """
    probe = answer.probe
    notes: list[str] = []
    flips = differing = silent = 0
    max_error = 0.0
    agreed, failed = True, False
    if len(answer.answered):
        try:
            inputs = take_rows(probe.rows, answer.answered).bind(signature)
            actual = model.run(inputs)
        except SignatureError:
            notes.append("refused by the signature, and answered by the source model")
        except EngineError as error:
            # An error is no wrong answer: it is reported, and refuses nothing.
            notes.append(f"the served model fails: {one_line(error.message)}")
            failed = True
        else:
            expected = {spec.name: answer.outputs[spec.name] for spec in signature.outputs}
            outputs, ties = _without_ties(expected, actual, tolerance)
            flips = _flips(outputs)
            differing = sum(output.differing for output in outputs)
            max_error = max(output.max_absolute for output in outputs)
            agreed = all(output.agrees for output in outputs)
            notes += [output.describe() for output in outputs if not output.agrees]
            if ties:
                notes.append(f"{ties} rows where two labels tie were left out")
    if len(answer.refused):
        silent = _count_answered(answer, model, signature)
        notes.append(_describe_refusal(answer, silent))
    return {
        "name": probe.name,
        "rows": len(probe.rows),
        "refused": len(answer.refused),
        "flips": flips,
        "differing": differing,
        "max_error": max_error,
        "gate": probe.gate,
        # Rows that the source model refuses have no right answer: they are only reported.
        "refuses": probe.gate and not agreed,
        "passed": agreed and not failed and not silent,
        "note": "; ".join(notes),
    }


def _flips(outputs: Sequence[OutputComparison]) -> int:
    """Labels that differ; where there are none, rows with another best score."""
    labels = [output.differing for output in outputs if output.exact]
    return sum(labels) if labels else sum(output.argmax_flips for output in outputs)


def judge_no_rows(model: LoadedModel, rows: Rows, signature: Signature) -> dict[str, Any]:
    """What the export says when it is asked for no rows; only reported."""
    inputs = {name: array[:0] for name, array in rows.bind(signature).items()}
    note = ""
    try:
        # ONNX Runtime may give None for an output without elements.
        answers = {name: np.asarray(a) for name, a in model.run(inputs).items()}
    except (EngineError, SignatureError) as error:
        note = f"the served model fails: {one_line(error.message)}"
    else:
        wrong = [f"{n} {list(a.shape)}" for n, a in answers.items() if not a.ndim or len(a)]
        note = f"answers where nothing was asked: {', '.join(wrong)}" if wrong else ""
    return {
        "name": "no rows at all",
        "rows": 0,
        "refused": 0,
        "flips": 0,
        "differing": 0,
        "max_error": 0.0,
        "gate": False,
        "refuses": False,
        "passed": not note,
        "note": note,
    }


def _count_answered(answer: Answer, model: LoadedModel, signature: Signature) -> int:
    """How many of the refused rows the served model answers."""
    silent = 0
    for row in answer.refused:
        try:
            model.run(take_rows(answer.probe.rows, np.asarray([row])).bind(signature))
        except (SignatureError, EngineError):
            continue
        silent += 1
    return silent


def _describe_refusal(answer: Answer, silent: int) -> str:
    reason = next(iter(answer.refusal.splitlines()), "")
    if not silent:
        return f"refused by the source model ({reason}) and by the served one"
    return (
        f"the source model refuses {len(answer.refused)} of these rows ({reason}); "
        f"the served model answers {silent} of them"
    )


def _without_ties(
    expected: Tensors, actual: Tensors, tolerance: Tolerance
) -> tuple[list[OutputComparison], int]:
    """Compare, leaving out labels of rows in which the source model's two best labels tie.

    In made-up rows (zeros, say) two labels can have exactly the same score, and then the last
    bit decides. Only where the scores themselves agree; on real rows every flip counts.
    """
    outputs = compare(expected, actual, tolerance)
    flipped = [output for output in outputs if output.exact and output.differing]
    scores = [output for output in outputs if not output.exact]
    if not flipped or not scores or not all(output.agrees for output in scores):
        return outputs, 0
    tied = _ties(expected[scores[0].name], tolerance)
    if not tied.any():
        return outputs, 0
    untied = {name: array[~tied] for name, array in expected.items()}
    return compare(untied, {n: actual[n][~tied] for n in untied}, tolerance), int(tied.sum())


def _ties(scores: Array, tolerance: Tolerance) -> Array:
    if scores.ndim == 1:
        return np.asarray(np.abs(scores) <= tolerance.absolute)
    best = np.sort(scores.astype(np.float64), axis=-1)
    margin = best[:, -1] - best[:, -2] if scores.shape[1] > 1 else np.ones(len(scores))
    allowed = tolerance.relative * np.abs(best[:, -1]) + tolerance.absolute
    return np.asarray(margin <= 2 * allowed)
