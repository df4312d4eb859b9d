"""Reading LightGBM models: its own files, pickles of its wrappers, live objects."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import lightgbm
from sklearn.exceptions import NotFittedError

from modelport.convert.pickles import load_pickled
from modelport.core.errors import InputError
from modelport.core.source import AuditedSource


def load_model(audited: AuditedSource) -> Any:
    """A fitted `lightgbm.Booster` or wrapper.

    Raises
    ------
    InputError
        When LightGBM cannot read it, or it is something else.
    """
    source = audited.source
    if audited.format == "object":
        model = source.model
    elif audited.format == "lightgbm":
        model = _load_file(source.content.decode(), source.name)
    else:
        model = load_pickled(audited)
    if isinstance(model, lightgbm.LGBMModel):
        try:
            model.booster_  # noqa: B018 - a property that checks
        except NotFittedError as error:
            raise InputError(
                f"the {type(model).__name__} is not fitted",
                where=source.name,
                hint="call fit before saving",
            ) from error
    elif not isinstance(model, lightgbm.Booster):
        raise InputError(
            f"this is a {type(model).__name__}, not a LightGBM model",
            where=source.name,
            hint="pack the booster or its wrapper itself",
        )
    return model


def _load_file(text: str, name: str) -> lightgbm.Booster:
    # It prints what it has to say.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            return lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            raise InputError(f"LightGBM cannot read the file: {error}", where=name) from error
