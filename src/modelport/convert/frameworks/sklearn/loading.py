"""Reading scikit-learn files: pickle, joblib, skops.

The scan has passed the file already. As a second line of defence the unpicklers here look up
only names that `modelport.core.allowed_globals` allows, or that the user trusted by name.
"""

from __future__ import annotations

import bz2
import gzip
import inspect
import io
import lzma
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import sklearn
from joblib import numpy_pickle
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted
from skops import io as skops_io

from modelport.core.allowed_globals import is_allowed
from modelport.core.errors import InputError, ModelportError, UnsafeError, UnsupportedError
from modelport.core.source import AuditedSource

# What unpickling raises for a damaged file, or for one that other versions wrote.
_LOAD_ERRORS: Final = (
    pickle.UnpicklingError, ArithmeticError, AssertionError, AttributeError, EOFError,
    ImportError, LookupError, MemoryError, OSError, RecursionError, TypeError, ValueError,
    lzma.LZMAError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

_VERSION: Final = re.compile(rb"_sklearn_version.{1,40}?(\d+\.\d+(?:\.\d+)?)", re.DOTALL)

# How joblib compresses, by the first bytes.
_DECOMPRESS: Final[tuple[tuple[bytes, Callable[[bytes], bytes]], ...]] = (
    (b"\x78", zlib.decompress),
    (b"\x1f\x8b", gzip.decompress),
    (b"BZh", bz2.decompress),
    (b"\xfd7zXZ", lzma.decompress),
    (b"\x5d\x00", lzma.decompress),
)


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
    content = source.content
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if audited.format == "joblib":
                content = _decompress(content, source.name)
            model = _READERS[audited.format](content, frozenset(audited.trusted))
        except ModelportError:
            raise
        except _LOAD_ERRORS as error:
            raise _explain(error, source.name, content) from error
    return _check(model, source.name), _version_notes(caught)


def _decompress(content: bytes, name: str) -> bytes:
    if content.startswith(b"\x04\x22\x4d\x18"):
        raise UnsupportedError(
            "the file is compressed with lz4", where=name, hint="save it with compress=('gzip', 3)"
        )
    for prefix, decompress in _DECOMPRESS:
        if content.startswith(prefix):
            return decompress(content)
    return content


def _check_global(module: str, name: str, trusted: frozenset[str]) -> None:
    if not is_allowed(module, name) and f"{module}.{name}" not in trusted:
        raise UnsafeError(
            f"the file refers to {module}.{name}, which models do not need",
            hint="if you trust who made the file, say so with --trust",
        )


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, trusted: frozenset[str]) -> None:
        super().__init__(io.BytesIO(content))
        self._trusted = trusted

    def find_class(self, module: str, name: str) -> Any:
        _check_global(module, name, self._trusted)
        return super().find_class(module, name)


class _NestedUnpickler(pickle._Unpickler):
    """Reads an object array inside a joblib file; in Python, so as not to read beyond it."""

    def __init__(self, file: io.BytesIO, trusted: frozenset[str]) -> None:
        super().__init__(file)
        self._trusted = trusted

    def find_class(self, module: str, name: str) -> Any:
        _check_global(module, name, self._trusted)
        return super().find_class(module, name)


class _ArrayWrapper(numpy_pickle.NumpyArrayWrapper):  # type: ignore[misc]
    """Reads arrays of objects with a restricted unpickler, whatever this joblib does."""

    def read_array(self, unpickler: Any, *arguments: Any) -> Any:
        if not self.dtype.hasobject:
            return super().read_array(unpickler, *arguments)
        array = _NestedUnpickler(unpickler.file_handle, unpickler.trusted).load()
        if not isinstance(array, np.ndarray):
            raise pickle.UnpicklingError("an array of objects is not an array")
        return array


class _JoblibUnpickler(numpy_pickle.NumpyUnpickler):  # type: ignore[misc]
    def __init__(self, content: bytes, trusted: frozenset[str]) -> None:
        parameters = inspect.signature(numpy_pickle.NumpyUnpickler.__init__).parameters
        # joblib 1.5 added it without a default.
        order = (
            {"ensure_native_byte_order": True} if "ensure_native_byte_order" in parameters else {}
        )
        super().__init__("", io.BytesIO(content), **order)
        self.trusted = trusted

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return _ArrayWrapper
        _check_global(module, name, self.trusted)
        return super().find_class(module, name)


def _load_skops(content: bytes, trusted: frozenset[str]) -> Any:
    unknown = skops_io.get_untrusted_types(data=content)
    for name in unknown:
        module, _, attribute = name.rpartition(".")
        _check_global(module, attribute, trusted)
    return skops_io.loads(content, trusted=unknown)


_READERS: Final[dict[str, Callable[[bytes, frozenset[str]], Any]]] = {
    "pickle": lambda content, trusted: _Unpickler(content, trusted).load(),
    "joblib": lambda content, trusted: _JoblibUnpickler(content, trusted).load(),
    "skops": _load_skops,
}


def _explain(error: BaseException, name: str, content: bytes) -> InputError:
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package and package != "sklearn":
        return InputError(
            f"the file needs the Python package {package}, which is not installed",
            where=name,
            hint=f"install the version of {package} that trained the model; a model of its "
            "classes can be converted only where each of them has a converter",
        )
    found = _VERSION.search(content)
    written = found[1].decode() if found else ""
    if written and written != sklearn.__version__:
        return InputError(
            f"the file was written by scikit-learn {written}, and scikit-learn "
            f"{sklearn.__version__} cannot read it: {error}",
            where=name,
            hint=f'install the version that wrote it: pip install "scikit-learn=={written}"',
        )
    return InputError(f"the file cannot be loaded: {type(error).__name__}: {error}", where=name)


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
