"""The command line as the issue of record spells it: verbs, flags, output, exit codes."""

from __future__ import annotations

import json
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelport.cli.main import VERBS

Run = Callable[..., subprocess.CompletedProcess[str]]

ROWS = 150


def pack(run: Run, iris: Path, *more: str, source: str = "model.pkl") -> None:
    done = run(
        "pack", str(iris / source), "--name", "iris", "--sample", str(iris / "sample.npy"), *more
    )
    assert done.returncode == 0, done.stderr


def test_help_shows_every_verb_with_examples(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    for verb in VERBS:
        assert f"    {verb}" in done.stdout
    assert "examples:" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(run: Run, verb: str) -> None:
    done = run(verb, "--help")
    assert done.returncode == 0
    assert f"modelport {verb}" in done.stdout
    assert "examples:" in done.stdout


def test_version(run: Run) -> None:
    assert run("--version").stdout.startswith("modelport 0.")


@pytest.mark.parametrize("words", [[], ["pakc"], ["pack"], ["serve", "x", "--port", "y"]])
def test_wrong_usage_exits_with_2(run: Run, words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert "usage: modelport" in done.stderr
    assert not done.stdout


def test_pack_writes_a_package_and_prints_the_parity(run: Run, iris: Path, tmp_path: Path) -> None:
    done = run(
        "pack", str(iris / "model.pkl"), "--name", "iris", "--sample", str(iris / "sample.csv")
    )
    assert done.returncode == 0, done.stderr
    assert "0 label flips" in done.stdout
    assert (tmp_path / "iris" / "manifest.json").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["iris"]


def test_packing_twice_gives_the_same_digest(run: Run, iris: Path, tmp_path: Path) -> None:
    pack(run, iris, "--out", "a")
    pack(run, iris, "--out", "b")
    first = json.loads(run("inspect", "a/iris", "--json").stdout)
    second = json.loads(run("inspect", "b/iris", "--json").stdout)
    assert first["digest"] == second["digest"]


def test_pack_json_carries_the_whole_report(run: Run, iris: Path) -> None:
    sample = str(iris / "sample.npy")
    done = run("pack", str(iris / "model.pkl"), "--name", "iris", "--sample", sample, "--json")
    report = json.loads(done.stdout)
    assert report["parity"]["label_flips"] == 0
    assert report["parity"]["rows"] == ROWS
    assert report["task"] == "classification"
    assert report["provenance"]


def test_pack_refuses_to_overwrite(run: Run, iris: Path, tmp_path: Path) -> None:
    pack(run, iris)
    before = (tmp_path / "iris" / "manifest.json").read_bytes()
    sample = ["--sample", str(iris / "sample.npy")]
    done = run("pack", str(iris / "better.pkl"), "--name", "iris", *sample)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert (tmp_path / "iris" / "manifest.json").read_bytes() == before
    pack(run, iris, "--force", source="better.pkl")
    assert (tmp_path / "iris" / "manifest.json").read_bytes() != before


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch canary",)


def test_pack_refuses_a_hostile_pickle(run: Run, tmp_path: Path) -> None:
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Hostile()))
    done = run("pack", "evil.pkl", "--name", "evil", "--json")
    assert done.returncode == 3
    assert "system" in done.stderr
    assert json.loads(done.stdout)["error"]["kind"] == "UnsafeError"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.pkl"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.onnx", b"\x08\x09\x12"),
        ("model.pkl", b"\x80\x04"),
        ("model.joblib", b""),
        ("model.skops", b"PK"),
        ("model.xyz", b"hello"),
    ],
)
def test_pack_refuses_damaged_files(run: Run, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    done = run("pack", name, "--name", "damaged")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


def test_pack_says_which_files_there_are(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").touch()
    done = run("pack", "modle.pkl", "--name", "x")
    assert done.returncode == 2
    assert "there is: model.pkl" in done.stderr


def test_sample_that_does_not_fit(run: Run, iris: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.csv").write_text("a,b\n1,2\n")
    done = run("pack", str(iris / "model.pkl"), "--name", "iris", "--sample", "wrong.csv")
    assert done.returncode == 2
    assert "wrong.csv" in done.stderr
    assert not (tmp_path / "iris").exists()


@pytest.mark.parametrize("name", ["Iris", "a/b", "", "-x", "a b", "../x"])
def test_names_that_cannot_be(run: Run, iris: Path, name: str) -> None:
    done = run("pack", str(iris / "model.pkl"), f"--name={name}")
    assert done.returncode == 2
    assert "not a model name" in done.stderr


def test_inspect_verifies(run: Run, iris: Path, tmp_path: Path) -> None:
    pack(run, iris)
    done = run("inspect", "iris")
    assert done.returncode == 0
    assert "verified" in done.stdout
    model = next((tmp_path / "iris" / "model").iterdir())
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    done = run("inspect", "iris")
    assert done.returncode == 3
    assert f"model/{model.name}" in done.stderr


def test_predict_gives_the_source_models_labels(run: Run, iris: Path) -> None:
    pack(run, iris)
    expected = np.load(iris / "expected.npy").tolist()
    for name in ("sample.npy", "sample.csv"):
        done = run("predict", "iris", "--input", str(iris / name), "--json")
        assert json.loads(done.stdout)["outputs"]["label"] == expected
    table = run("predict", "iris", "--input", str(iris / "sample.npy")).stdout
    assert table.splitlines()[0].split()[:2] == ["row", "label"]
    assert "and 100 more rows" in table


def test_the_registry_from_push_to_rollback(run: Run, iris: Path, tmp_path: Path) -> None:
    assert run("list").returncode == 0
    pack(run, iris)
    assert "pushed iris@1" in run("push", "iris").stdout
    assert "registered already: iris@1" in run("push", "iris").stdout
    pack(run, iris, "--force", source="better.pkl")
    assert json.loads(run("push", "iris", "--json").stdout)["version"] == 2
    assert "version 1" in run("promote", "iris@1", "champion", "--why", "first").stdout
    assert "version 2" in run("promote", "iris@2", "champion").stdout
    assert "champion → 2" in run("list").stdout
    assert "version 1 again" in run("rollback", "iris", "champion").stdout
    events = json.loads(run("history", "iris", "--json").stdout)
    assert [event["kind"] for event in events] == ["version", "version", "alias", "alias", "alias"]
    assert "rolled champion back to version 1" in run("history", "iris").stdout
    pulled = run("pull", "iris@champion", "--out", "pulled")
    assert pulled.returncode == 0, pulled.stderr
    first = json.loads(run("inspect", "pulled/iris", "--json").stdout)["digest"]
    assert first == events[0]["manifest"]
    again = run("rollback", "iris", "champion")
    assert again.returncode == 2
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize(
    ("words", "listed"),
    [
        (["pull", "irsi@1"], "iris"),
        (["pull", "iris@7"], "1"),
        (["pull", "iris@champoin"], "champion"),
        (["promote", "iris@7", "champion"], "1"),
        (["rollback", "iris", "nobody"], "champion"),
        (["history", "irsi"], "iris"),
        (["predict", "iris@7", "--input", "x.npy"], "1"),
        (["serve", "iris@nobody"], "champion"),
    ],
)
def test_unknown_names_list_those_that_exist(
    run: Run, iris: Path, tmp_path: Path, words: list[str], listed: str
) -> None:
    pack(run, iris)
    np.save(tmp_path / "x.npy", np.zeros((1, 4)))
    run("push", "iris")
    run("promote", "iris@1", "champion")
    done = run(*words)
    assert done.returncode == 2, done.stderr
    assert f"there is: {listed}" in done.stderr


def test_settings_flag_before_environment_before_file(run: Run, iris: Path, tmp_path: Path) -> None:
    pack(run, iris)
    (tmp_path / "modelport.toml").write_text(f'registry = "{tmp_path / "by-file"}"\n')
    run("push", "iris", "--registry", str(tmp_path / "by-flag"))
    run("push", "iris")
    assert (tmp_path / "by-flag").is_dir()
    assert (tmp_path / "registry").is_dir()
    assert not (tmp_path / "by-file").exists()


def test_unknown_store(run: Run) -> None:
    done = run("list", "--registry", "ftp://example.org/models")
    assert done.returncode == 2
    assert "file://" in done.stderr


def test_doctor_lists_every_adapter(run: Run) -> None:
    from modelport.adapters import TABLE

    done = run("doctor", "--json")
    assert done.returncode == 0
    diagnosis = json.loads(done.stdout)
    assert [a["name"] for a in diagnosis["adapters"]] == [adapter.name for adapter in TABLE]
    assert diagnosis["healthy"]


def test_a_defect_shows_no_traceback(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import modelport.api as api\n"
        "def broken(**_): raise KeyError('broken')\n"
        "api.doctor = broken\n"
    )
    done = run("doctor", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "a defect in modelport" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in run("doctor", PYTHONPATH=str(tmp_path), MODELPORT_DEBUG="1").stderr
