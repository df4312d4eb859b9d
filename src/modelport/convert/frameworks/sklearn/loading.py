"""Reading scikit-learn files: pickle, joblib, skops.

The scan has passed the file already; `modelport.convert.pickles` is the second line of defence.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from typing import Any, Final

import sklearn
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted
from skops import io as skops_io

from modelport.convert.pickles import LOAD_ERRORS, check_global, decompressed, unpickle
from modelport.core.errors import InputError, ModelportError
from modelport.core.source import AuditedSource, Source

_VERSION: Final = re.compile(rb"_sklearn_version.{1,40}?(\d+\.\d+(?:\.\d+)?)", re.DOTALL)


def load_estimator(audited: AuditedSource) -> tuple[Any, tuple[str, ...]]:
    """Load a fitted estimator.

    Returns
    -------
    estimator : BaseEstimator
    notes : tuple of str
        Versions that do not match.

    Raises
    ------
    InputError
        When the file is damaged, was written by a version that cannot be read here, or holds
        something else than a fitted estimator.
    UnsafeError
        When the file names something that is neither allowed nor trusted.
    """
    source = audited.source
    if audited.format == "object":
        return _check(source.model, source.name), ()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = _load_skops(audited) if audited.format == "skops" else unpickle(audited)
        except ModelportError:
            raise
        except (*LOAD_ERRORS, zipfile.BadZipFile) as error:
            raise _explain(error, source) from error
    return _check(model, source.name), _version_notes(caught)


def _load_skops(audited: AuditedSource) -> Any:
    content = audited.source.content
    unknown = skops_io.get_untrusted_types(data=content)
    for name in unknown:
        module, _, attribute = name.rpartition(".")
        check_global(module, attribute, frozenset(audited.trusted))
    return skops_io.loads(content, trusted=unknown)


def _explain(error: BaseException, source: Source) -> InputError:
    name = source.name
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package and package != "sklearn":
        return InputError(
            f"the file needs the Python package {package}, which is not installed",
            where=name,
            hint=f"install the version of {package} that trained the model; a model of its "
            "classes can be converted only where each of them has a converter",
        )
    found = _VERSION.search(_readable(source))
    written = found[1].decode() if found else ""
    if written and written != sklearn.__version__:
        return InputError(
            f"the file was written by scikit-learn {written}, and scikit-learn "
            f"{sklearn.__version__} cannot read it: {error}",
            where=name,
            hint=f'install the version that wrote it: pip install "scikit-learn=={written}"',
        )
    return InputError(f"the file cannot be loaded: {type(error).__name__}: {error}", where=name)


def _readable(source: Source) -> bytes:
    """The pickle, for its version to be found in it; as it is where it cannot be decompressed."""
    try:
        return decompressed(source.content, source.name)
    except (ModelportError, *LOAD_ERRORS):
        return source.content


def _version_notes(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    skewed = [w.message for w in caught if isinstance(w.message, InconsistentVersionWarning)]
    written = sorted({str(warning.original_sklearn_version) for warning in skewed})
    return tuple(
        f"the model was saved by scikit-learn {version} and loaded by {sklearn.__version__}; "
        "parity is with the model as loaded"
        for version in written
    )


def _check(model: Any, name: str) -> Any:
    """Return `model` if it is a fitted estimator, or say what it is."""
    if isinstance(model, type):
        raise InputError(f"this is the class {model.__name__}, not a fitted estimator", where=name)
    if not isinstance(model, BaseEstimator):
        raise InputError(f"this is {_what(model)}, not an estimator", where=name,
                         hint="pack the fitted estimator or pipeline itself")  # fmt: skip
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise InputError(
            f"the {type(model).__name__} is not fitted", where=name, hint="call fit before saving"
        ) from error
    return model


def _what(thing: Any) -> str:
    if isinstance(thing, dict):
        keys = ", ".join(repr(key) for key in list(thing)[:10])
        return f"a dict with the keys {keys}" if thing else "an empty dict"
    if isinstance(thing, list | tuple):
        kinds = ", ".join(type(item).__name__ for item in list(thing)[:10])
        return f"a {type(thing).__name__} of {len(thing)} ({kinds})"
    return f"a {type(thing).__name__}"
