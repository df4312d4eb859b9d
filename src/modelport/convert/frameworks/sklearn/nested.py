"""The estimators inside an estimator."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

# Lists of numbers are long, and hold no estimators.
_HOLDERS: Final = (BaseEstimator, dict, list, tuple, np.ndarray)


def estimators_in(model: Any) -> Iterator[Any]:
    """The model itself and every fitted estimator in it, each once, always in the same order."""
    seen: set[int] = set()
    waiting: deque[Any] = deque([model])
    while waiting:
        thing = waiting.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, BaseEstimator):
            yield thing
            waiting.extend(vars(thing).values())
        elif isinstance(thing, dict):
            waiting.extend(thing.values())
        elif isinstance(thing, list | tuple):
            waiting.extend(item for item in thing if isinstance(item, _HOLDERS))
        elif isinstance(thing, np.ndarray) and thing.dtype == object:
            waiting.extend(item for item in thing.flat if isinstance(item, _HOLDERS))


def unwrap(model: Any) -> Any:
    """The estimator that a search found, else the model."""
    while hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    return model


def last_step(model: Any) -> Any:
    """The final estimator of a pipeline, else the model."""
    while isinstance(model, Pipeline):
        model = model.steps[-1][1]
    return model


def first_step(model: Any) -> Any:
    """The first estimator of a pipeline that does something, else the model."""
    while isinstance(model, Pipeline):
        doing = [step for _, step in model.steps if step is not None and step != "passthrough"]
        if not doing:
            return model
        model = doing[0]
    return model
