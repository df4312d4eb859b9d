"""Folders of packages, and the store that clients may load from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from modelport.core.errors import InputError, IntegrityError, ModelportError, NotFoundError
from modelport.serve.base import ModelSpec
from modelport.serve.discover import find_in_store, models_in, numbered, renamed

from .onnx_models import dense
from .packages import build_package

ROWS = np.ones((3, 8), np.float32)


def package(folder: Path, name: str = "m") -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    build_package(folder, name, dense(), {"x": ROWS})
    return folder


def test_a_folder_of_packages_and_bare_files(tmp_path: Path) -> None:
    package(tmp_path / "b", "second")
    package(tmp_path / "a", "first")
    (tmp_path / "c.onnx").write_bytes(dense())
    package(tmp_path / ".hidden", "hidden")
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    assert [spec.name for spec in models_in(tmp_path)] == ["first", "second", "c"]


def test_versions_as_tensorflow_serving_lays_them_out(tmp_path: Path) -> None:
    for version in (1, 12):
        package(tmp_path / "m" / str(version))
    assert sorted(spec.version for spec in models_in(tmp_path)) == [1, 12]


def test_equal_names_get_versions_of_their_own() -> None:
    specs = [ModelSpec("m", 1, "a"), ModelSpec("m", 1, "b"), ModelSpec("n", 1, "c")]
    assert [(s.name, s.version) for s in numbered(specs)] == [("m", 1), ("m", 2), ("n", 1)]


def test_renaming_concerns_the_first_model_in_all_its_versions() -> None:
    specs = [ModelSpec("m", 1, "a"), ModelSpec("m", 2, "b"), ModelSpec("n", 1, "c")]
    assert [s.name for s in renamed(specs, "churn")] == ["churn", "churn", "n"]
    assert [(s.name, s.version) for s in renamed(specs, "n")] == [("n", 1), ("n", 2), ("n", 3)]
    assert renamed(specs, "") == specs


def test_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        models_in(tmp_path)
    package(tmp_path / "near")
    with pytest.raises(NotFoundError, match="near"):
        models_in(tmp_path / "nera")


def test_a_damaged_package_is_refused(tmp_path: Path) -> None:
    folder = package(tmp_path / "m")
    (folder / "README.md").write_text("changed", encoding="utf-8")
    with pytest.raises(ModelportError, match="other bytes"):
        models_in(tmp_path)


def test_the_store_by_folder_and_by_name(tmp_path: Path) -> None:
    package(tmp_path / "store" / "folder", "inside")
    find = find_in_store(str(tmp_path / "store"))
    assert [spec.name for spec in find("folder", "")] == ["folder"]
    assert [spec.name for spec in find("inside", "")] == ["inside"]
    assert [spec.name for spec in find("any", "folder")] == ["any"]
    assert [spec.name for spec in find("any", str(tmp_path / "store" / "folder"))] == ["any"]
    with pytest.raises(NotFoundError, match="inside"):
        find("isnide", "")


@pytest.mark.parametrize("way", ["../outside", "absolute", "link", "store-evil"])
def test_nothing_outside_the_store(tmp_path: Path, way: str) -> None:
    outside = package(tmp_path / "outside")
    store = tmp_path / "store"
    store.mkdir()
    shutil.copytree(outside, tmp_path / "store-evil")
    (store / "link").symlink_to(outside)
    place = {"absolute": str(outside), "store-evil": str(tmp_path / "store-evil")}.get(way, way)
    with pytest.raises(InputError, match="outside the model store"):
        find_in_store(str(store))("m", place)
    if not place.startswith("/"):
        with pytest.raises(InputError, match="outside the model store"):
            find_in_store(str(store))(place, "")


def test_no_link_further_down_leads_out_of_the_store(tmp_path: Path) -> None:
    outside = package(tmp_path / "outside", "other")
    store = tmp_path / "store"
    package(store / "files", "files")
    model = store / "files" / "model" / "model.onnx"
    model.unlink()
    model.symlink_to(outside / "model" / "model.onnx")
    (store / "folder").mkdir()
    (store / "folder" / "link").symlink_to(outside)
    (store / "circle").symlink_to(store / "circle")
    find = find_in_store(str(store))
    for name, place in (("m", "folder"), ("folder", ""), ("other", ""), ("m", "files")):
        with pytest.raises(InputError, match="outside the model store"):
            find(name, place)
    with pytest.raises(ModelportError):
        find("m", "circle")
    with pytest.raises(NotFoundError):
        find(".", "")


def test_without_a_store_no_place_is_opened(tmp_path: Path) -> None:
    folder = package(tmp_path / "m")
    asked = []

    def registry(name: str, place: str) -> list[ModelSpec]:
        asked.append(name)
        return [ModelSpec(name, 3, str(folder))]

    find = find_in_store("", registry)
    with pytest.raises(InputError, match="no model store"):
        find("m", str(folder))
    assert [spec.version for spec in find("m", "")] == [3]
    assert asked == ["m"]


def test_a_damaged_package_hides_no_other(tmp_path: Path) -> None:
    damaged = package(tmp_path / "a", "damaged")
    (damaged / "README.md").write_bytes(b"other bytes")
    package(tmp_path / "folder", "sound")
    find = find_in_store(str(tmp_path))
    assert [spec.name for spec in find("sound", "")] == ["sound"]
    with pytest.raises(NotFoundError, match="sound"):
        find("absent", "")
    with pytest.raises(IntegrityError):
        find("a", "")
