"""THE table: every adapter modelport has, one record each, strings only.

A stage finds its adapters here and nowhere else; nothing is imported until it is asked for.
To add a framework, an engine, a store, a reader, a protocol or a transport: write the
adapter, add its record here, its extra to ``pyproject.toml``, and one test module.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any, Final

from modelport.core.errors import NotFoundError
from modelport.core.lazy import load_module


@dataclass(frozen=True)
class Adapter:
    """One record of the table.

    Parameters
    ----------
    kind : str
        The family: ``framework``, ``container``, ``scanner``, ``engine``, ``store``,
        ``reader``, ``processor``, ``protocol``, ``transport``, ``demo``.
    name : str
        Unique within its kind.
    target : str
        ``module:Class``; the class takes no arguments.
    requires : tuple of str
        Import names of the packages that it imports.
    extra : str
        The extra in ``pyproject.toml`` that installs them; empty where modelport's own
        requirements do.
    suffixes : tuple of str
        File endings (or URL schemes, for stores) that it answers for.
    summary : str
        What it handles, for ``modelport doctor``.
    """

    kind: str
    name: str
    target: str
    summary: str
    requires: tuple[str, ...] = ()
    extra: str = ""
    suffixes: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Import names that are required and not installed."""
        return [name for name in self.requires if find_spec(name) is None]

    def load(self) -> Any:
        """Import the adapter and return its only instance.

        Raises
        ------
        MissingPackageError
            When a package that it needs is not installed.
        """
        return _instance(self)


@cache
def _instance(adapter: Adapter) -> Any:
    module, _, attribute = adapter.target.partition(":")
    loaded = load_module(
        module, extra=adapter.extra, purpose=f"by the {adapter.name} {adapter.kind}"
    )
    return getattr(loaded, attribute)()


TABLE: Final = (
    Adapter(
        "reader", "numpy", "modelport.data.numpy_file:NumpyReader",
        "NumPy arrays", suffixes=(".npy", ".npz"),
    ),
    Adapter(
        "reader", "csv", "modelport.data.csv_file:CsvReader",
        "comma-separated columns", suffixes=(".csv",),
    ),
    Adapter(
        "reader", "json", "modelport.data.json_file:JsonReader",
        "JSON documents and JSON lines", suffixes=(".json", ".jsonl"),
    ),
    Adapter(
        "reader", "parquet", "modelport.data.parquet_file:ParquetReader",
        "Parquet columns", requires=("pyarrow",), extra="parquet", suffixes=(".parquet",),
    ),
    Adapter(
        "scanner", "pickle", "modelport.scan.scanners.pickle:PickleScanner",
        "pickle and joblib files, opcode by opcode",
        suffixes=(".pkl", ".pickle", ".joblib", ".sav"),
    ),
    Adapter(
        "scanner", "skops", "modelport.scan.scanners.skops:SkopsScanner",
        "skops files", requires=("skops", "sklearn"), extra="sklearn", suffixes=(".skops",),
    ),
    Adapter(
        "scanner", "onnx", "modelport.scan.scanners.onnx:OnnxScanner",
        "ONNX files", suffixes=(".onnx",),
    ),
    Adapter(
        "framework", "onnx", "modelport.convert.frameworks.onnx:OnnxFramework",
        "ONNX models", requires=("onnx",), extra="onnx", suffixes=(".onnx",),
    ),
    Adapter(
        "framework", "sklearn", "modelport.convert.frameworks.sklearn:SklearnFramework",
        "scikit-learn estimators and pipelines",
        requires=("sklearn", "skl2onnx", "onnx", "joblib", "skops", "pandas"), extra="sklearn",
        suffixes=(".pkl", ".pickle", ".joblib", ".sav", ".skops"),
    ),
    Adapter(
        "engine", "onnxruntime", "modelport.engines.onnxruntime:OnnxRuntimeEngine",
        "ONNX Runtime on the CPU", requires=("onnxruntime",),
    ),
    Adapter(
        "store", "local", "modelport.stores.local:LocalStoreFamily",
        "a local or mounted folder", suffixes=("file",),
    ),
    Adapter(
        "protocol", "tfserving", "modelport.serve.protocols.tfserving:TensorFlowServing",
        "TensorFlow Serving REST v1",
    ),
    Adapter(
        "protocol", "oip", "modelport.serve.protocols.oip:OpenInference",
        "Open Inference Protocol V2 REST with the binary tensor extension",
    ),
    Adapter(
        "transport", "http", "modelport.serve.transports.http:HttpTransport",
        "HTTP/1.1 and HTTP/2 on Granian (RSGI)", requires=("granian", "uvloop"),
    ),
    Adapter(
        "demo", "digits", "modelport.demo.digits:DigitsDemo",
        "scikit-learn's handwritten digits",
        requires=("sklearn", "skl2onnx", "onnx"), extra="sklearn",
    ),
)  # fmt: skip


def adapters_of(kind: str) -> list[Adapter]:
    """All records of one kind, in table order."""
    return [adapter for adapter in TABLE if adapter.kind == kind]


def find_adapter(kind: str, name: str) -> Adapter:
    """The record of that kind and name.

    Raises
    ------
    NotFoundError
        Listing the names that exist.
    """
    for adapter in adapters_of(kind):
        if adapter.name == name:
            return adapter
    raise NotFoundError(kind, name, [adapter.name for adapter in adapters_of(kind)])


def adapters_for_suffix(kind: str, suffix: str) -> list[Adapter]:
    """Records of one kind that answer for a file ending or URL scheme."""
    return [adapter for adapter in adapters_of(kind) if suffix.lower() in adapter.suffixes]


def suffix_of(path: PurePath) -> str:
    """The ending by which adapters are chosen."""
    return path.suffix.lower()
