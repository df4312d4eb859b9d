"""The scikit-learn framework adapter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from modelport.convert.base import Attempt, Probe
from modelport.convert.frameworks.sklearn.answers import SECONDARY, answer, dense, task_of
from modelport.convert.frameworks.sklearn.export import Recipe, export
from modelport.convert.frameworks.sklearn.layout import BATCH, INPUT, layout_of
from modelport.convert.frameworks.sklearn.loading import load_estimator
from modelport.convert.frameworks.sklearn.made_up import make_up_rows
from modelport.convert.frameworks.sklearn.nested import last_step, unwrap
from modelport.convert.frameworks.sklearn.refusals import refuse_known
from modelport.convert.frameworks.sklearn.steps import answers_of_steps
from modelport.convert.frameworks.sklearn.trees import (
    compares_wide,
    rows_next_to_thresholds,
    trees_in,
)
from modelport.core.errors import InputError, UnsupportedError
from modelport.core.golden import choose_rows
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource
from modelport.core.tensors import STRING, Array, TensorSpec

_FORMATS: Final = ("pickle", "joblib", "skops")
_PROBED_ROWS: Final = 64


class SklearnFramework:
    """Loads fitted scikit-learn estimators and exports them with skl2onnx."""

    def recognises(self, audited: AuditedSource) -> bool:
        """See `modelport.convert.base.Framework.recognises`."""
        if audited.format == "object":
            return isinstance(audited.source.model, BaseEstimator)
        return audited.format in _FORMATS

    def load(self, audited: AuditedSource) -> SklearnModel:
        """See `modelport.convert.base.Framework.load`."""
        estimator, notes = load_estimator(audited)
        return SklearnModel(estimator, notes)


class SklearnModel:
    """A fitted estimator.

    Parameters
    ----------
    estimator : BaseEstimator
    notes : tuple of str
        See `modelport.convert.base.SourceModel.notes`.
    """

    def __init__(self, estimator: Any, notes: tuple[str, ...] = ()) -> None:
        self._estimator = unwrap(estimator)
        self._notes = notes
        self._task = task_of(self._estimator)
        self._layout = layout_of(self._estimator)

    @property
    def task(self) -> str:
        """See `modelport.convert.base.SourceModel.task`."""
        return self._task

    @property
    def framework_version(self) -> str:
        """See `modelport.convert.base.SourceModel.framework_version`."""
        return f"scikit-learn {sklearn.__version__}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `modelport.convert.base.SourceModel.notes`."""
        return self._notes

    def predict(self, rows: Rows) -> dict[str, Array]:
        """See `modelport.convert.base.SourceModel.predict`."""
        answers = answer(self._estimator, self._task, self._layout.for_source(rows))
        # ONNX has one space of names: an output cannot be called as a column is.
        taken = set(self._layout.names)
        return {f"{n}_output" if n in taken else n: array for n, array in answers.items()}

    def attempts(self, rows: Rows | None) -> Sequence[Attempt]:
        """In float32, then in float64; last without scores or distances.

        Decimals of a file often equal a threshold (the middle between two others), and rounded to
        float32 they may pass it: models that compare in float64 come in float64 first. So do all
        where float32 blurs the rows.
        """
        if rows is None:
            raise UnsupportedError(
                f"the {type(self._estimator).__name__} needs sample rows to be converted",
                hint="give some with --sample",
            )
        refuse_known(self._estimator)
        few = Rows({n: a[choose_rows(len(a), 8)] for n, a in rows.columns.items()}, rows.where)
        outputs = tuple(_output(name, array) for name, array in self.predict(few).items())
        attempts = []
        widths = (False, True)
        if rows.blur_in_float32 or (not rows.fit_float32 and compares_wide(self._estimator)):
            widths = (True, False)
        for kept in _possible(outputs):
            left_out = [spec.name for spec in outputs if spec not in kept]
            ending = f" without {', '.join(left_out)}" if left_out else ""
            for wide in widths:
                inputs = self._inputs(few, wide)
                if wide and not any(spec.numpy_dtype.kind == "f" for spec in inputs):
                    continue
                recipe = Recipe(self._estimator, self._layout, inputs, kept, wide, tuple(left_out))
                name = f"skl2onnx {'float64' if wide else 'float32'}{ending}"
                attempts.append(Attempt(name, partial(export, recipe)))
        return attempts

    def native(self, rows: Rows | None) -> Attempt | None:
        """None: there is no engine for it."""
        return None

    def layers(self, rows: Rows) -> list[tuple[str, Array]]:
        """See `modelport.convert.base.Inspectable.layers`: the answers of a pipeline's steps."""
        return answers_of_steps(self._estimator, self._layout.for_source(rows))

    def made_up_rows(self) -> Rows | None:
        """See `modelport.convert.base.SourceModel.made_up_rows`."""
        rows = make_up_rows(self._estimator, self._layout)
        try:
            self.predict(rows)
        except InputError:
            return None
        return rows

    def probes(self, rows: Rows) -> Sequence[Probe]:
        """Rows next to the thresholds of trees, where they see the inputs as they are."""
        trees = self._trees
        if not trees or self._layout.form != "matrix":
            return []
        matrix = np.asarray(self._layout.for_source(rows), dtype=np.float64)
        matrix = matrix[choose_rows(len(matrix), _PROBED_ROWS)]
        before = self._before_trees()
        seen = dense(before.transform(matrix)) if hasattr(before, "transform") else matrix
        # Trees behind steps of their own (in a vote of pipelines) see other columns.
        trees = [tree for tree in trees if tree.feature.max() < seen.shape[1]]
        if not before:
            near = rows_next_to_thresholds(trees, matrix)
            return [Probe("next to tree thresholds", Rows({INPUT: near}))] if len(near) else []
        if not hasattr(before, "inverse_transform"):
            return []
        near = rows_next_to_thresholds(trees, seen)
        if not len(near):
            return []
        try:
            undone = before.inverse_transform(near)
        except ValueError:  # imputers have the method, and mostly refuse it
            return []
        # Undoing a step is inexact: here the last bit decides, in scikit-learn too.
        name = "next to tree thresholds, behind other steps"
        return [Probe(name, Rows({INPUT: undone}), gate=False)]

    @cached_property
    def _trees(self) -> list[Any]:
        return trees_in(last_step(self._estimator))

    def _before_trees(self) -> Any:
        """The steps between the inputs and the final estimator; falsy when there are none."""
        if not isinstance(self._estimator, Pipeline):
            return None
        doing = [
            s for s in self._estimator.steps[:-1] if s[1] is not None and s[1] != "passthrough"
        ]
        return Pipeline(doing) if doing else None

    def _inputs(self, rows: Rows, wide: bool) -> tuple[TensorSpec, ...]:
        real = "float64" if wide else "float32"
        layout = self._layout
        if layout.form != "columns":
            dtype = STRING if layout.kind == STRING else real
            return (TensorSpec(INPUT, dtype, (BATCH, layout.width), tuple(layout.names)),)
        specs = []
        for column in layout.columns:
            kind = column.kind(rows.columns[column.name])
            if kind == "int64" and column.categories is None and self._takes_nan(rows, column.name):
                kind = "float"
            dtype = real if kind == "float" else kind
            specs.append(TensorSpec(column.name, dtype, (BATCH, 1)))
        return tuple(specs)

    def _takes_nan(self, rows: Rows, name: str) -> bool:
        """Whether a whole number may be missing: then it cannot be served as an integer."""
        missing = np.full(len(rows), np.nan)
        try:
            self.predict(Rows({**rows.columns, name: missing}))
        except InputError:
            return False
        return True


def _output(name: str, array: Array) -> TensorSpec:
    if array.ndim > 2:
        raise UnsupportedError(f"output {name} has {array.ndim} dimensions")
    dtype = STRING if array.dtype == object else "int64" if array.dtype.kind in "iub" else "float32"
    return TensorSpec(name, dtype, (BATCH, *array.shape[1:]))


def _possible(outputs: tuple[TensorSpec, ...]) -> list[tuple[TensorSpec, ...]]:
    """All outputs; then all that people cannot do without."""
    primary = tuple(s for s in outputs if s.name.removesuffix("_output") not in SECONDARY)
    return [outputs] if primary == outputs else [outputs, primary]
