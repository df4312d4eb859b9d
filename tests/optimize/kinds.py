"""Models of many kinds, trained on the spot, with as many fresh rows as anybody asks for.

Every kind draws its rows from a distribution that is known in full, so what `optimize` promises
about rows that it has not seen can be checked on ten thousand that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.optimize.kinds_classic import (
    columns,
    forest,
    lightgbm,
    neighbours,
    perceptron,
    support_vectors,
    text,
    words_as_labels,
    xgboost,
)
from tests.optimize.kinds_graphs import loop, one_by_one, scan, towers
from tests.optimize.kinds_networks import (
    cnn,
    gru,
    keras_cnn,
    keras_numbers,
    lstm,
    transformer,
    vectors,
)
from tests.optimize.made import Made


@dataclass(frozen=True)
class Kind:
    """One of `KINDS`.

    Parameters
    ----------
    make : callable
        From a size, 1 for tests and about 4 for what people deploy, to the model.
    passes : tuple of str
        Those that tests try: quick, and not refused at once.
    max_drop : float
        What tests accept to lose.
    """

    make: Callable[[int], Made]
    passes: tuple[str, ...]
    max_drop: float = 0.02


KINDS: Final[dict[str, Kind]] = {
    "cnn": Kind(cnn, ("float16", "int8-static", "load")),
    "keras-cnn": Kind(keras_cnn, ("int8-static", "load")),
    "keras-numbers": Kind(keras_numbers, ("int8-static", "float16", "student")),
    "lstm": Kind(lstm, ("int8-dynamic", "weight-only")),
    "gru": Kind(gru, ("float16", "int8-dynamic")),
    "transformer": Kind(transformer, ("int8-dynamic", "float16")),
    "vectors": Kind(vectors, ("int8-dynamic", "weight-only")),
    "perceptron": Kind(perceptron, ("int8-static", "student")),
    "xgboost": Kind(xgboost, ("trees",), max_drop=0.03),
    "lightgbm": Kind(lightgbm, ("trees", "load")),
    "forest": Kind(forest, ("trees", "dead-features")),
    "words-as-labels": Kind(words_as_labels, ("trees",), max_drop=0.03),
    "columns": Kind(columns, ("linear", "dead-features")),
    "support-vectors": Kind(support_vectors, ("linear", "student")),
    "neighbours": Kind(neighbours, ("student",), max_drop=0.03),
    "text": Kind(text, ("vocabulary", "dead-features")),
    "towers": Kind(towers, ("int8-static", "float16")),
    "scan": Kind(scan, ("float16", "int8-dynamic", "weight-only")),
    "loop": Kind(loop, ("int8-dynamic", "load")),
    "one-by-one": Kind(one_by_one, ("int8-static", "float16")),
}
