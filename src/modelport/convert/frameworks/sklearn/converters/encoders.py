"""Encoders of categories that are numbers, selectors, and sparse answers made dense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from modelport.convert.frameworks.sklearn.converters.writer import Writer
from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array


def one_hot(writer: Writer) -> None:
    """``OneHotEncoder`` of numbers, also with rare categories in one column."""
    model, matrix = writer.model, writer.matrix()
    blocks = []
    known: list[str] = []
    for place, categories in enumerate(model.categories_):
        column = writer.add("Gather", matrix, writer.constant([place]), axis=1)
        found = _found(writer, column, np.asarray(categories))
        if model.handle_unknown == "error":
            known.append(writer.row_sums(found, keep=1))
        blocks.append(_block(writer, model, place, found))
    answer = blocks[0] if len(blocks) == 1 else writer.add("Concat", *blocks, axis=1)
    if known:
        # The source refuses unknown categories: so does this, by looking beyond the end.
        all_known = writer.add("Concat", *known, axis=1) if len(known) > 1 else known[0]
        least = writer.add("ReduceMin", all_known, writer.constant([1]), keepdims=1)
        unknown = writer.cast(writer.plus(writer.times(least, -1.0), 1.0), np.int64)
        answer = writer.add(
            "Add", answer, writer.add("Gather", writer.constant(np.zeros(1)), unknown, axis=0)
        )
    writer.give(answer)


def _found(writer: Writer, column: str, categories: Array) -> str:
    numbers = categories.astype(np.float64)
    equal = writer.add("Equal", column, writer.constant(numbers[np.newaxis]))
    if np.isnan(numbers).any():
        missing = writer.add("IsNaN", column)
        is_nan = writer.cast(writer.constant(np.isnan(numbers)[np.newaxis].astype(int)), bool)
        equal = writer.add("Or", equal, writer.add("And", missing, is_nan))
    return writer.cast(equal, writer.dtype)


def _block(writer: Writer, model: Any, place: int, found: str) -> str:
    """The columns of one feature: rare ones joined, the dropped one left out."""
    count = len(model.categories_[place])
    rare = (getattr(model, "_infrequent_indices", None) or [None] * (place + 1))[place]
    columns: list[list[int]] = [[i] for i in range(count)]
    if rare is not None and len(rare):
        columns = [[i] for i in range(count) if i not in set(rare)] + [sorted(map(int, rare))]
    dropped = None if model.drop_idx_ is None else model.drop_idx_[place]
    if dropped is not None:
        if rare is not None and len(rare):
            raise UnsupportedError("a OneHotEncoder that drops columns and joins rare categories")
        columns = [c for c in columns if c != [int(dropped)]]
    unknown_is_rare = model.handle_unknown == "infrequent_if_exist" and rare is not None
    matrix = np.zeros((count, len(columns)))
    for column, members in enumerate(columns):
        matrix[members, column] = 1.0
    answer = writer.dot(found, matrix)
    if unknown_is_rare and len(rare):
        missed = writer.plus(writer.times(writer.row_sums(found, keep=1), -1.0), 1.0)
        answer = str(
            writer.add("Add", answer, writer.dot(missed, np.eye(1, len(columns), len(columns) - 1)))
        )
    return answer


def suits_one_hot(model: Any) -> bool:
    """Whether categories are fractions, or rare ones are joined: skl2onnx has neither.

    Raises
    ------
    UnsupportedError
        For rare words.
    """
    kinds = {np.asarray(categories).dtype.kind for categories in model.categories_}
    rare = any(r is not None for r in getattr(model, "_infrequent_indices", None) or [])
    if rare and not kinds <= set("iuf"):
        raise UnsupportedError(
            "a OneHotEncoder joins rare categories of text, which cannot be exported; "
            "replace rare words by one word before the model, or leave out min_frequency "
            "and max_categories"
        )
    return rare or kinds == {"f"}


def where(
    suits: Callable[[Any], bool], converter: Callable[[Writer], None], otherwise: Any
) -> Callable[[Any, Any, Any], None]:
    """`converter` for the estimators that it suits, skl2onnx's own for the others."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        if suits(operator.raw_operator):
            converter(Writer(scope, operator, container))
        else:
            otherwise(scope, operator, container)

    return convert


