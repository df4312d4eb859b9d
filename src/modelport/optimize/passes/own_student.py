"""A network of the user's own that learns what the original answers, and then stands in for it.

It learns from the calibration rows: the original's answers softened (Hinton, Vinyals and Dean,
"Distilling the Knowledge in a Neural Network", 2015), a tenth of the loss from labels where they
are known. Where rows are few, more are made and the original is asked. Then it is converted with
the same proof as any source model, and gets the original's inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from modelport.core.artifact import Artifact
from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import OWN_STUDENT, REDUCE, Progress, Subject, Variant
from modelport.optimize.given.course import teach
from modelport.optimize.given.labels import LabelOutput, label_output, right_answers
from modelport.optimize.given.lesson import (
    PROBABILITIES,
    SCORES,
    Head,
    Lesson,
    are_probabilities,
    head_of,
)
from modelport.optimize.given.scale import Scaling, input_scales, output_scales
from modelport.optimize.given.stand_in import class_tables, described, stand_in
from modelport.optimize.onnx_graph import parse
from modelport.optimize.session import served
from modelport.optimize.teachers.base import own_code, teacher_of
from modelport.optimize.train.clock import Allowance
from modelport.optimize.train.more import more_rows

_FEWEST: Final = 32
_HELD_SHARE: Final = 0.1
_LEAST_HELD: Final = 8
_MOST_HELD: Final = 512
#: Of making more rows out of few: the original is asked, whatever it consists of.
_ASSUMED_COST: Final = 1e8
#: Rows that the student is tried with, an unusual number; and those that its export is proven on.
_TRIED: Final = 5
_PROVEN: Final = 256
_COMPARED: Final = 16
_APART: Final = 1e-2
_SEED: Final = 7

#: A network: from inputs to outputs, in their order.
Answer = Callable[[Sequence[Array]], list[Array]]


class OwnStudentPass:
    """See the module."""

    name = OWN_STUDENT
    order = REDUCE
    tolerance = float("inf")

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        if subject.student is None:
            return "no student is given (--student module:function)"
        inputs = subject.signature.inputs
        if any(not spec.shape or isinstance(spec.shape[0], int) for spec in inputs):
            return "its batch size is fixed, and a student learns from batches"
        texts = [name for name, array in subject.rows.items() if array.dtype == object]
        if texts:
            return f"its input {texts[0]} is text, which no network takes"
        count = len(next(iter(subject.rows.values())))
        if count < _FEWEST:
            return f"{count} rows are too few to learn from: at least {_FEWEST}"
        return ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        student = subject.student
        if student is None:
            return
        teacher, network, task = teacher_of(student.network), student.network, _task_of(subject)
        with own_code("it refuses the rows"):
            heads, scaling = _tried(lambda rows: teacher.answers(network, rows), task, subject)
        lesson, held, told = _lessons(task, subject)
        report(f"  {student.name} learns from {lesson.count:,} rows{told}")
        seconds = Allowance(subject.deadline).seconds()
        with (
            own_code("its training failed"),
            teacher.pupil(network, scaling.heads(heads)) as pupil,
        ):
            taught = teach(pupil, scaling.lesson(lesson), scaling.lesson(held), seconds, report)
        report(f"    loss {taught.before:.4g} to {taught.after:.4g}, in ONNX next")
        rows = scaling.rows([array[:_PROVEN] for array in task.rows])
        with own_code("it is not converted"):
            made = student.convert(network, teacher.columns(network, rows), report)
        model = _standing_in(made, subject, task, heads, scaling)
        _compare(model, subject, task, heads, scaling, lambda rows: teacher.answers(network, rows))
        variant = subject.variant.then(
            self.name, model, student=student.name, steps=taught.steps, loss=taught.after,
            rows=lesson.count, labels=lesson.labels is not None,
        )  # fmt: skip
        name = f"student {student.name}"
        yield replace(variant, name=name, row_independent=made.row_independent)


@dataclass(frozen=True)
class _Task:
    """What a student has to answer.

    Parameters
    ----------
    rows : tuple of ndarray
        The engine's inputs in their order; rows to which the original's answers are finite.
    chosen : ndarray
        Which of the calibration rows these are.
    heads : tuple of Head
        Outputs that it learns.
    answers : tuple of ndarray of float32
        The original's, of each head.
    labels : tuple of LabelOutput
        Outputs that follow.
    """

    rows: tuple[Array, ...]
    chosen: Array
    heads: tuple[Head, ...]
    answers: tuple[Array, ...]
    labels: tuple[LabelOutput, ...]


def _task_of(subject: Subject) -> _Task:
    """Outputs of numbers are learned; others have to be labels of one of them."""
    count = len(next(iter(subject.rows.values())))
    for spec in subject.signature.outputs:
        found = subject.answers[spec.name]
        if not found.ndim or len(found) != count:
            raise UnsupportedError(f"its output {spec.name} has no entry for each row")
    floats = {
        spec.name: subject.answers[spec.name].astype(np.float32)
        for spec in subject.signature.outputs
        if subject.answers[spec.name].dtype.kind == "f"
    }
    if not floats:
        raise UnsupportedError("it answers no numbers that a student could learn")
    finite = [np.isfinite(a.reshape(count, -1)).all(axis=1) for a in floats.values()]
    chosen = np.flatnonzero(np.logical_and.reduce(finite))
    if len(chosen) < _FEWEST:
        raise UnsupportedError(f"it answers NaN or infinities to all but {len(chosen)} rows")
    answers = {name: array[chosen] for name, array in floats.items()}
    labels = []
    for spec in subject.signature.outputs:
        if spec.name not in floats:
            tables = class_tables(subject.variant.model)
            found = subject.answers[spec.name][chosen]
            labels.append(_label(spec.name, found, answers, tables))
    heads = tuple(head_of(name, array, subject.task) for name, array in answers.items())
    rows = tuple(subject.rows[spec.name][chosen] for spec in subject.signature.inputs)
    return _Task(rows, chosen, heads, tuple(answers.values()), tuple(labels))


def _label(name: str, found: Array, answers: Tensors, tables: Sequence[Array]) -> LabelOutput:
    why: UnsupportedError | None = None
    for scores, array in answers.items():
        try:
            return label_output(name, found, scores, array, tables)
        except UnsupportedError as error:
            why = error
    assert why is not None  # noqa: S101 - there is at least one output of numbers
    raise why


def _tried(answer: Answer, task: _Task, subject: Subject) -> tuple[tuple[Head, ...], Scaling]:
    """The heads and what is scaled, once the untaught student answers in the original's form."""
    found = answer([array[:_TRIED] for array in task.rows])
    shapes = [array.shape for array in found]
    if shapes != [array[:_TRIED].shape for array in task.answers]:
        specs = [subject.signature.outputs_by_name[head.name] for head in task.heads]
        mine = ", ".join(str(list(shape)) for shape in shapes) or "nothing"
        raise UnsupportedError(
            f"to {_TRIED} rows of {described(subject.signature.inputs)} the student answers "
            f"{mine}; the original answers {described(specs)}"
        )
    rows = [array[:_PROVEN] for array in task.rows]
    inputs = input_scales(rows, answer)
    found = answer(Scaling(inputs, ()).rows(rows))
    heads = tuple(map(_tried_head, task.heads, found))
    wanted = [array[:_PROVEN] for array in task.answers]
    return heads, Scaling(inputs, output_scales(heads, found, wanted))


