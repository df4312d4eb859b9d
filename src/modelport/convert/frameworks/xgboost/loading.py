"""Reading XGBoost models: its own files, pickles of its wrappers, live objects."""

from __future__ import annotations

import json
import warnings
from typing import Any

import xgboost
from sklearn.exceptions import NotFittedError

from modelport.convert.pickles import load_pickled
from modelport.core.errors import InputError
from modelport.core.source import AuditedSource

_WRAPPERS = {
    "classifier": xgboost.XGBClassifier,
    "ranker": xgboost.XGBRanker,
    "regressor": xgboost.XGBRegressor,
}


def load_model(audited: AuditedSource) -> Any:
    """A fitted `xgboost.Booster` or wrapper.

    Raises
    ------
    InputError
        When XGBoost cannot read it, or it is something else.
    """
    source = audited.source
    if audited.format == "object":
        model = source.model
    elif audited.format == "xgboost":
        model = _load_file(source.content, source.name)
    else:
        model = load_pickled(audited)
    if isinstance(model, xgboost.XGBModel):
        try:
            model.get_booster()
        except NotFittedError as error:
            raise InputError(
                f"the {type(model).__name__} is not fitted",
                where=source.name,
                hint="call fit before saving",
            ) from error
    elif not isinstance(model, xgboost.Booster):
        raise InputError(
            f"this is a {type(model).__name__}, not an XGBoost model",
            where=source.name,
            hint="pack the booster or its wrapper itself",
        )
    return model


def _load_file(content: bytes, name: str) -> Any:
    """As the class that saved it: the file tells which wrapper that was, if any."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files of older versions
            booster = xgboost.Booster(model_file=bytearray(content))
            saved_by = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
            if saved_by not in _WRAPPERS:
                return booster
            wrapper = _WRAPPERS[saved_by]()
            wrapper.load_model(bytearray(content))
            return wrapper
    except (xgboost.core.XGBoostError, ValueError, TypeError, KeyError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise InputError(f"XGBoost cannot read the file: {first}", where=name) from error
