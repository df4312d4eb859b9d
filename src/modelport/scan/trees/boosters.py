"""Boosters inside pickles: their libraries' own formats, handed to C++ when the state is set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from modelport.scan.pickles.standins import Made
from modelport.scan.trees.catboost_model import check_catboost
from modelport.scan.trees.lightgbm_model import check_lightgbm
from modelport.scan.trees.xgboost_model import check_xgboost, load_xgboost


def _xgboost(state: Mapping[str, Any]) -> bool:
    handle = state.get("handle")
    if isinstance(handle, Made):
        handle = handle.data
    if not isinstance(handle, bytes | bytearray):
        return handle is None and "handle" in state
    return _holds(lambda: check_xgboost(load_xgboost(bytes(handle))))


def _lightgbm(state: Mapping[str, Any]) -> bool:
    # Old versions call it `handle`; never both.
    texts = [state[key] for key in ("_handle", "handle") if key in state]
    if len(texts) != 1 or type(texts[0]) is not str:
        return False
    return _holds(lambda: check_lightgbm(texts[0]))


def _catboost(state: Mapping[str, Any]) -> bool:
    model = state.get("__model")
    if model is None:
        return "__model" not in state  # not fitted
    return type(model) is bytes and _holds(lambda: check_catboost(model))


def _holds(check: Callable[[], object]) -> bool:
    try:
        check()
    except ValueError:
        return False
    return True


#: Class → whether a state (a plain dictionary) is one that its library can load.
BOOSTER_STATES: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "lightgbm.basic.Booster": _lightgbm,
    "xgboost.core.Booster": _xgboost,
    **dict.fromkeys(
        (
            f"catboost.core.{name}"
            for name in ("CatBoost", "CatBoostClassifier", "CatBoostRanker", "CatBoostRegressor")
        ),
        _catboost,
    ),
}
