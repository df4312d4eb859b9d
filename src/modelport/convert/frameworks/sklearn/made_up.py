"""Rows for a model that came without a sample: where its own numbers say data lie."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from modelport.convert.frameworks.sklearn.layout import INPUT, Layout
from modelport.convert.frameworks.sklearn.nested import estimators_in, first_step
from modelport.convert.frameworks.sklearn.trees import trees_in
from modelport.core.rows import Rows
from modelport.core.tensors import STRING, Array

_ROWS: Final = 256
_WORDS: Final = 12
#: Fitted attributes that are rows, or bounds, of training data.
_EXAMPLES: Final = ("_fit_X", "support_vectors_", "cluster_centers_", "theta_", "means_")


def make_up_rows(model: Any, layout: Layout) -> Rows:
    """Always the same rows for the same model."""
    generator = np.random.default_rng(20261121)
    if layout.form == "columns":
        columns = {}
        for column in layout.columns:
            known = column.categories
            if known is not None:
                columns[column.name] = generator.choice(known, size=_ROWS)
            elif column.kind(None) == STRING:
                columns[column.name] = np.full(_ROWS, "", dtype=object)
            else:
                columns[column.name] = generator.normal(size=_ROWS)
        return Rows(columns, "made-up rows")
    if layout.form == "documents":
        words = sorted(getattr(first_step(model), "vocabulary_", {"word": 0}))
        chosen = generator.choice(np.asarray(words, dtype=object), size=(_ROWS, _WORDS))
        documents = np.asarray([" ".join(words) for words in chosen], dtype=object)
        return Rows({INPUT: documents}, "made-up rows")
    if layout.kind == STRING:
        categories = first_step(model).categories_
        matrix = np.stack([generator.choice(c, size=_ROWS) for c in categories], axis=-1)
        return Rows({INPUT: matrix.astype(object)}, "made-up rows")
    low, high = _range(model, layout.width)
    return Rows({INPUT: generator.uniform(low, high, size=(_ROWS, layout.width))}, "made-up rows")


def _range(model: Any, width: int) -> tuple[Array, Array]:
    """Lowest and highest value of each column."""
    first = first_step(model)
    if hasattr(first, "data_min_"):
        return first.data_min_, first.data_max_
    if hasattr(first, "mean_") and hasattr(first, "scale_") and np.size(first.mean_) == width:
        return first.mean_ - 3 * first.scale_, first.mean_ + 3 * first.scale_
    if first is model or not hasattr(first, "transform"):
        known = _examples(model, width)
        if known is not None:
            return known
    return np.full(width, -3.0), np.full(width, 3.0)


def _examples(model: Any, width: int) -> tuple[Array, Array] | None:
    trees = trees_in(model)
    if trees:
        low, high = np.full(width, -1.0), np.full(width, 1.0)
        features = np.concatenate([t.feature[~t.leaf] for t in trees])
        thresholds = np.concatenate([t.threshold[~t.leaf] for t in trees])
        for feature in np.unique(features[features < width]):
            found = thresholds[(features == feature) & np.isfinite(thresholds)]
            if found.size:
                margin = 0.1 * (found.max() - found.min()) + 0.1 * abs(found.max()) + 1e-3
                low[feature], high[feature] = found.min() - margin, found.max() + margin
        return low, high
    for part in estimators_in(model):
        for name in _EXAMPLES:
            rows = getattr(part, name, None)
            if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == width:
                return rows.min(axis=0), rows.max(axis=0) + 1e-3
    return None
