"""Packages are written whole, verified when opened, and never executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from modelport.core.compare import TOLERANCES
from modelport.core.digest import sha256_bytes
from modelport.core.errors import (
    ConflictError,
    InputError,
    IntegrityError,
    NotFoundError,
    UnsupportedError,
)
from modelport.core.golden import GoldenRecords
from modelport.core.manifest import FileEntry, Manifest, check_name, read_manifest
from modelport.core.package import Package, open_package, write_package
from modelport.core.signature import Signature
from modelport.core.tensors import TensorSpec

SIGNATURE = Signature(
    (TensorSpec("x", "float32", ("N", 2), ("a", "b"), ("nan",)),),
    (TensorSpec("label", "string", ("N",)),),
)


def manifest_of(files: Mapping[str, bytes], name: str = "demo") -> Manifest:
    return Manifest(
        name=name,
        engine="onnxruntime",
        model_file="model/model.onnx",
        files={path: FileEntry(sha256_bytes(data), len(data)) for path, data in files.items()},
        signature=SIGNATURE,
        task="classification",
        tolerance=TOLERANCES["float32"],
        row_independent=True,
        parity={"rows": 3},
        provenance={"source": "model.pkl", "trusted": []},
    )


def write(path: Path, content: bytes = b"weights", *, replace: bool = False) -> Package:
    files = {"model/model.onnx": content, "baseline.json": b"{}"}
    return write_package(path, manifest_of(files), files, replace=replace)


def test_what_is_written_is_what_is_opened(tmp_path: Path) -> None:
    written = write(tmp_path / "demo")
    opened = open_package(tmp_path / "demo")
    assert opened.manifest == written.manifest
    assert opened.manifest.signature == SIGNATURE
    assert opened.digest == written.digest
    assert opened.digest == "sha256:" + sha256_bytes((tmp_path / "demo/manifest.json").read_bytes())
    assert opened.model_path.read_bytes() == b"weights"
    assert opened.golden() is None


@pytest.mark.parametrize(
    "file", ["model/model.onnx", "baseline.json", "manifest.json", "manifest.sha256"]
)
def test_one_flipped_bit_shows(tmp_path: Path, file: str) -> None:
    write(tmp_path / "demo")
    path = tmp_path / "demo" / file
    for position in range(len(path.read_bytes())):
        content = bytearray(path.read_bytes())
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises((IntegrityError, UnsupportedError)):
            open_package(tmp_path / "demo")
        content[position] ^= 1
        path.write_bytes(content)
    open_package(tmp_path / "demo")


def test_missing_and_extra_files_show(tmp_path: Path) -> None:
    write(tmp_path / "demo")
    (tmp_path / "demo" / "model" / "extra.so").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"model/extra\.so"):
        open_package(tmp_path / "demo")
    (tmp_path / "demo" / "model" / "extra.so").unlink()
    (tmp_path / "demo" / "baseline.json").unlink()
    with pytest.raises(IntegrityError, match=r"missing: baseline\.json"):
        open_package(tmp_path / "demo")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write(tmp_path / "demo", b"old").digest

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write(tmp_path / "demo", b"new", replace=True)
    assert open_package(tmp_path / "demo").digest == before
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_replacing_is_asked_for(tmp_path: Path) -> None:
    first = write(tmp_path / "demo", b"old")
    assert write(tmp_path / "demo", b"old").digest == first.digest
    with pytest.raises(ConflictError, match="another package exists"):
        write(tmp_path / "demo", b"new")
    assert open_package(tmp_path / "demo").digest == first.digest
    second = write(tmp_path / "demo", b"new", replace=True)
    assert open_package(tmp_path / "demo").digest == second.digest != first.digest
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_damaged_package_can_be_replaced(tmp_path: Path) -> None:
    write(tmp_path / "demo")
    (tmp_path / "demo" / "baseline.json").write_bytes(b"[]")
    with pytest.raises(IntegrityError):
        write(tmp_path / "demo")
    write(tmp_path / "demo", replace=True)
    open_package(tmp_path / "demo")


def test_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("precious")
    with pytest.raises(ConflictError, match="something else exists"):
        write(tmp_path / "demo", replace=True)
    assert (tmp_path / "demo" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\b", "./a", "a//b"])
def test_file_names_stay_inside(tmp_path: Path, name: str) -> None:
    files = {"model/model.onnx": b"weights", name: b"evil"}
    with pytest.raises(IntegrityError, match="leaves its folder"):
        write_package(tmp_path / "in" / "demo", manifest_of(files), files)
    folder = tmp_path / "demo"
    folder.mkdir()
    document = manifest_of(files).to_bytes()
    (folder / "manifest.json").write_bytes(document)
    (folder / "manifest.sha256").write_text(f"{sha256_bytes(document)}  manifest.json\n")
    with pytest.raises(IntegrityError, match="leaves its folder"):
        open_package(folder)


def test_a_missing_package_lists_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "demo")
    with pytest.raises(NotFoundError, match=r"package not found: dmeo; there is: demo"):
        open_package(tmp_path / "dmeo")


def test_newer_formats_are_named() -> None:
    document = json.loads(manifest_of({}).to_bytes())
    newer = json.dumps({**document, "format": 3}).encode()
    with pytest.raises(UnsupportedError, match="format 3 is newer"):
        read_manifest(newer, where="x")


@pytest.mark.parametrize("missing", ["name", "signature", "files", "tolerance", "parity"])
def test_incomplete_manifests(missing: str) -> None:
    document = json.loads(manifest_of({}).to_bytes())
    del document[missing]
    with pytest.raises(IntegrityError, match="incomplete"):
        read_manifest(json.dumps(document).encode(), where="x")


def test_only_the_canonical_form_counts() -> None:
    spaced = json.dumps(json.loads(manifest_of({}).to_bytes()), indent=1).encode()
    with pytest.raises(IntegrityError, match="canonical"):
        read_manifest(spaced, where="x")


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "a/b", "../a", "a..b", "-a", "a-", "é", "a" * 129]
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InputError, match="not a model name"):
        check_name(name)


def test_golden_records_round_trip() -> None:
    records = GoldenRecords(
        {"x": np.arange(6, dtype=np.float32).reshape(3, 2), "t": np.array(["a", "ü", ""], object)},
        {"label": np.array([1, 0, 1]), "score": np.array([np.nan, np.inf, -0.0])},
    )
    data = records.to_bytes()
    assert data == records.to_bytes()
    again = GoldenRecords.from_bytes(data)
    assert again.rows == 3
    for side in ("inputs", "outputs"):
        for name, array in getattr(records, side).items():
            other = getattr(again, side)[name]
            assert other.dtype == array.dtype
            np.testing.assert_array_equal(other, array)


def test_golden_records_hold_no_pickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", **{"input:x": np.array([{}], dtype=object)})
    with pytest.raises(IntegrityError, match="cannot be read"):
        GoldenRecords.from_bytes((tmp_path / "bad.npz").read_bytes())
