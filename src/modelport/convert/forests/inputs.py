"""What boosted trees take: one matrix of numbers, or columns when some of them are text.

Libraries of boosted trees see categories as codes: positions in a list that they remember. Here
rows become codes, for the source model, and nodes do the same in the graph.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from modelport.convert.forests.graph import GraphBuilder
from modelport.core.errors import InputError, SignatureError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import STRING, Array, TensorSpec

#: Name of the one input of a model that takes a matrix.
INPUT: Final = "input"
#: Leads every shape.
BATCH: Final = "N"

_ANY_OUTPUT: Final = (TensorSpec("output", "float32", (BATCH,)),)

Category = str | float


@dataclass(frozen=True)
class Feature:
    """One feature of the model.

    Parameters
    ----------
    name : str
        Empty where the model knows none.
    categories : tuple of str or of float
        Values by code; empty for numbers and for codes as they are.
    """

    name: str = ""
    categories: tuple[Category, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether its categories are text."""
        return any(isinstance(category, str) for category in self.categories)


@dataclass(frozen=True)
class TreeInputs:
    """The features of a model, in its order.

    Parameters
    ----------
    features : tuple of Feature
    refuse_unseen : bool
        Whether the library refuses categories that it has not seen; else they are missing.
    """

    features: tuple[Feature, ...]
    refuse_unseen: bool = False

    @property
    def in_columns(self) -> bool:
        """Whether every feature is an input of its own."""
        return any(feature.is_text for feature in self.features)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names; none where the model does not know all."""
        names = tuple(feature.name for feature in self.features)
        return names if all(names) else ()

    def named_as_in(self, rows: Rows) -> TreeInputs:
        """The same features under the names of `rows`, where those differ by white space only.

        LightGBM writes underscores for spaces in names.
        """
        plain = {re.sub(r"\s", "_", name): name for name in rows.columns if name}
        if set(self.names) <= rows.columns.keys() or not set(self.names) <= plain.keys():
            return self
        return replace(self, features=tuple(replace(f, name=plain[f.name]) for f in self.features))

    def specs(self, real: str) -> tuple[TensorSpec, ...]:
        """The inputs to serve, numbers in the element type `real`."""
        if not self.in_columns:
            return (TensorSpec(INPUT, real, (BATCH, len(self.features)), self.names),)
        return tuple(
            TensorSpec(f.name, STRING if f.is_text else real, (BATCH, 1)) for f in self.features
        )

    def matrix(self, rows: Rows) -> Array:
        """Rows as the library sees them inside: numbers and codes, NaN where missing.

        Returns
        -------
        ndarray of float64, shape [n, features]

        Raises
        ------
        SignatureError
            When columns are missing or do not fit.
        InputError
            When a category was never seen, and the library refuses it.
        """
        if self.in_columns:
            columns = [self._column(rows, feature) for feature in self.features]
        else:
            bound = rows.bind(Signature(self.specs("float64"), _ANY_OUTPUT))[INPUT]
            columns = list(bound.T)
        coded = [
            self._codes(feature, column) if feature.categories else column.astype(np.float64)
            for feature, column in zip(self.features, columns, strict=True)
        ]
        return np.stack(coded, axis=1)

    def _column(self, rows: Rows, feature: Feature) -> Array:
        if feature.name not in rows.columns:
            there = ", ".join(name or "one array without a name" for name in rows.columns)
            raise SignatureError(
                f"columns are missing: {feature.name}; the data has {there}", where=rows.where
            )
        column = rows.columns[feature.name].reshape(-1)
        if feature.is_text:
            return column
        only = Rows({feature.name: column}, rows.where)
        spec = TensorSpec(feature.name, "float64", (BATCH, 1))
        return only.bind(Signature((spec,), _ANY_OUTPUT))[feature.name][:, 0]

    def _codes(self, feature: Feature, column: Array) -> Array:
        known = {category: code for code, category in enumerate(feature.categories)}
        codes = np.full(len(column), np.nan)
        for position, value in enumerate(column.tolist()):
            if value is None or value != value or (value == "" and value not in known):
                continue
            category = str(value) if feature.is_text else float(value)
            if category in known:
                codes[position] = known[category]
            elif self.refuse_unseen:
                raise InputError(
                    "the source model refuses the rows: "
                    f"{value!r} is not among the categories of {feature.name or 'a column'}"
                )
        return codes

    def rows(self, matrix: Array) -> Rows:
        """The inverse of `matrix`: codes as the categories that they stand for."""
        if not self.in_columns:
            decoded = [
                _decode(f, c) if f.categories else c
                for f, c in zip(self.features, matrix.T, strict=True)
            ]
            return Rows({INPUT: np.stack(decoded, axis=1).astype(matrix.dtype)})
        return Rows(
            {
                feature.name: _decode(feature, column) if feature.categories else column
                for feature, column in zip(self.features, matrix.T, strict=True)
            }
        )

    def add_to(self, builder: GraphBuilder, real: str) -> str:
        """Nodes that make the matrix of numbers and codes; returns the tensor's name."""
        if not any(feature.categories for feature in self.features):
            return INPUT
        parts = []
        for position, feature in enumerate(self.features):
            if self.in_columns:
                part = feature.name
            else:
                part = builder.add("Gather", INPUT, builder.constant([position]), axis=1)
            if feature.categories:
                part = self._add_codes(builder, feature, part, real)
            parts.append(part)
        return builder.add("Concat", *parts, axis=1)

    def _add_codes(self, builder: GraphBuilder, feature: Feature, column: str, real: str) -> str:
        """Look codes up in a table; a category never seen is beyond its end, if it is refused."""
        count = len(feature.categories)
        unseen = count + 1 if self.refuse_unseen else count
        if feature.is_text:
            keys = {str(c): code for code, c in enumerate(feature.categories)}
            keys.setdefault("", count)
            place = builder.add(
                "LabelEncoder",
                column,
                domain="ai.onnx.ml",
                keys_strings=list(keys),
                values_int64s=list(keys.values()),
                default_int64=unseen,
            )
        else:
            place = _add_place(builder, feature, column, real, unseen)
        table = np.asarray([*range(count), np.nan], dtype=real)
        return builder.add("Gather", builder.constant(table), place, axis=0)


def _decode(feature: Feature, codes: Array) -> Array:
    values: list[Any] = [
        None if code != code else feature.categories[int(code) % len(feature.categories)]
        for code in codes.tolist()
    ]
    if feature.is_text:
        return np.asarray([None if v is None else str(v) for v in values], dtype=object)
    return np.asarray([np.nan if v is None else float(v) for v in values])


def _add_place(builder: GraphBuilder, feature: Feature, column: str, real: str, unseen: int) -> str:
    """Where a number stands among the categories; NaN stands behind them."""
    known = np.asarray([feature.categories], dtype=np.float64).astype(real)
    equal = builder.cast(builder.add("Equal", column, builder.constant(known)), "float32")
    place = builder.add("ArgMax", equal, axis=1, keepdims=1)
    seen = builder.cast(builder.add("ReduceMax", equal, builder.constant([1]), keepdims=1), "bool")
    missing = builder.add("IsNaN", column)
    absent = builder.add(
        "Where",
        missing,
        builder.constant(np.int64(known.shape[1])),
        builder.constant(np.int64(unseen)),
    )
    return builder.add("Where", seen, place, absent)
