"""The rules for names: complete for honest models, and tight against what is installed."""

import importlib
import pkgutil
import sys
import warnings

import numpy as np
import pytest
import sklearn

from modelport.core.allowed_globals import (
    RECONSTRUCTORS,
    is_allowed,
    is_model_class,
    python3_name,
    refusal,
)
from modelport.scan.pickles.calls import call_problem
from modelport.scan.pickles.standins import Named

from . import hostile


def modules_of_sklearn():
    for found in pkgutil.walk_packages(sklearn.__path__, "sklearn.", onerror=lambda name: None):
        if not is_model_class(found.name, "Model"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield importlib.import_module(found.name)


def test_every_class_name_that_passes_is_scikit_learns_own_model_class():
    """No module lets a class of somebody else through, by having imported it."""
    checked = 0
    for module in modules_of_sklearn():
        for name, value in vars(module).items():
            if is_model_class(module.__name__, name) and callable(value):
                assert isinstance(value, type), (module.__name__, name)
                assert is_model_class(value.__module__, value.__name__), (module.__name__, name)
                checked += 1
    assert checked > 500


def test_no_class_that_passes_runs_code_when_its_state_is_set():
    """A new ``__setstate__`` in scikit-learn must be read by a person before it is added here."""
    known = {
        "sklearn.base.BaseEstimator",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.isotonic.IsotonicRegression",
    }
    found = set()
    for module in modules_of_sklearn():
        for name, value in vars(module).items():
            if isinstance(value, type) and is_model_class(module.__name__, name):
                found |= {base for base in value.__mro__ if "__setstate__" in vars(base)}
    written_in_python = {
        f"{cls.__module__}.{cls.__qualname__}"
        for cls in found
        if str(getattr(sys.modules[cls.__module__], "__file__", "")).endswith(".py")
    }
    assert written_in_python == known


@pytest.mark.parametrize("module", RECONSTRUCTORS)
def test_every_reconstructor_has_a_rule_for_its_arguments(module):
    for name in RECONSTRUCTORS[module]:
        if name != "NumpyArrayWrapper":
            assert "mentioned" not in call_problem(Named(module, name), (object(),) * 9)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sklearn.linear_model._logistic", "LogisticRegression"),
        ("sklearn.tree._tree", "Tree"),
        ("sklearn.calibration", "_CalibratedClassifier"),
        ("numpy", "log1p"),
        ("numpy", "float64"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core._multiarray_umath", "exp"),
        ("builtins", "set"),
        ("__builtin__", "set"),
        ("copy_reg", "_reconstructor"),
        ("_loss", "__pyx_unpickle_CyHalfBinomialLoss"),
        ("sklearn.compose._column_transformer", "make_column_selector"),
    ],
)
def test_names_of_honest_models_are_allowed(module, name):
    assert is_allowed(module, name)
    assert refusal(module, name) == ""


@pytest.mark.parametrize("full", hostile.NAMES)
def test_dangerous_names_are_refused_with_a_reason(full):
    module, _, name = full.rpartition(".")
    assert not is_allowed(module, name)
    assert refusal(module, name)


@pytest.mark.parametrize(("module", "name"), hostile.ODD_NAMES)
def test_odd_names_are_refused(module, name):
    assert not is_allowed(module, name)


def test_old_names_are_only_understood_where_python_3_has_none():
    assert not is_allowed("__builtin__", "eval")
    assert not is_allowed("itertools", "imap")
    assert python3_name("__builtin__", "xrange") == ("builtins", "range")
    assert python3_name("numpy", "mean") == ("numpy", "mean")


def test_functions_of_numpy_that_read_or_call_are_refused():
    allowed = {name for name in dir(np) if is_allowed("numpy", name)}
    for name in ("load", "fromfile", "memmap", "vectorize", "frompyfunc", "piecewise", "save"):
        assert name not in allowed
    assert all(callable(getattr(np, name)) for name in allowed)
