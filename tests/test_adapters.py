"""The table is the only map of adapters, so it must be true."""

from __future__ import annotations

import ast
import importlib
import tomllib
from functools import cache
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest

from modelport.adapters import TABLE, Adapter, adapters_of, find_adapter
from modelport.core.errors import NotFoundError

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "modelport"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: Where adapters live: every module in here is in the table.
FOLDERS = (
    "convert/frameworks",
    "data",
    "deploy/access",
    "deploy/appliers",
    "deploy/targets",
    "engines",
    "optimize/passes",
    "optimize/teachers",
    "processing",
    "scan/containers",
    "scan/scanners",
    "serve/codings",
    "serve/protocols",
    "serve/transports",
    "stores",
)
NOT_ADAPTERS = {"__init__", "base"}


def requirement_names(requirements: list[str]) -> set[str]:
    """Distribution names, normalised, without versions and markers."""
    names = set()
    for requirement in requirements:
        name = requirement
        for stop in "[<>=!~; ":
            name = name.partition(stop)[0]
        names.add(name.lower().replace("_", "-"))
    return names


@cache
def installed_files() -> dict[str, tuple[str, ...]]:
    """The files of every installed distribution, by its name."""
    return {
        item.metadata["Name"].lower().replace("_", "-"): tuple(map(str, item.files or ()))
        for item in distributions()
    }


def distributions_of(module: str) -> set[str]:
    """What installs a module, which may lie in a namespace package: ``google.auth``."""
    if "." not in module:
        return {name.lower().replace("_", "-") for name in packages_distributions()[module]}
    path = module.replace(".", "/")
    return {
        name
        for name, files in installed_files().items()
        if any(file.startswith((f"{path}/", f"{path}.")) for file in files)
    }


@pytest.mark.parametrize("adapter", TABLE, ids=lambda a: f"{a.kind}-{a.name}")
def test_every_path_resolves(adapter: Adapter) -> None:
    module, _, attribute = adapter.target.partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), type)
    assert adapter.load() is adapter.load()


def test_names_are_unique_within_their_kind() -> None:
    keys = [(adapter.kind, adapter.name) for adapter in TABLE]
    assert len(set(keys)) == len(keys)


def test_every_adapter_file_is_in_the_table() -> None:
    listed = {adapter.target.partition(":")[0] for adapter in TABLE}
    for folder in FOLDERS:
        for path in (SOURCE / folder).iterdir():
            if path.stem in NOT_ADAPTERS or path.name.startswith(("_", ".")):
                continue
            module = ".".join(("modelport", *Path(folder).parts, path.stem))
            assert module in listed, f"{module} is in no record of the table"


def test_extras_equal_the_tables() -> None:
    extras = {adapter.extra for adapter in TABLE if adapter.extra}
    declared = set(PROJECT["optional-dependencies"]) - {"all", "test"}
    assert declared == extras
    assert PROJECT["optional-dependencies"]["all"] == [f"modelport[{','.join(sorted(extras))}]"]


@pytest.mark.parametrize("adapter", TABLE, ids=lambda a: f"{a.kind}-{a.name}")
def test_extras_install_what_their_adapters_import(adapter: Adapter) -> None:
    requirements = PROJECT["optional-dependencies"].get(adapter.extra, [])
    installed = requirement_names(PROJECT["dependencies"] + requirements)
    for module in adapter.requires:
        assert distributions_of(module) & installed, f"extra {adapter.extra!r} lacks {module}"


def imports_of(path: Path) -> set[str]:
    """Everything that a file imports, anywhere in it, and the packages that these are in."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[:n]) for name in found for n in range(1, 9)}


#: Modules that several adapters share, with the library that all of those require.
SHARED = {
    "modelport.deploy.aws.files": {"yaml"},
    "modelport.deploy.azure.functions": {"yaml"},
    "modelport.deploy.azure.online": {"yaml"},
    "modelport.deploy.documents": {"yaml"},
    "modelport.deploy.google.iam": {"google.auth", "yaml"},
    "modelport.deploy.google.manifest": {"yaml"},
    "modelport.deploy.google.messages": {"google.cloud.aiplatform_v1", "google.cloud.run_v2"},
    "modelport.deploy.google.place": {"yaml"},
    "modelport.deploy.google.refusals": {"google.auth", "yaml"},
    "modelport.deploy.google.rollout": {"yaml"},
    "modelport.deploy.google.run": {"yaml"},
    "modelport.deploy.kubernetes.helm": {"yaml"},
    "modelport.deploy.kubernetes.inference": {"yaml"},
    "modelport.convert.graphs.edits": {"onnx"},
    "modelport.convert.graphs.canonical": {"onnx"},
    "modelport.convert.forests.ensemble": {"onnx"},
    "modelport.convert.forests.graph": {"onnx"},
    "modelport.convert.forests.inputs": {"onnx"},
    "modelport.convert.forests.outputs": {"onnx"},
    "modelport.convert.forests.probes": {"onnx"},
    "modelport.convert.graphs.tensorflow": {"onnx", "tensorflow", "tf2onnx"},
    "modelport.convert.graphs.tensorflow_operators": {"onnx", "tensorflow", "tf2onnx"},
    "modelport.optimize.classic": {"onnx", "onnxruntime"},
    "modelport.optimize.given.stand_in": {"onnx"},
    "modelport.optimize.onnx_graph": {"onnx"},
    "modelport.optimize.quantize": {"onnx", "onnxruntime"},
    "modelport.optimize.reduce": {"onnx", "onnxruntime", "torch"},
    "modelport.optimize.session": {"onnx", "onnxruntime"},
    "modelport.optimize.train": {"onnx", "onnxruntime", "torch"},
}


def test_heavy_libraries_are_imported_by_their_adapters_only() -> None:
    heavy = {module for adapter in TABLE for module in adapter.requires}
    allowed: dict[str, set[str]] = {name: set(libraries) for name, libraries in SHARED.items()}
    for adapter in TABLE:
        allowed.setdefault(adapter.target.partition(":")[0], set()).update(adapter.requires)
    for path in SOURCE.rglob("*.py"):
        module = ".".join(("modelport", *path.relative_to(SOURCE).with_suffix("").parts))
        owners = [set_ for owner, set_ in allowed.items() if f"{module}.".startswith(f"{owner}.")]
        for name in imports_of(path) & heavy:
            assert any(name in owner for owner in owners), f"{module} imports {name}"


@pytest.mark.parametrize("shared", SHARED)
def test_what_adapters_share_is_imported_by_adapters_only(shared: str) -> None:
    owners = {
        adapter.target.partition(":")[0]
        for adapter in TABLE
        if set(adapter.requires) >= SHARED[shared]
    }
    owners |= {other for other, libraries in SHARED.items() if libraries >= SHARED[shared]}
    for path in SOURCE.rglob("*.py"):
        module = ".".join(("modelport", *path.relative_to(SOURCE).with_suffix("").parts))
        parent, _, name = shared.rpartition(".")
        text = path.read_text(encoding="utf-8")
        if f"from {shared} import" in text or f"from {parent} import {name}" in text:
            assert any(f"{module}.".startswith(f"{owner}.") for owner in owners), module


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(NotFoundError, match=r"engine not found: tensorrt; there is: .*onnxruntime"):
        find_adapter("engine", "tensorrt")
    assert [adapter.kind for adapter in adapters_of("store")] == ["store"]
