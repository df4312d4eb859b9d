from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelport.core.errors import IntegrityError, UnsupportedError
from modelport.core.package import Package
from modelport.registry.aliases import alias_chain
from modelport.registry.layout import blob_key
from modelport.registry.stage import Registry
from modelport.registry.versions import version_chain

RECORDS = [
    *(f"models/demo/versions/{n}.json" for n in (1, 2, 3)),
    *(f"models/demo/aliases/champion/{n}.json" for n in (1, 2, 3, 4)),
    "models/demo/aliases/candidate/1.json",
]

DAMAGES = {
    "one byte": lambda data: data[:-3] + bytes([data[-3] ^ 0x80]) + data[-2:],
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "space": lambda data: data + b"\n",
    "other json": lambda data: b"[1]",
    "deep": lambda data: b"[" * 100_000,
    "long number": lambda data: data.replace(b'"format":1', b'"format":' + b"1" * 5000),
    "no format": lambda data: data.replace(b'"format":1,', b""),
    "format 0": lambda data: data.replace(b'"format":1', b'"format":0'),
    "extra field": lambda data: data[:-1] + b',"x":1}',
    "other kind": lambda data: data.replace(b'"kind":"', b'"kind":"x'),
    "other model": lambda data: data.replace(b'"model":"demo"', b'"model":"dema"'),
    "time": lambda data: data.replace(b'Z"', b'+"'),
    "version 0": lambda data: data.replace(b'"version":', b'"version":0'),
    "previous": lambda data: data.replace(b'"previous":"', b'"previous":"x'),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("key", RECORDS)
def test_a_damaged_record_is_named(filled: Registry, key: str, damage: str) -> None:
    path = filled.store.root / key
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for read in (filled.history, filled.verify):
        with pytest.raises(IntegrityError) as caught:
            read("demo")
        assert caught.value.where.endswith(key)


@pytest.mark.parametrize("key", RECORDS)
def test_a_forged_record_is_named_unless_it_is_the_newest(filled: Registry, key: str) -> None:
    path = filled.store.root / key
    path.write_bytes(path.read_bytes().replace(b'"by":"', b'"by":"mallory, not '))
    newest = key in (RECORDS[2], RECORDS[6], RECORDS[7])
    if newest:  # what no chain can show; the module says so
        assert filled.verify("demo") == 8
        return
    for read in (filled.history, filled.verify):
        with pytest.raises(IntegrityError, match="registry record was changed") as caught:
            read("demo")
        assert caught.value.where.endswith(key)


@pytest.mark.parametrize("key", RECORDS)
def test_a_deleted_record_is_named(filled: Registry, key: str) -> None:
    (filled.store.root / key).unlink()
    if key in RECORDS[6:]:  # the end of an alias's chain: what no chain can show
        assert filled.verify("demo") == 7
        return
    with pytest.raises(IntegrityError, match="missing") as caught:
        filled.verify("demo")
    # The newest version is missed by the alias that points at it.
    shown = "version 3" if key == RECORDS[2] else key
    assert shown in str(caught.value)


def test_versions_that_are_all_gone_are_missed(filled: Registry) -> None:
    shutil.rmtree(filled.store.root / "models/demo/versions")
    for read in (
        filled.models,
        lambda: filled.verify("demo"),
        lambda: filled.resolve("demo"),
        lambda: filled.resolve("demo@candidate"),
    ):
        with pytest.raises(IntegrityError, match="missing"):
            read()


@pytest.mark.parametrize("damage", ["forge", "cut", "delete"])
@pytest.mark.parametrize("key", RECORDS[:2])
def test_resolve_and_pull_refuse_a_broken_version(
    filled: Registry, tmp_path: Path, key: str, damage: str
) -> None:
    path = filled.store.root / key
    version = path.stem
    data = path.read_bytes()
    path.unlink()
    if damage == "forge":
        path.write_bytes(data.replace(b'"by":"', b'"by":"mallory, not '))
    elif damage == "cut":
        path.write_bytes(data[:40])
    for reference in (f"demo@{version}", f"demo@{int(version) + 1}"):
        with pytest.raises(IntegrityError):
            filled.resolve(reference)
        with pytest.raises(IntegrityError):
            filled.pull(reference, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Without (4, "delete"): the loss of the newest record shows in no chain.
@pytest.mark.parametrize(
    ("sequence", "damage"),
    [(3, "forge"), (3, "cut"), (3, "delete"), (4, "forge"), (4, "cut")],
)
def test_resolve_and_list_refuse_a_broken_alias(
    filled: Registry, sequence: int, damage: str
) -> None:
    path = filled.store.root / f"models/demo/aliases/champion/{sequence}.json"
    data = path.read_bytes()
    path.unlink()
    if damage == "forge":
        path.write_bytes(data.replace(b'"previous":"', b'"previous":"' + b"0" * 64)[:-1])
    elif damage == "cut":
        path.write_bytes(data[:40])
    for read in (
        lambda: filled.resolve("demo"),
        lambda: filled.resolve("demo@champion"),
        filled.models,
        lambda: filled.promote("demo", 3, "champion"),
        lambda: filled.rollback("demo", "champion"),
        lambda: filled.alias_at("demo", "champion", datetime.now(UTC)),
    ):
        with pytest.raises(IntegrityError):
            read()


def test_nothing_is_added_to_a_broken_chain(filled: Registry, make_package) -> None:
    (filled.store.root / RECORDS[0]).unlink()
    with pytest.raises(IntegrityError):
        filled.push(make_package("new"))
    assert not (filled.store.root / "models/demo/versions/4.json").exists()


def test_a_record_of_another_model_does_not_pass(registry: Registry, make_package) -> None:
    for name in ("one", "two"):
        registry.push(make_package("a", name=name))
    folder = registry.store.root / "models"
    shutil.copy(folder / "one/versions/1.json", folder / "two/versions/1.json")
    with pytest.raises(IntegrityError, match="belongs elsewhere"):
        registry.resolve("two")


def test_a_version_cannot_borrow_another_models_package(
    registry: Registry, make_package, tmp_path: Path
) -> None:
    other = registry.push(make_package("a", name="other"))
    record = replace(other, model="demo")
    assert version_chain(registry.store, "demo").append(record)
    with pytest.raises(IntegrityError, match="points at a package of other"):
        registry.pull("demo", tmp_path / "out")


def test_a_rollback_to_elsewhere_does_not_pass(filled: Registry) -> None:
    chain = alias_chain(filled.store, "demo", "champion")
    last = chain.records()[-1]
    assert chain.append(replace(last, sequence=5, version=3, previous=last.digest))
    with pytest.raises(IntegrityError, match="rollback goes to version 3") as caught:
        filled.verify("demo")
    assert caught.value.where.endswith("aliases/champion/5.json")


def test_a_newer_format_asks_for_an_upgrade(filled: Registry) -> None:
    path = filled.store.root / RECORDS[2]
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2'))
    with pytest.raises(UnsupportedError, match=r"format 2 is newer(?s:.)*upgrade modelport"):
        filled.resolve("demo@3")


def test_foreign_files_do_no_harm(filled: Registry) -> None:
    folder = filled.store.root / "models"
    for name in ("README", "demo/x.json", "demo/versions/4.json.bak", "demo/versions/04.json"):
        (folder / name).write_bytes(b"?")
    assert filled.verify("demo") == 8
    assert [model.name for model in filled.models()] == ["demo"]


def blobs_of(package: Package) -> dict[str, str]:
    manifest = package.digest.removeprefix("sha256:")
    files = {path: entry.sha256 for path, entry in package.manifest.files.items()}
    return {"manifest": manifest, **files}


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
@pytest.mark.parametrize("blob", ["manifest", "model/model.onnx", "baseline.json", "README.md"])
def test_a_damaged_blob_is_not_pulled_and_a_push_heals_it(
    registry: Registry, make_package, tmp_path: Path, blob: str, damage: str
) -> None:
    package = make_package()
    registry.push(package)
    path = registry.store.root / blob_key(blobs_of(package)[blob])
    data = path.read_bytes()
    path.unlink()
    if damage == "flip":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "cut":
        path.write_bytes(data[:-1])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(IntegrityError) as caught:
        registry.pull("demo", out / "demo")
    assert caught.value.where.endswith(path.name)
    assert list(out.iterdir()) == []
    path.unlink(missing_ok=True)
    assert not registry.push(package).created
    assert registry.pull("demo", out / "demo").digest == package.digest
