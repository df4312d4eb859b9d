"""Columns of a table become the model's matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from modelport.core.errors import InputError
from modelport.core.steps import Column, TableStep
from modelport.core.tensors import STRING, Array, Tensors, TensorSpec
from modelport.processing.base import Facts, Transform


class TableProcessor:
    """See the module."""

    def fit(self, step: TableStep, facts: Facts) -> TableStep:
        """See `modelport.processing.base.Processor.fit`."""
        spec = facts.input_for(step.kind, step.to, ranks=(2,))
        columns = step.columns
        if spec is not None:
            if len(spec.shape) != 2 or spec.numpy_dtype.kind not in "fiu":
                raise InputError(
                    f"the table step makes a matrix of numbers; input {spec.name} is "
                    f"{spec.dtype} {spec.shape_text}"
                )
            columns = columns or tuple(Column(name) for name in spec.columns)
            width = spec.shape[1]
            if columns and isinstance(width, int) and len(columns) != width:
                raise InputError(
                    f"{len(columns)} columns do not fit input {spec.name} {spec.shape_text}"
                )
            if step.dtype not in ("", spec.dtype):
                raise InputError(f"input {spec.name} is {spec.dtype}, not {step.dtype}")
        if not columns:
            raise InputError("the model does not tell its columns", hint="declare 'columns'")
        dtype = step.dtype or (spec.dtype if spec is not None else "float32")
        columns = tuple(replace(column, dtype=column.dtype or dtype) for column in columns)
        return replace(step, to=spec.name if spec else step.to, dtype=dtype, columns=columns)

    def open(self, step: TableStep, facts: Facts) -> Transform:
        """See `modelport.processing.base.Processor.open`."""
        specs = facts.signature.inputs_by_name if facts.signature is not None else {}
        refuses = specs[step.to].refuses if step.to in specs else ()
        return TableTransform(step, facts.lead, refuses)


class TableTransform:
    """Stacks columns; categories and missing values become numbers on the way.

    Parameters
    ----------
    step : TableStep
        Fitted.
    lead : int or str
        The batch dimension.
    refuses : tuple of str
        Values that the matrix must not hold; see `modelport.core.tensors.TensorSpec`.
    """

    row_independent = True
    library = ""

    def __init__(self, step: TableStep, lead: int | str, refuses: tuple[str, ...]) -> None:
        self._step = step
        names = [column.name for column in step.columns]
        self.takes = tuple(
            TensorSpec(column.name, column.dtype, (lead,), refuses=_refused(column, refuses))
            for column in step.columns
        )
        matrix = TensorSpec(step.to, step.dtype, (lead, len(names)), tuple(names))
        self.gives = (matrix,)

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """See `modelport.processing.base.Transform.run`."""
        columns = [_numbers(column, tensors[column.name]) for column in self._step.columns]
        matrix = np.empty((len(columns[0]), len(columns)), dtype=self._step.dtype)
        for position, values in enumerate(columns):
            matrix[:, position] = values
        return {self._step.to: matrix}


def _refused(column: Column, refuses: tuple[str, ...]) -> tuple[str, ...]:
    """A column whose missing values have a number takes NaN."""
    if column.dtype == STRING:
        return ()
    return tuple(kind for kind in refuses if kind != "nan" or column.missing is None)


def _numbers(column: Column, values: Array) -> Array:
    if column.dtype == STRING:
        return np.asarray([_code(column, column.codes, text, i) for i, text in enumerate(values)])
    if column.missing is not None and values.dtype.kind == "f":
        return np.where(np.isnan(values), values.dtype.type(column.missing), values)
    return values


def _code(column: Column, codes: Mapping[str, float], text: str, row: int) -> float:
    if not text and column.missing is not None:
        return column.missing
    code = codes.get(text, column.unknown)
    if code is None:
        shown = ", ".join(sorted(codes)[:20]) + (", …" if len(codes) > 20 else "")
        raise InputError(
            f"unknown category: {text[:40]!r}; there is: {shown}", where=f"{column.name}[{row}]"
        )
    return code
