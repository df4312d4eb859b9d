from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelport.core.errors import ConflictError, InputError, IntegrityError, NotFoundError
from modelport.core.package import open_package
from modelport.registry.aliases import alias_chain
from modelport.registry.records import AliasRecord, VersionRecord
from modelport.registry.reference import Reference
from modelport.registry.stage import Registry
from modelport.registry.versions import version_chain
from modelport.stores.local import LocalStore


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_versions_count_from_one(registry: Registry, make_package) -> None:
    pushed = [registry.push(make_package(label)) for label in "abc"]
    assert [record.version for record in pushed] == [1, 2, 3]
    assert all(record.created for record in pushed)
    assert [record.manifest for record in pushed] == [make_package(c).digest for c in "abc"]
    assert [record.previous for record in pushed] == ["", *(r.digest for r in pushed[:2])]


@pytest.mark.parametrize(("label", "version"), [("a", 1), ("b", 2)])
def test_a_package_is_one_version(registry: Registry, make_package, label, version) -> None:
    registry.push(make_package("a"))
    registry.push(make_package("b"))
    before = contents(registry.store.root)
    again = registry.push(make_package(label))
    assert (again.version, again.created) == (version, False)
    assert contents(registry.store.root) == before


def test_models_are_apart(registry: Registry, make_package) -> None:
    assert registry.push(make_package("a", name="one")).version == 1
    assert registry.push(make_package("a", name="two")).version == 1


def test_what_is_pulled_is_what_was_pushed(registry: Registry, make_package, tmp_path) -> None:
    package = make_package()
    registry.push(package)
    out = tmp_path / "new" / "out"
    pulled = registry.pull("demo", out)
    assert pulled.path == out
    assert pulled.digest == package.digest
    assert contents(out) == contents(package.path)
    assert open_package(out).manifest == package.manifest


def test_equal_files_are_stored_once(registry: Registry, make_package) -> None:
    for label in "abc":
        registry.push(make_package(label))
    blobs = list((registry.store.root / "blobs" / "sha256").iterdir())
    assert len(blobs) == 3 + 3 + 2  # manifests, models, and two files that all share


def test_pulling_onto_the_same_package_changes_nothing(
    registry: Registry, make_package, tmp_path
) -> None:
    registry.push(make_package())
    out = tmp_path / "out"
    registry.pull("demo", out)
    inode = (out / "README.md").stat().st_ino
    assert registry.pull("demo", out).path == out
    assert (out / "README.md").stat().st_ino == inode