def suits_ordinal(model: Any) -> bool:
    """Whether unknown categories become NaN."""
    unknown = model.unknown_value
    return isinstance(unknown, float) and unknown != unknown


def ordinal(writer: Writer) -> None:
    """``OrdinalEncoder`` that makes unknown categories NaN, as histogram boosting has it."""
    categories = iter(writer.model.categories_)
    columns = []
    for name, width, text in writer.columns():
        for place in range(width):
            column = writer.add("Gather", name, writer.constant([place]), axis=1)
            known = np.asarray(next(categories))
            columns.append(_codes(writer, column, known, text))
    writer.give(writer.add("Concat", *columns, axis=1) if len(columns) > 1 else columns[0])


def _codes(writer: Writer, column: str, categories: Array, text: bool) -> str:
    if text:
        words = [str(c) for c in categories if isinstance(c, str)]
        codes = writer.add(
            "LabelEncoder",
            column,
            domain="ai.onnx.ml",
            keys_strings=words,
            values_floats=[float(i) for i in range(len(words))],
            default_float=float("nan"),
        )
        return writer.cast(codes, writer.dtype)
    numbers = categories.astype(np.float64)
    found = _found(writer, writer.cast(column, writer.dtype), numbers[~np.isnan(numbers)])
    codes = writer.dot(found, np.arange(_count_of(numbers), dtype=np.float64)[:, np.newaxis])
    none = writer.add("Equal", writer.row_sums(found, keep=1), writer.constant(np.zeros(1)))
    return str(writer.add("Where", none, writer.constant(np.full(1, np.nan)), codes))


def _count_of(numbers: Array) -> int:
    return int(np.count_nonzero(~np.isnan(numbers)))


def suits_imputer(model: Any) -> bool:
    """Numbers in place of NaN: of skl2onnx's operator ONNX Runtime has no float64.

    And every imputer that also says where something was missing, which skl2onnx forgets.
    """
    if model.statistics_.dtype.kind != "f":
        return False
    return getattr(model, "indicator_", None) is not None or _is_nan(model.missing_values)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))


def impute(writer: Writer) -> None:
    """``SimpleImputer`` of numbers."""
    model, matrix = writer.model, writer.matrix()
    values = np.asarray(model.statistics_, dtype=np.float64)
    if not _is_nan(model.missing_values):
        raise UnsupportedError("a SimpleImputer with an indicator replaces numbers, not NaN")
    missing = writer.add("IsNaN", matrix)
    filled = writer.add("Where", missing, writer.constant(values), matrix)
    if np.isnan(values).any() and not model.keep_empty_features:
        kept = writer.constant(np.flatnonzero(~np.isnan(values)))
        filled = writer.add("Gather", filled, kept, axis=1)
    if getattr(model, "indicator_", None) is None:
        writer.give(filled)
        return
    marked = writer.constant(np.asarray(model.indicator_.features_))
    flags = writer.cast(writer.add("Gather", missing, marked, axis=1), writer.dtype)
    writer.give(writer.add("Concat", filled, flags, axis=1))


def chosen_features(writer: Writer) -> None:
    """``SequentialFeatureSelector``."""
    indices = np.flatnonzero(writer.model.support_)
    writer.give(writer.add("Gather", writer.matrix(), writer.constant(indices), axis=1))


def discretize(writer: Writer) -> None:
    """``KBinsDiscretizer``: how many inner edges a number reaches."""
    model, matrix = writer.model, writer.matrix()
    blocks = []
    for place, edges in enumerate(model.bin_edges_):
        column = writer.add("Gather", matrix, writer.constant([place]), axis=1)
        inner = np.asarray(edges, dtype=np.float64)[1:-1]
        if len(inner):
            reached = writer.add("GreaterOrEqual", column, writer.constant(inner[np.newaxis]))
            number = writer.row_sums(writer.cast(reached, np.int64), keep=1)
        else:
            number = writer.cast(writer.times(column, 0.0), np.int64)
        if model.encode != "ordinal":
            bins = writer.constant(np.arange(len(inner) + 1)[np.newaxis])
            number = writer.add("Equal", number, bins)
        blocks.append(writer.cast(number, writer.dtype))
    writer.give(writer.add("Concat", *blocks, axis=1) if len(blocks) > 1 else blocks[0])
