"""Writers that are killed, at random moments and at every line of the store."""

from __future__ import annotations

import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from modelport.registry.records import VersionRecord
from modelport.registry.stage import Registry

FOREVER = """
import itertools, sys
from dataclasses import replace
from pathlib import Path
from modelport.core.digest import sha256_bytes
from modelport.core.errors import ConflictError
from modelport.core.manifest import FileEntry
from modelport.core.package import open_package, write_package
from modelport.registry.stage import Registry
from modelport.stores.local import LocalStore

root, template, scratch, me = sys.argv[1:]
registry = Registry(LocalStore(Path(root)))
base = open_package(Path(template))
print("ready", flush=True)
sys.stdin.readline()
for count in itertools.count():
    content = f"{me} {count} ".encode() * 50_000
    files = {"model/model.onnx": content}
    entries = {path: FileEntry(sha256_bytes(data), len(data)) for path, data in files.items()}
    manifest = replace(base.manifest, files=entries)
    package = write_package(Path(scratch) / f"{me}-{count}", manifest, files)
    version = registry.push(package).version
    print("pushed", flush=True)
    registry.promote("demo", version, "champion", why=me)
    registry.promote("demo", version, f"of-{me.partition('-')[0]}")
    if count % 3 == 2:
        try:
            registry.rollback("demo", "champion")
        except ConflictError:
            pass  # another writer moved it at that moment
"""

# Forks once for every line of the store that one operation runs, and dies before that line.
EVERY_LINE = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from modelport.core.package import open_package
from modelport.registry.records import VersionRecord
from modelport.registry.stage import Registry
from modelport.stores import local

template, scratch, hard_links, operation, *packages = sys.argv[1:]
package, following = (open_package(Path(folder)) for folder in packages)


def registry_at(root):
    return Registry(local.LocalStore(root, hard_links=hard_links == "True"))


def run(registry):
    if operation == "push":
        registry.push(package)
    elif operation == "promote":
        registry.promote("demo", 2, "champion")
    elif operation == "first promote":
        registry.promote("demo", 2, "brand-new")
    else:
        registry.rollback("demo", "champion")


def die_before_line(number):
    lines = itertools.count(1)

    def on_line(frame, event, _):
        if event == "line" and next(lines) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame, event, _):
        return on_line if frame.f_code.co_filename == local.__file__ else None

    sys.settrace(on_call)


def check(registry, before):
    after = len(registry.history("demo"))
    assert after in (before, before + 1), after
    (summary,) = registry.models()
    newest = registry.resolve(f"demo@{summary.newest}")
    pulled = registry.pull(f"demo@{summary.newest}", registry.store.root.parent / "out")
    assert pulled.digest == newest.manifest
    assert registry.resolve("demo").version == summary.aliases["champion"]
    run(registry)
    registry.push(following)
    assert registry.resolve(f"demo@{registry.models()[0].newest}").manifest == following.digest
    registry.verify("demo")
    return after == before + 1


print("ready", flush=True)
sys.stdin.readline()
before = len(registry_at(Path(template)).history("demo"))
done = []
for number in itertools.count(1):
    home = Path(scratch) / str(number)
    shutil.copytree(template, home / "registry")
    registry = registry_at(home / "registry")
    child = os.fork()
    if child == 0:
        die_before_line(number)
        run(registry)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, status
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    done.append(check(registry, before))
    shutil.rmtree(home)
# First every death leaves what was, from one line on every death leaves what should be.
assert done == sorted(done), done
print(len(done), sum(done))
"""


def check_all(registry: Registry, out: Path) -> None:
    """Every verb works, whatever the writers left."""
    history = registry.history("demo")
    assert registry.verify("demo") == len(history)
    versions = [record for record in history if isinstance(record, VersionRecord)]
    assert [record.version for record in versions] == list(range(1, len(versions) + 1))
    (summary,) = registry.models()
    assert summary.versions == len(versions)
    for reference in ("demo", f"demo@{len(versions)}", *(f"demo@{a}" for a in summary.aliases)):
        record = registry.resolve(reference)
        package = registry.pull(reference, out / f"version-{record.version}")
        assert package.digest == record.manifest


@pytest.mark.slow
def test_killed_writers_leave_a_working_registry(
    registry: Registry, make_package, start_worker, tmp_path: Path
) -> None:
    template = make_package("template")
    registry.push(template)
    chance = random.Random(20260131)
    rounds, together = 14, 3
    for number in range(rounds):
        with ExitStack() as stack:
            workers = [
                stack.enter_context(
                    start_worker(
                        FOREVER, registry.store.root, template.path, tmp_path, f"w{n}-{number}"
                    )
                )
                for n in range(together)
            ]
            for process in workers:
                assert process.stdout.readline() == "ready\n"
            for process in workers:
                process.stdin.write("go\n")
                process.stdin.flush()
            if number % 2:  # however slow the machine, some get beyond their first push
                assert workers[0].stdout.readline() == "pushed\n"
            for process in workers:
                time.sleep(chance.uniform(0, 0.06))
                process.kill()
            for process in workers:
                assert process.wait(60) == -signal.SIGKILL, process.stdout.read()
        check_all(registry, tmp_path / f"out-{number}")
        pushed = registry.push(make_package(f"after-{number}"))
        assert pushed.created
        assert registry.resolve(f"demo@{pushed.version}") == pushed
    assert registry.models()[0].versions >= 1 + rounds + rounds // 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "hard_links"),
    [
        ("push", True),
        ("push", False),
        ("promote", True),
        ("first promote", True),
        ("rollback", True),
    ],
)
def test_death_before_any_line_of_the_store_is_harmless(
    registry: Registry, make_package, run_together, tmp_path: Path, operation, hard_links
) -> None:
    for version, label in enumerate("abc", start=1):
        registry.push(make_package(label))
        registry.promote("demo", version, "champion")
    packages = [make_package(label).path for label in ("new", "following")]
    (output,) = run_together(
        EVERY_LINE,
        [(registry.store.root, tmp_path / "scratch", hard_links, operation, *packages)],
    )
    deaths, finished = map(int, output.split())
    assert deaths > 60
    assert 0 < finished < deaths