def test_pulling_onto_something_else_is_refused(registry: Registry, make_package, tmp_path) -> None:
    registry.push(make_package("a"))
    registry.push(make_package("b"))
    registry.pull("demo@1", tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(ConflictError):
        registry.pull("demo@2", tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_package_changed_after_opening_is_not_pushed(registry: Registry, make_package) -> None:
    package = make_package()
    package.model_path.write_bytes(b"other bytes, same place")
    with pytest.raises(IntegrityError, match=r"model/model\.onnx"):
        registry.push(package)
    package.model_path.unlink()
    with pytest.raises(IntegrityError, match=r"model/model\.onnx"):
        registry.push(package)
    assert registry.models() == []


def test_a_bare_name_is_the_newest_version_until_there_is_a_champion(
    registry: Registry, make_package
) -> None:
    first, second = (registry.push(make_package(label)) for label in "ab")
    assert registry.resolve("demo") == second
    registry.promote("demo", 2, "candidate")
    registry.promote("demo", 1, "champion")
    assert registry.resolve("demo") == first
    assert registry.resolve("demo@2") == second
    assert registry.resolve("demo@candidate") == second
    assert registry.resolve(Reference("demo", version=1)) == first


def test_unknown_names_list_what_exists(filled: Registry, make_package, tmp_path) -> None:
    filled.push(make_package(name="other"))
    cases = [
        (lambda: filled.resolve("dema"), "model not found: dema; there is: demo, other"),
        (lambda: filled.resolve("dema@1"), "model not found: dema; there is: demo, other"),
        (lambda: filled.resolve("dema@prod"), "model not found: dema; there is: demo, other"),
        (lambda: filled.pull("dema", tmp_path / "out"), "model not found: dema; there is: demo"),
        (lambda: filled.history("dema"), "model not found: dema; there is: demo, other"),
        (lambda: filled.verify("dema"), "model not found: dema; there is: demo, other"),
        (lambda: filled.promote("dema", 1, "prod"), "model not found: dema; there is: demo"),
        (lambda: filled.rollback("dema", "prod"), "model not found: dema; there is: demo"),
        (lambda: filled.resolve("demo@4"), "version not found: 4; there is: 1, 2, 3"),
        (lambda: filled.promote("demo", 4, "prod"), "version not found: 4; there is: 1, 2, 3"),
        (lambda: filled.promote("demo", 0, "prod"), "version not found: 0; there is: 1, 2, 3"),
        (lambda: filled.promote("demo", -1, "prod"), "version not found: -1; there is: 1, 2, 3"),
        (lambda: filled.resolve("demo@prod"), "alias not found: prod; there is: candidate, ch"),
        (lambda: filled.rollback("demo", "prod"), "alias not found: prod; there is: candidate"),
        (
            lambda: filled.alias_at("demo", "prod", datetime.now(UTC)),
            "alias not found: prod; there is: candidate, champion",
        ),
        (lambda: filled.resolve("other@prod"), "alias not found: prod; there is none"),
    ]
    for call, message in cases:
        with pytest.raises(NotFoundError) as caught:
            call()
        assert message in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert filled.verify("demo") == 3 + 4 + 1


def test_an_empty_registry_has_no_models(registry: Registry) -> None:
    assert registry.models() == []
    with pytest.raises(NotFoundError, match="model not found: demo; there is none"):
        registry.resolve("demo")


class CountingStore(LocalStore):
    """A local store that counts the objects that were read."""

    reads = 0

    def get(self, key: str) -> bytes:
        self.reads += 1
        return super().get(key)


def test_resolve_reads_no_more_for_a_long_history(root: Path) -> None:
    store = CountingStore(root)
    chain = version_chain(store, "demo")
    previous = ""
    for number in range(1, 301):
        record = VersionRecord(
            model="demo", version=number, manifest=f"sha256:{number:064x}",
            at="2026-01-01T00:00:00.000000Z", by="test", previous=previous,
        )  # fmt: skip
        assert chain.append(record)
        previous = record.digest
    registry = Registry(store)
    for reference, version, reads in (("demo@3", 3, 3), ("demo@300", 300, 3), ("demo", 300, 3)):
        store.reads = 0
        assert registry.resolve(reference).version == version
        assert store.reads <= reads
    store.reads = 0
    assert registry.models()[0].newest == 300
    assert store.reads <= 3


class LateListing(LocalStore):
    """A local store whose listings miss some objects, as they may while others write."""

    def list(self, prefix: str) -> Iterator[str]:
        late = ("versions/1.json", "versions/2.json", "champion/1.json", "champion/3.json")
        return (key for key in super().list(prefix) if not key.endswith(late))


def test_a_gap_in_a_listing_is_no_gap_in_a_chain(filled: Registry, make_package) -> None:
    late = Registry(LateListing(filled.store.root))
    assert late.history("demo") == filled.history("demo")
    assert late.resolve("demo") == filled.resolve("demo")
    assert late.models()[0].newest == 3
    assert late.push(make_package("new")).version == 4


class BusyStore(LocalStore):
    """A local store where somebody else works right after the first listing of versions."""

    def __init__(self, root: Path, work: Callable[[], object]) -> None:
        super().__init__(root)
        self.work = [work]

    def list(self, prefix: str) -> Iterator[str]:
        keys = [*super().list(prefix)]
        if prefix.endswith("versions/") and self.work:
            self.work.pop()()
        return iter(keys)


def test_a_version_promoted_while_history_is_read_is_not_missed(
    filled: Registry, make_package
) -> None:
    def push_and_promote() -> None:
        version = filled.push(make_package("meanwhile")).version
        filled.promote("demo", version, "champion")

    busy = Registry(BusyStore(filled.store.root, push_and_promote))
    assert busy.verify("demo") == 8
    assert busy.verify("demo") == 10


def test_models_are_listed(filled: Registry, make_package) -> None:
    other = filled.push(make_package(name="another"))
    first, second = filled.models()
    assert (first.name, first.versions, first.newest) == ("another", 1, 1)
    assert (first.aliases, first.pushed_at) == ({}, other.at)
    assert (second.name, second.versions, second.newest) == ("demo", 3, 3)
    assert second.aliases == {"candidate": 3, "champion": 2}


def test_promoting_what_is_promoted_adds_nothing(filled: Registry) -> None:
    before = filled.history("demo")
    current = filled.promote("demo", 2, "champion", why="again")
    assert (current.sequence, current.why) == (4, "errors")
    assert filled.history("demo") == before


def test_an_alias_record_tells_who_when_why_and_on_what_evidence(
    filled: Registry, monkeypatch
) -> None:
    monkeypatch.setenv("MODELPORT_ACTOR", "ci@pipeline")
    evidence = {"accuracy": 0.97, "seeds": (1, 2), "note": "größer"}
    earliest = datetime.now(UTC).replace(microsecond=0)
    made = filled.promote("demo", 1, "candidate", why="it is better", evidence=evidence)
    assert earliest <= made.time <= datetime.now(UTC)
    assert (made.by, made.why, made.action) == ("ci@pipeline", "it is better", "promote")
    (read,) = [r for r in filled.history("demo") if isinstance(r, AliasRecord) and r == made]
    assert read.evidence == made.evidence == {**evidence, "seeds": [1, 2]}
    stored = json.loads((filled.store.root / made.key).read_bytes())
    assert stored == {
        "format": 1, "kind": "alias", "model": "demo", "alias": "candidate", "sequence": 2,
        "version": 1, "action": "promote", "at": made.at, "by": "ci@pipeline",
        "why": "it is better", "evidence": read.evidence, "previous": made.previous,
    }  # fmt: skip


def test_a_version_record_holds_these_fields(registry: Registry, make_package, monkeypatch) -> None:
    monkeypatch.delenv("MODELPORT_ACTOR", raising=False)
    made = registry.push(make_package())
    stored = json.loads((registry.store.root / "models/demo/versions/1.json").read_bytes())
    assert stored == {
        "format": 1, "kind": "version", "model": "demo", "version": 1,
        "manifest": make_package().digest, "at": made.at, "by": made.by, "previous": "",
    }  # fmt: skip
    user, _, host = made.by.partition("@")
    assert user
    assert host == socket.gethostname()


@pytest.mark.parametrize("evidence", [{"x": float("nan")}, {"x": object()}, {"x": {1, 2}}])
def test_evidence_that_is_no_json_is_refused(filled: Registry, evidence) -> None:
    with pytest.raises(InputError, match="evidence"):
        filled.promote("demo", 1, "candidate", evidence=evidence)
    with pytest.raises(InputError, match="JSON"):
        filled.promote("demo", 1, "candidate", why="half a character: \udc80")
    assert filled.verify("demo") == 8


@pytest.mark.parametrize("alias", ["", "3", "Champion", "a b", "a/b", "../x", "-a", "a.b", "ä"])
def test_aliases_cannot_be_taken_for_versions_or_paths(filled: Registry, alias: str) -> None:
    for call in (
        lambda: filled.promote("demo", 1, alias),
        lambda: filled.rollback("demo", alias),
        lambda: filled.alias_at("demo", alias, datetime.now(UTC)),
        lambda: filled.resolve(f"demo@{alias or '@'}") if alias != "3" else filled.resolve("@"),
    ):
        with pytest.raises(InputError):
            call()


def walk(registry: Registry, moves: str) -> Iterator[int | str]:
    """Promote for each digit, roll back for each ``<``; where the alias is after each."""
    for move in moves:
        try:
            if move == "<":
                registry.rollback("demo", "champion")
            else:
                registry.promote("demo", int(move), "champion")
        except ConflictError:
            yield "conflict"
        else:
            yield registry.resolve("demo@champion").version


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ("123<<<", [1, 2, 3, 2, 1, "conflict"]),
        ("12<3<", [1, 2, 1, 3, 1]),
        ("123<4<<<", [1, 2, 3, 2, 4, 2, 1, "conflict"]),
        ("121<<<", [1, 2, 1, 2, 1, "conflict"]),
        ("12<1<", [1, 2, 1, 1, "conflict"]),
        ("12<2<<", [1, 2, 1, 2, 1, "conflict"]),
        ("1<2<", [1, "conflict", 2, 1]),
    ],
)
def test_promotions_are_a_stack(registry: Registry, make_package, moves, expected) -> None:
    for label in "abcd":
        registry.push(make_package(label))
    assert list(walk(registry, moves)) == expected
    # Every move that was made is on record, and nothing else.
    assert registry.verify("demo") == 4 + len(
        alias_chain(registry.store, "demo", "champion").records()
    )