def _tried_head(head: Head, found: Array) -> Head:
    if found.dtype.kind != "f":
        raise UnsupportedError(f"the student answers {found.dtype} where {head.name} is float")
    if not np.isfinite(found).all():
        raise UnsupportedError("the student answers NaN or infinities, untaught")
    shares = are_probabilities(found)
    if head.kind == SCORES and shares:
        raise UnsupportedError(
            "the student answers probabilities, the original scores: leave its last softmax out"
        )
    return replace(head, softmax=head.kind == PROBABILITIES and not shares)


def _lessons(task: _Task, subject: Subject) -> tuple[Lesson, Lesson, str]:
    """What is learned, what is held out, and what to say about labels."""
    labels, told = None, ""
    if subject.target is not None and len(task.heads) == 1:
        table = task.labels[0].table if task.labels else None
        labels, why = right_answers(
            subject.target[task.chosen], task.heads[0], task.answers[0], table
        )
        told = " and their labels" if labels is not None else f", without labels: {why}"
    whole = Lesson(task.rows, task.answers, labels)
    count = whole.count
    held = int(min(max(_HELD_SHARE * count, _LEAST_HELD), _MOST_HELD))
    order = np.random.default_rng(_SEED).permutation(count)
    lesson = whole.take(np.sort(order[held:]))
    names = [spec.name for spec in subject.signature.inputs]
    outputs = {head.name: a for head, a in zip(task.heads, lesson.answers, strict=True)}
    rows = dict(zip(names, lesson.rows, strict=True))
    made, heard = more_rows(subject.variant.model, rows, outputs, _ASSUMED_COST)
    if made:
        answers = [heard[head.name].astype(np.float32) for head in task.heads]
        fine = np.logical_and.reduce(
            [np.isfinite(a.reshape(len(a), -1)).all(axis=1) for a in answers]
        )
        lesson = lesson.with_more([made[n][fine] for n in names], [a[fine] for a in answers])
    return lesson, whole.take(np.sort(order[:held])), told


def _standing_in(
    made: Artifact, subject: Subject, task: _Task, heads: Sequence[Head], scaling: Scaling
) -> bytes:
    engine = subject.variant.engine
    if made.engine != engine:
        raise UnsupportedError(f"it became a model of {made.engine}, not of {engine}")
    content = made.files[made.model_file]
    return stand_in(content, made.signature, subject.signature, heads, task.labels, scaling)


def _compare(
    model: bytes,
    subject: Subject,
    task: _Task,
    heads: Sequence[Head],
    scaling: Scaling,
    answer: Answer,
) -> None:
    """The graph answers in the original's form what the student in its framework does."""
    chosen = task.chosen[:_COMPARED]
    rows = {name: array[chosen] for name, array in subject.rows.items()}
    found = served(parse(model), rows)
    for name, expected in subject.answers.items():
        wanted = expected[chosen]
        if found[name].shape != wanted.shape or found[name].dtype != wanted.dtype:
            raise UnsupportedError(
                f"as ONNX it answers {name} {found[name].dtype} {list(found[name].shape)}, the "
                f"original {wanted.dtype} {list(wanted.shape)}"
            )
    own = answer(scaling.rows([rows[spec.name] for spec in subject.signature.inputs]))
    for head, scale, array in zip(heads, scaling.outputs, own, strict=True):
        wide = array.astype(np.float64)
        if head.softmax:
            powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
            wide = powers / powers.sum(axis=-1, keepdims=True)
        wide = wide if scale is None else scale.undone(wide)
        apart = float(np.abs(found[head.name] - wide).max())
        if not apart <= _APART * max(float(np.abs(wide).max()), 1.0):
            raise UnsupportedError(f"as ONNX it answers another {head.name}: {apart:.3g} apart")
