from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from modelport.registry.aliases import alias_chain
from modelport.registry.stage import Registry

START = """
import sys
from pathlib import Path
from modelport.core.errors import ConflictError
from modelport.core.package import open_package
from modelport.registry.stage import Registry
from modelport.stores.local import LocalStore

registry = Registry(LocalStore(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
"""

PUSH = START + (
    """
for folder in sys.argv[2:]:
    print(registry.push(open_package(Path(folder))).version)
    # A reader among writers never sees anything that looks tampered with.
    registry.verify("demo")
    registry.models()
    registry.resolve("demo")
"""
)

PROMOTE = START + (
    """
for version in map(int, sys.argv[2:]):
    registry.promote("demo", version, "champion", why="race")
    registry.resolve("demo")
    registry.history("demo")
"""
)

ROLLBACK = START + (
    """
try:
    print(registry.rollback("demo", "champion").version)
except ConflictError:
    print("conflict")
"""
)


@pytest.mark.parametrize("count", [2, 8])
def test_pushes_at_once_get_consecutive_versions(
    registry: Registry, make_package, run_together, tmp_path: Path, count: int
) -> None:
    each = 4
    packages = {n: make_package(n) for n in range(count * each)}
    folders = [package.path for package in packages.values()]
    outputs = run_together(PUSH, [(registry.store.root, *folders[n::count]) for n in range(count)])
    versions = [int(line) for output in outputs for line in output.split()]
    assert sorted(versions) == list(range(1, count * each + 1))
    assert registry.verify("demo") == count * each
    pulled = {
        registry.pull(f"demo@{version}", tmp_path / f"out-{version}").digest for version in versions
    }
    assert pulled == {package.digest for package in packages.values()}


def test_pushes_of_one_package_at_once_make_one_version(
    registry: Registry, make_package, run_together
) -> None:
    folder = make_package().path
    outputs = run_together(PUSH, [(registry.store.root, folder)] * 8)
    assert [output.split() for output in outputs] == [["1"]] * 8
    assert registry.models()[0].versions == 1


def test_promotions_at_once_are_all_on_record(
    registry: Registry, make_package, run_together
) -> None:
    for label in "abcdefgh":
        registry.push(make_package(label))
    versions = list(range(1, 9)) * 2
    run_together(PROMOTE, [(registry.store.root, *versions[n : n + 8]) for n in range(8)])
    moves = alias_chain(registry.store, "demo", "champion").records()
    assert registry.verify("demo") == 8 + len(moves)
    assert {move.version for move in moves} == set(range(1, 9))
    assert all(a.version != b.version for a, b in pairwise(moves))


def test_rollbacks_at_once_never_skip_what_somebody_saw(
    registry: Registry, make_package, run_together
) -> None:
    for version, label in enumerate("abcd", start=1):
        registry.push(make_package(label))
        registry.promote("demo", version, "champion")
    outputs = run_together(ROLLBACK, [(registry.store.root,)] * 4)
    went = sorted((line.strip() for line in outputs if "conflict" not in line), reverse=True)
    # Those that got through are distinct steps down; the others were told.
    assert went == ["3", "2", "1"][: len(went)]
    assert went
    assert registry.resolve("demo@champion").version == int(went[-1])