def test_rolling_back_from_the_first_promotion_says_so(filled: Registry) -> None:
    with pytest.raises(ConflictError, match="nothing to roll back to: demo@candidate is at ver"):
        filled.rollback("demo", "candidate")
    assert filled.verify("demo") == 8


@pytest.fixture
def timed(registry: Registry, make_package) -> Registry:
    """Champion: 1 from 10:00, 2 from 11:00, back to 1 from 12:00."""
    for label in "ab":
        registry.push(make_package(label))
    previous = ""
    for sequence, (hour, version, action) in enumerate(
        [(10, 1, "promote"), (11, 2, "promote"), (12, 1, "rollback")], start=1
    ):
        record = AliasRecord(
            model="demo", alias="champion", sequence=sequence, version=version, action=action,
            at=f"2020-01-31T{hour}:00:00.000000Z", by="test", previous=previous,
        )  # fmt: skip
        assert alias_chain(registry.store, "demo", "champion").append(record)
        previous = record.digest
    return registry


@pytest.mark.parametrize(
    ("time", "version"),
    [
        ("2020-01-31T10:00:00+00:00", 1),
        ("2020-01-31T10:59:59.999+00:00", 1),
        ("2020-01-31T11:00:00+00:00", 2),
        ("2020-01-31T12:30:00+01:00", 2),
        ("2020-01-31T12:00:00+00:00", 1),
        ("2030-01-01T00:00:00+00:00", 1),
    ],
)
def test_what_served_at_a_time(timed: Registry, time: str, version: int) -> None:
    assert timed.alias_at("demo", "champion", datetime.fromisoformat(time)).version == version


