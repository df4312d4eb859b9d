"""The estimators inside an estimator."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.calibration import _CalibratedClassifier
from sklearn.pipeline import Pipeline

# Lists of numbers are long, and hold no estimators.
_HOLDERS: Final = (BaseEstimator, _CalibratedClassifier, dict, list, tuple, np.ndarray)


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
        elif isinstance(thing, _CalibratedClassifier):
            waiting.extend(vars(thing).values())
        elif isinstance(thing, dict):
            waiting.extend(thing.values())
        elif isinstance(thing, list | tuple):
            waiting.extend(item for item in thing if isinstance(item, _HOLDERS))
        elif isinstance(thing, np.ndarray) and thing.dtype == object:
            waiting.extend(item for item in thing.flat if isinstance(item, _HOLDERS))


def replaced(model: Any, replace: Callable[[Any], Any]) -> Any:
    """The model with `replace` applied to each estimator in it, the inner ones first.

    The model itself is changed: give a copy.
    """
    done: dict[int, Any] = {}

    def visit(thing: Any) -> Any:
        if not isinstance(thing, _HOLDERS):
            return thing
        if id(thing) in done:
            return done[id(thing)]
        done[id(thing)] = thing
        if isinstance(thing, BaseEstimator | _CalibratedClassifier):
            for name, value in list(vars(thing).items()):
                if isinstance(value, _HOLDERS) and (new := visit(value)) is not value:
                    vars(thing)[name] = new
            if isinstance(thing, BaseEstimator):
                done[id(thing)] = replace(thing)
        elif isinstance(thing, dict):
            for key, value in thing.items():
                thing[key] = visit(value)
        elif isinstance(thing, list):
            thing[:] = [visit(item) for item in thing]
        elif isinstance(thing, tuple):
            items = [visit(item) for item in thing]
            if any(new is not old for new, old in zip(items, thing, strict=True)):
                done[id(thing)] = tuple(items)
        elif isinstance(thing, np.ndarray) and thing.dtype == object:
            for place, item in enumerate(thing.flat):
                thing.flat[place] = visit(item)
        return done[id(thing)]

    return visit(model)


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
