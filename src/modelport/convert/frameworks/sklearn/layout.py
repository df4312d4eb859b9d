"""What a fitted estimator takes: one matrix, documents, or columns by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression

from modelport.convert.frameworks.sklearn.nested import estimators_in, first_step, last_step
from modelport.core.errors import SignatureError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import STRING, Array, TensorSpec

#: Name of the one input of a model that takes a matrix or documents.
INPUT: Final = "input"
#: Leads every shape.
BATCH: Final = "N"

_ANY_OUTPUT: Final = (TensorSpec("output", "float32", (BATCH,)),)


@dataclass(frozen=True)
class Column:
    """One column of a data frame, as the model was fitted on it.

    Parameters
    ----------
    name : str
    categories : ndarray or None
        What an encoder learned for it.
    missing : object
        What an encoder or imputer takes for missing text (None or NaN), where it knows any; an
        empty text stands for it when served.
    """

    name: str
    categories: Array | None = None
    missing: Any = None
    knows_missing: bool = False

    def kind(self, sample: Array | None) -> str:
        """``string``, ``int64`` or ``float``: by the categories, else by the sample."""
        if self.knows_missing:
            return STRING
        known = self.categories if self.categories is not None else sample
        if known is None:
            return "float"
        if known.dtype.kind not in "biuf":
            return STRING if any(isinstance(item, str) for item in known.ravel()) else "float"
        return "int64" if known.dtype.kind in "iu" else "float"


@dataclass(frozen=True)
class Layout:
    """What the model takes.

    Parameters
    ----------
    form : str
        ``matrix``, ``documents`` or ``columns``.
    width : int
        Columns of the matrix.
    columns : tuple of Column
        By name; of a matrix only where the model knows the names.
    kind : str
        Of a matrix: ``float`` or ``string``.
    """

    form: str
    width: int = 1
    columns: tuple[Column, ...] = ()
    kind: str = "float"
    _source: Signature = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = tuple(column.name for column in self.columns)
        dtype = STRING if self.kind == STRING else "float64"
        spec = TensorSpec(INPUT, dtype, (BATCH, self.width), names)
        object.__setattr__(self, "_source", Signature((spec,), _ANY_OUTPUT))

    @property
    def names(self) -> list[str]:
        """Column names, in the model's order."""
        return [column.name for column in self.columns]

    def for_source(self, rows: Rows) -> Any:
        """`rows` as the estimator wants them: an array, documents or a data frame.

        Raises
        ------
        SignatureError
            When columns are missing or do not fit.
        """
        if self.form == "columns":
            return self._frame(rows)
        matrix = rows.bind(self._source)[INPUT]
        if self.form == "documents":
            return matrix[:, 0]
        if all(array.dtype == np.float32 for array in rows.columns.values()):
            matrix = matrix.astype(np.float32)
        if not self.columns:
            return matrix
        return pd.DataFrame(matrix, columns=self.names)

    def _frame(self, rows: Rows) -> pd.DataFrame:
        absent = [name for name in self.names if name not in rows.columns]
        if absent:
            there = ", ".join(name or "one array without a name" for name in rows.columns)
            raise SignatureError(
                f"columns are missing: {', '.join(absent)}; the data has {there}", where=rows.where
            )
        return pd.DataFrame({c.name: _series(c, rows.columns[c.name]) for c in self.columns})


def _series(column: Column, array: Array) -> pd.Series:
    values = array.reshape(-1)
    if values.dtype.kind in "biuf":
        if column.kind(None) != STRING:
            return pd.Series(values)
        # Codes that are text to the model, and that a file gave back as numbers.
        values = np.asarray([str(value) for value in values], dtype=object)
    values = values.astype(object)
    if column.knows_missing:
        values[[_is_missing(value) or value == "" for value in values]] = column.missing
    return pd.Series(values, dtype=object)


def layout_of(model: Any) -> Layout:
    """Find out what a fitted estimator takes.

    Raises
    ------
    UnsupportedError
        When text and numbers stand in one matrix without column names.
    """
    if isinstance(first_step(model), CountVectorizer | HashingVectorizer):
        return Layout("documents", kind=STRING)
    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    known = _categories(model, names)
    transformed = any(isinstance(e, ColumnTransformer) for e in estimators_in(model))
    textual = any(column.kind(None) == STRING for column in known.values())
    columns = tuple(known.get(name, Column(name)) for name in names)
    if names and (transformed or textual):
        return Layout("columns", len(names), columns)
    width = getattr(model, "n_features_in_", None)
    if isinstance(last_step(model), IsotonicRegression) and first_step(model) is last_step(model):
        width = 1
    if width is None:
        raise UnsupportedError(
            f"the {type(model).__name__} does not tell how many columns it takes"
        )
    encoder = first_step(model)
    kinds = {Column("", c).kind(None) for c in _categories_of(encoder, int(width)).values()}
    if len(kinds) > 1 and STRING in kinds:
        raise UnsupportedError(
            "the model takes text and numbers in one matrix",
            hint="fit it on a pandas DataFrame, so that the columns have names",
        )
    kind = STRING if kinds == {STRING} or _imputes_text(encoder) else "float"
    return Layout("matrix", int(width), columns, kind)


def _categories(model: Any, names: list[str]) -> dict[str, Column]:
    """Columns of which encoders or imputers know more than the name."""
    found: dict[str, Column] = {}
    sources: list[tuple[list[int], Any]] = [(list(range(len(names))), first_step(model))]
    for transformer in estimators_in(model):
        if not isinstance(transformer, ColumnTransformer) or not names:
            continue
        if list(getattr(transformer, "feature_names_in_", ())) != names:
            continue  # it stands behind another one, and sees other columns
        indices: Mapping[str, Any] = getattr(transformer, "_transformer_to_input_indices", {})
        for name, step, _ in transformer.transformers_:
            if name in indices and hasattr(step, "fit"):
                sources.append(([int(i) for i in indices[name]], step))
    for positions, step in sources:
        if max(positions, default=-1) >= len(names):
            continue
        for part in estimators_in(step):
            for offset, categories in _categories_of(part, len(positions)).items():
                found[names[positions[offset]]] = _with_categories(
                    names[positions[offset]], categories
                )
        for part in estimators_in(step):
            if _imputes_text(part) and len(part.statistics_) == len(positions):
                for name in (names[position] for position in positions):
                    found[name] = Column(
                        name, found.get(name, Column(name)).categories, part.missing_values, True
                    )
    return found


def _with_categories(name: str, categories: Array) -> Column:
    absent = [c for c in categories if _is_missing(c)] if categories.dtype == object else []
    return Column(name, categories, absent[0] if absent else None, bool(absent))


def _categories_of(part: Any, width: int) -> dict[int, Array]:
    categories = getattr(part, "categories_", None)
    if not isinstance(categories, list) or len(categories) != width:
        return {}
    return {i: np.asarray(values) for i, values in enumerate(categories)}


def _imputes_text(part: Any) -> bool:
    return (
        isinstance(part, SimpleImputer)
        and hasattr(part, "statistics_")
        and any(isinstance(value, str) for value in np.ravel(part.statistics_))
        and _is_missing(part.missing_values)
    )


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)
