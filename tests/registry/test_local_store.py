from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from modelport.core.errors import InputError, NotFoundError, UnavailableError
from modelport.stores.base import Store, open_store
from modelport.stores.local import LOCK, STAGING, STALE_AFTER, LocalStore, LocalStoreFamily

RACE = """
import json, sys
from pathlib import Path
from modelport.stores.local import LocalStore

root, hard_links, me, rounds = sys.argv[1:]
store = LocalStore(Path(root), hard_links=hard_links == "True")
print("ready", flush=True)
sys.stdin.readline()
won = []
for number in range(int(rounds)):
    if store.put_if_absent(f"race/{number}", me.encode()):
        won.append(number)
    # Winner or loser: from now on the object is whole.
    assert len(store.get(f"race/{number}")) == 1
print(json.dumps(won))
"""


PUT = """
import sys
from pathlib import Path
from modelport.stores.local import LocalStore

store = LocalStore(Path(sys.argv[1]), hard_links=False)
print("ready", flush=True)
sys.stdin.readline()
print(store.put_if_absent("a", b"theirs"))
"""


@pytest.fixture(params=[True, False], ids=["links", "no-links"])
def store(request, root: Path) -> LocalStore:
    return LocalStore(root, hard_links=request.param)


def test_what_is_put_is_got(store: LocalStore) -> None:
    assert store.put_if_absent("a/b/c.json", b"\x00content")
    assert store.get("a/b/c.json") == b"\x00content"
    assert store.exists("a/b/c.json")


def test_the_first_content_stays(store: LocalStore) -> None:
    assert store.put_if_absent("a/b", b"first")
    assert not store.put_if_absent("a/b", b"second")
    assert store.get("a/b") == b"first"
    assert list((store.root / STAGING).iterdir()) == []


def test_an_empty_object_is_an_object(store: LocalStore) -> None:
    assert store.put_if_absent("empty", b"")
    assert not store.put_if_absent("empty", b"more")
    assert store.get("empty") == b""


@pytest.mark.parametrize("key", ["missing", "folder", "folder/object/below"])
def test_what_is_no_object_is_not_found(store: LocalStore, key: str) -> None:
    store.put_if_absent("folder/object", b"")
    assert not store.exists(key)
    with pytest.raises(NotFoundError, match=f"object not found: {key}"):
        store.get(key)


@pytest.mark.parametrize(
    "key",
    [
        "", "/", "/etc/passwd", "..", "a/../../b", "a/..", ".", "./a", "a//b", "a/", ".staging/x",
        ".lock", "a/.hidden", "a\\b", "c:/a", "a\0b", "a\nb",
    ],
)  # fmt: skip
def test_keys_that_leave_the_folder_are_refused(store: LocalStore, key: str) -> None:
    for use in (store.get, store.exists, lambda key: store.put_if_absent(key, b"")):
        with pytest.raises(InputError, match="not an object key"):
            use(key)


def test_list_gives_all_keys_below_a_prefix(store: LocalStore) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "4"):
        store.put_if_absent(key, b"")
    assert sorted(store.list("a/")) == ["a/1", "a/b/2"]
    assert sorted(store.list("")) == ["4", "a/1", "a/b/2", "ab/3"]
    assert list(store.list("none/")) == []
    assert list(store.list("4/")) == []
    with pytest.raises(InputError):
        list(store.list("../"))


def test_a_store_that_does_not_exist_yet_is_empty(store: LocalStore) -> None:
    assert list(store.list("")) == []
    assert not store.exists("a")
    assert not store.root.exists()


def test_temporaries_are_ignored_and_removed_when_stale(store: LocalStore) -> None:
    staging = store.root / STAGING
    staging.mkdir(parents=True)
    old, young = staging / "old", staging / "young"
    for path in (old, young):
        path.write_bytes(b"half an obj")
    long_ago = time.time() - STALE_AFTER - 3600
    os.utime(old, (long_ago, long_ago))
    assert list(store.list("")) == []
    assert store.put_if_absent("a", b"whole")
    assert list(store.list("")) == ["a"]
    assert list(staging.iterdir()) == [young]


@pytest.mark.parametrize(("umask", "mode"), [(0o000, 0o644), (0o022, 0o644), (0o077, 0o600)])
def test_objects_are_readable_as_the_umask_allows(store: LocalStore, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        store.put_if_absent("a", b"")
    finally:
        os.umask(before)
    assert (store.root / "a").stat().st_mode & 0o777 == mode


def test_a_refusing_file_system_is_explained(store: LocalStore) -> None:
    store.put_if_absent("a", b"an object, so no folder")
    with pytest.raises(UnavailableError, match=r"cannot write a/b: .*directory.*(?s:.)*hint: "):
        store.put_if_absent("a/b", b"")
    assert list((store.root / STAGING).iterdir()) == []
    assert store.get("a") == b"an object, so no folder"


def test_urls_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my models"
    for url in (
        str(folder), "~/my models", "my models", folder.as_uri(),
        f"file://localhost{folder.as_posix()}",
    ):  # fmt: skip
        opened = open_store(url)
        assert isinstance(opened, LocalStore)
        assert opened.url == str(folder)
        assert opened.root == folder


def test_a_relative_folder_stays_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store: Store = LocalStoreFamily().open("here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.put_if_absent("a", b"")
    assert (tmp_path / "here" / "a").is_file()


@pytest.mark.parametrize(
    "url", ["", "file://", "file://host/a", "s3://bucket/a", "file:///a#b", "file:///a?b", "a\0b"]
)
def test_what_is_no_local_folder_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        LocalStoreFamily().open(url)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a store is a folder"):
        LocalStoreFamily().open(str(tmp_path / "file"))


def test_a_race_has_exactly_one_winner(store: LocalStore, run_together) -> None:
    rounds = 200
    hard_links = store._hard_links
    outputs = run_together(RACE, [(store.root, hard_links, me, rounds) for me in "abcd"])
    winners = {me: set(json.loads(output)) for me, output in zip("abcd", outputs, strict=True)}
    assert sum(map(len, winners.values())) == rounds
    assert set().union(*winners.values()) == set(range(rounds))
    for me, won in winners.items():
        assert {store.get(f"race/{number}") for number in won} <= {me.encode()}
    assert list((store.root / STAGING).iterdir()) == []


def test_without_hard_links_a_lock_covers_the_look_and_the_rename(root: Path, start_worker) -> None:
    store = LocalStore(root, hard_links=False)
    store.put_if_absent("b", b"makes the folders")
    with (root / LOCK).open("ab") as lock, start_worker(PUT, root) as process:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        while not any(path.stat().st_size for path in (root / STAGING).iterdir()):
            assert process.poll() is None
        # It found the name free when it began, and must look again when it has the lock.
        (root / "a").write_bytes(b"ours")
        lock.close()
        assert process.communicate(timeout=60)[0] == "False\n"
    assert store.get("a") == b"ours"
