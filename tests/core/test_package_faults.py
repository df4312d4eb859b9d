"""Writing a package: whatever fails, and whoever else writes, a whole package or none."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelport.core import package as package_module
from modelport.core.errors import ConflictError, IntegrityError, ModelportError
from modelport.core.package import check_relative, open_package, write_durably, write_package

from .test_package import manifest_of, write


class FaultError(OSError):
    """The fault that a test injects."""


def fail_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> Callable[[], int]:
    """Let the `call`-th call of a function fail; returns how often it was called."""
    real = getattr(owner, name)
    calls = []

    def faulty(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == call:
            raise FaultError(28, "injected")
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, faulty)
    return lambda: len(calls)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("owner", "name"),
    [(os, "fsync"), (package_module, "write_durably"), (Path, "chmod"), (Path, "mkdir")],
)
def test_a_fault_at_any_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    for call in range(1, 20):
        with monkeypatch.context() as patched:
            calls = fail_at(patched, owner, name, call)
            try:
                write(tmp_path / "demo")
            except FaultError:
                failed = True
            else:
                failed = calls() >= call
        if not failed:
            assert call > 1
            break
        assert names_in(tmp_path) == []
    open_package(tmp_path / "demo")


def test_a_fault_in_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        fail_at(patched, Path, "rename", 1)
        with pytest.raises((FaultError, ConflictError)):
            write(tmp_path / "demo")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("call", [1, 2])
def test_a_fault_while_replacing_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    before = write(tmp_path / "demo", b"old").digest
    with monkeypatch.context() as patched:
        fail_at(patched, Path, "rename", call)
        with pytest.raises(FaultError):
            write(tmp_path / "demo", b"new", replace=True)
    assert open_package(tmp_path / "demo").digest == before
    assert names_in(tmp_path) == ["demo"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, content: bytes) -> None:
        write_durably(path, content)
        raise KeyboardInterrupt

    monkeypatch.setattr(package_module, "write_durably", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "demo")
    assert names_in(tmp_path) == []


def write_together(writers: list[Callable[[], Any]]) -> list[Any]:
    """Run all at once; results, and the errors that are ours."""
    results: list[Any] = [None] * len(writers)
    start = threading.Barrier(len(writers))

    def run(number: int) -> None:
        start.wait(60)
        try:
            results[number] = writers[number]()
        except ModelportError as error:
            results[number] = error
        except BaseException as error:
            results[number] = f"crashed: {error!r}"

    threads = [threading.Thread(target=run, args=[i], daemon=True) for i in range(len(writers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


@pytest.mark.parametrize("_", range(5))
def test_equal_packages_at_the_same_time(tmp_path: Path, _: int) -> None:
    results = write_together([lambda: write(tmp_path / "demo").digest] * 6)
    assert set(results) == {open_package(tmp_path / "demo").digest}
    assert names_in(tmp_path) == ["demo"]


@pytest.mark.parametrize("_", range(5))
def test_different_packages_at_the_same_time(tmp_path: Path, _: int) -> None:
    """One wins; the others are told."""
    contents = [f"weights {i}".encode() for i in range(6)]
    results = write_together(
        [lambda content=content: write(tmp_path / "demo", content).digest for content in contents]
    )
    winners = [result for result in results if isinstance(result, str)]
    assert winners == [open_package(tmp_path / "demo").digest]
    losers = [result for result in results if not isinstance(result, str)]
    assert all(isinstance(error, ConflictError) for error in losers)
    assert names_in(tmp_path) == ["demo"]


def test_the_model_file_must_be_listed(tmp_path: Path) -> None:
    files = {"baseline.json": b"{}"}
    write_package(tmp_path / "demo", manifest_of(files), files)
    with pytest.raises(IntegrityError, match=r"lists no model file model/model\.onnx"):
        open_package(tmp_path / "demo")


def test_a_listed_file_that_is_a_folder_or_a_dead_link(tmp_path: Path) -> None:
    write(tmp_path / "demo")
    listed = tmp_path / "demo" / "baseline.json"
    listed.unlink()
    listed.mkdir()
    with pytest.raises(IntegrityError, match=r"missing: baseline\.json"):
        open_package(tmp_path / "demo")
    listed.rmdir()
    listed.symlink_to("nowhere")
    with pytest.raises(IntegrityError, match=r"missing: baseline\.json"):
        open_package(tmp_path / "demo")


def test_an_extra_link_shows(tmp_path: Path) -> None:
    write(tmp_path / "demo")
    (tmp_path / "demo" / "model" / "link").symlink_to("/etc/hostname")
    with pytest.raises(IntegrityError, match="model/link"):
        open_package(tmp_path / "demo")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(ConflictError, match="something else exists"):
        write(tmp_path / "demo", replace=True)
    assert (tmp_path / "demo").read_text() == "a file"


@pytest.mark.parametrize("name", ["a", "a/b.c", "model/ü.onnx", "..a", "a..", ".hidden", "a b"])
def test_names_that_stay_inside(name: str) -> None:
    assert check_relative(name, where="here") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "a/", "//a", "a/../b", "a/./b", "..\\a", "C:\\a", "a\0b"]
)
def test_names_that_leave(name: str) -> None:
    with pytest.raises(IntegrityError, match="leaves its folder"):
        check_relative(name, where="here")
