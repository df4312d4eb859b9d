"""Small students of a model for tables: a linear one, and boosted trees of several sizes.

They learn the original's scores (of probabilities, their logarithms: Hinton, Vinyals and Dean,
"Distilling the Knowledge in a Neural Network", 2015) on the calibration rows, and on rows mixed
of these for which the original is asked (Buciluă, Caruana and Niculescu-Mizil, "Model
Compression", KDD 2006). No labels are needed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import REDUCE, Progress, Subject, Variant
from modelport.optimize.classic.narrow import rounded_down
from modelport.optimize.classic.ridge import closeness, refitted
from modelport.optimize.classic.students import (
    Student,
    Teacher,
    ensemble_of,
    table_of,
    teacher_of,
)
from modelport.optimize.onnx_graph import parse
from modelport.optimize.session import Probe, batches

#: Rounds and leaves of each tree; the best first.
_SIZES: Final = ((200, 31), (60, 15), (20, 8))
_FEWEST_ROWS: Final = 60
_MOST_ROWS: Final = 12_000
_MOST_TARGETS: Final = 20
#: Of a graph for each leaf, with the comparison above it.
_BYTES: Final = 20
#: Numbers that learners look at, over all rounds: about half a minute.
_MOST_WORK: Final = 3_000_000_000
#: Bytes of a model that is loaded once more, to be asked about mixed rows: it takes ten times that.
_MOST_ASKED: Final = 30_000_000
#: Mixed rows for each row, and the chance that a column comes from another row.
_MIXED: Final = 5
_CHANCE: Final = 0.2
_SEED: Final = 5
_BATCH: Final = 256


class StudentPass:
    """See the module."""

    name = "student"
    order = REDUCE
    tolerance = float("inf")

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        count = len(next(iter(subject.rows.values())))
        try:
            teacher = teacher_of(parse(subject.variant.model), subject.answers)
        except UnsupportedError as error:
            return error.line
        if count < _FEWEST_ROWS:
            return f"{count} rows to learn from are too few: at least {_FEWEST_ROWS}"
        if teacher.targets.shape[1] > _MOST_TARGETS:
            return f"{teacher.targets.shape[1]} scores are too many for a student"
        return ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        model = parse(subject.variant.model)
        teacher = teacher_of(model, subject.answers)
        rows = {name: array[:_MOST_ROWS] for name, array in subject.rows.items()}
        most = len(subject.variant.model)
        table, targets = _lesson(model, teacher, rows, mixed=most <= _MOST_ASKED)
        report(f"  {len(table):,} rows to learn from, {teacher.targets.shape[1]} scores")
        smaller = 0
        for name, content in _students(teacher, table, targets, most, subject.deadline, report):
            if len(content) < most:
                smaller += 1
                yield subject.variant.then(f"student, {name}", content, rows=len(table))
        if not smaller:
            raise UnsupportedError(f"no student is smaller than its {most:,} bytes")


def _students(
    teacher: Teacher, table: Array, targets: Array, most: int, deadline: float, report: Progress
) -> Iterator[tuple[str, bytes]]:
    """The best first."""
    for rounds, leaves in _SIZES:
        if time.monotonic() > deadline:
            return
        if rounds * leaves * targets.shape[1] * _BYTES > most:
            continue  # it would be larger than the original
        work = table.size * targets.shape[1] * rounds
        if work > _MOST_WORK:
            report(f"  {rounds} trees for each score would take {work:,} steps: too long")
            continue
        yield (
            f"{rounds} trees of {leaves} leaves",
            _boosted(teacher, table, targets, rounds, leaves),
        )
    count = min(len(teacher.targets), len(table))
    if np.isfinite(table).all():
        yield "linear", _linear(teacher, table[:count], targets[:count])


def _lesson(
    model: onnx.ModelProto, teacher: Teacher, rows: Tensors, *, mixed: bool
) -> tuple[Array, Array]:
    """The rows with the original's scores, and mixed ones behind them."""
    tables, targets = [table_of(model, rows)], [teacher.targets[:_MOST_ROWS]]
    if mixed:
        probe = Probe(model, [], optimize=True)
        for part in batches(model, _mixed(rows), _BATCH):
            tables.append(table_of(model, part))
            targets.append(teacher.learned(probe.run(part, [teacher.scores])))
    table, target = np.concatenate(tables), np.concatenate(targets)
    fine = np.isfinite(target).all(axis=1)
    return table[fine], target[fine]


def _mixed(rows: Tensors) -> Tensors:
    """Rows with some columns of others."""
    random = np.random.default_rng(_SEED)
    count = len(next(iter(rows.values())))
    mixed: dict[str, list[Array]] = {name: [] for name in rows}
    for _ in range(min(_MIXED, _MOST_ROWS // count)):
        other = random.permutation(count)
        for name, array in rows.items():
            swap = random.random(array.shape) < _CHANCE
            mixed[name].append(np.where(swap, array[other], array))
    return {name: np.concatenate(parts) for name, parts in mixed.items()}


def _boosted(teacher: Teacher, table: Array, targets: Array, rounds: int, leaves: int) -> bytes:
    trees, columns, base = [], [], np.zeros(targets.shape[1])
    for column in range(targets.shape[1]):
        learner = HistGradientBoostingRegressor(
            max_iter=rounds, max_leaf_nodes=leaves, min_samples_leaf=5, early_stopping=False,
            learning_rate=min(0.3, 10 / rounds), l2_regularization=1.0, random_state=_SEED,
        )  # fmt: skip
        # One thread: where others use the cores too, several wait for each other most of the time.
        with warnings.catch_warnings(), threadpool_limits(1, "openmp"):
            warnings.simplefilter("ignore")  # about constants, and about cores that it counts
            learner.fit(table, targets[:, column])
        grown = [predictor.nodes for step in learner._predictors for predictor in step]
        trees += grown
        columns += [column] * len(grown)
        base[column] = float(np.ravel(learner._baseline_prediction)[0])
    ensemble = ensemble_of(trees, columns)
    ensemble.threshold[:] = rounded_down(ensemble.threshold)
    return Student(teacher).trees(ensemble, base)


def _linear(teacher: Teacher, table: Array, targets: Array) -> bytes:
    """On the rows themselves: mixed ones would bend the plane to where no row is."""
    scale = table.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    start = np.zeros((targets.shape[1], table.shape[1]))
    weights, intercepts = refitted(
        table / scale, targets, start, targets.mean(axis=0),
        closeness(targets) if teacher.label else None,
    )  # fmt: skip
    return Student(teacher).linear(weights / scale, intercepts)