def test_before_its_first_record_an_alias_served_nothing(timed: Registry) -> None:
    with pytest.raises(NotFoundError, match=r"it exists since 2020-01-31T10:00:00\.000000Z"):
        timed.alias_at("demo", "champion", datetime(2020, 1, 31, 9, tzinfo=UTC))
    with pytest.raises(InputError, match="no time zone"):
        timed.alias_at("demo", "champion", datetime(2020, 1, 31, 10))


def test_history_is_everything_in_time_order(filled: Registry) -> None:
    records = filled.history("demo")
    assert [record.at for record in records] == sorted(record.at for record in records)
    assert {record.key for record in records} == {
        path.relative_to(filled.store.root).as_posix()
        for path in (filled.store.root / "models").rglob("*.json")
    }


def test_history_mixes_versions_and_aliases(timed: Registry) -> None:
    third = version_chain(timed.store, "demo")
    last = third.records()[-1]
    manifest = f"sha256:{'0' * 64}"
    noon = "2020-01-31T12:00:00.000000Z"
    assert third.append(replace(last, version=3, manifest=manifest, at=noon, previous=last.digest))
    # Versions 1 and 2 are of today: no clock puts version 3 before them.
    assert [Path(record.key).parts[-2:] for record in timed.history("demo")] == [
        ("champion", "1.json"),
        ("champion", "2.json"),
        ("champion", "3.json"),
        ("versions", "1.json"),
        ("versions", "2.json"),
        ("versions", "3.json"),
    ]


def test_no_clock_turns_a_chain_around(timed: Registry) -> None:
    chain = alias_chain(timed.store, "demo", "champion")
    last = chain.records()[-1]
    late = replace(
        last, sequence=4, action="promote", at="2019-01-01T00:00:00.000000Z", previous=last.digest
    )
    assert chain.append(late)
    moves = [r.sequence for r in timed.history("demo") if isinstance(r, AliasRecord)]
    assert moves == [1, 2, 3, 4]
