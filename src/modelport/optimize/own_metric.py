"""A metric that is a function of the user's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from modelport.core.errors import InputError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.judge import Judge
from modelport.optimize.significance import Meter


def own_metric(name: str, target: Array | None) -> Judge:
    """A function of the user's, who names it on the command line: it is their own code."""
    function = _imported(name)
    if target is None:
        raise InputError(f"{name} needs labels", where="--metric", hint="--target COLUMN")
    expected = np.asarray(target)

    def meter(answers: Tensors) -> Meter:
        def metric(weights: Array) -> float:
            rows = np.repeat(np.arange(len(expected)), weights.astype(np.int64))
            taken = {output: array[rows] for output, array in answers.items()}
            try:
                found = function(expected[rows], taken)
                return float(found)
            except Exception as error:  # the user's code raises whatever it likes
                raise InputError(
                    f"{name} failed: {type(error).__name__}: {error}", where="--metric",
                    hint="it is called with the target's values and a mapping of outputs, and "
                    "returns a number",
                ) from error  # fmt: skip

        return metric

    return Judge(name, len(expected), dict, meter, bounded=False)


def _imported(name: str) -> Callable[[Any, Any], Any]:
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function: Any = getattr(import_module(module), attribute)
    except Exception as error:  # importing runs the user's code
        raise InputError(
            f"cannot import the metric {name!r}: {type(error).__name__}: {error}",
            where="--metric",
            hint="module:function, in the current folder or among the installed packages",
        ) from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise InputError(f"the metric {name!r} is no function", where="--metric")
    found: Callable[[Any, Any], Any] = function
    return found
