"""Lock files and wheels."""

from __future__ import annotations

import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from modelport.core.errors import (
    InputError,
    IntegrityError,
    NotFoundError,
    PlatformError,
    UnsupportedError,
)
from modelport.core.package import Package
from modelport.deploy.images import wheels as wheels_module
from modelport.deploy.images.requirements import requirements
from modelport.deploy.images.wheels import (
    MACHINES,
    PYTHONS,
    Wheel,
    get_wheels,
    normalise,
    read_lock,
    unpack,
)
from tests.deploy.small_images import quiet


def test_own_lock_file_has_wheels_for_every_platform() -> None:
    pins = {pin.name: pin for pin in read_lock("")}
    for name in ("onnxruntime", "numpy", "granian", "orjson", "grpcio"):
        assert pins[name].text.count("--hash=sha256:") >= len(PYTHONS) * len(MACHINES)
    assert "server" in pins["grpcio"].via
    assert pins["pillow"].via == ("image",)
    groups = {group for pin in pins.values() for group in pin.via}
    assert groups == {"server", "forest", "image", "text"}


def test_own_lock_file_is_what_the_project_requires() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {"server": [*project["dependencies"], *extras["grpc"], *extras["zstd"]]}
    wanted |= {name: extras[name] for name in ("forest", "image", "text")}
    pins = {pin.name: pin for pin in read_lock("")}
    for group, texts in wanted.items():
        for requirement in map(Requirement, texts):
            pin = pins[normalise(requirement.name)]
            assert group in pin.via
            assert pin.version in requirement.specifier, "python -m modelport.deploy.images.lock"


def test_lock_file_without_hashes_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("--index-url https://example.org\n")
    assert read_lock(str(lock)) == []
    for line in ("numpy>=2", "numpy==2.0", "git+https://example/x", "-e .", "-r more.txt"):
        lock.write_text(f"--index-url https://example.org\n{line}\n")
        with pytest.raises(InputError, match="not locked") as caught:
            read_lock(str(lock))
        assert caught.value.where == str(lock)
    with pytest.raises(NotFoundError, match="lock file"):
        read_lock(str(tmp_path / "none"))


def test_requirements_follow_the_package(package: Package, tmp_path: Path) -> None:
    names = {pin.name for pin in requirements(package, "")}
    assert {"onnxruntime", "awslambdaric", "grpcio"} <= names
    assert not {"pillow", "tokenizers"} & names
    forest = replace(package, manifest=replace(package.manifest, engine="forest"))
    more = {pin.name for pin in requirements(forest, "")} - names
    assert more == {"ml-dtypes", "onnx", "scipy", "xgboost-cpu"}
    torch = replace(package, manifest=replace(package.manifest, engine="torch"))
    with pytest.raises(UnsupportedError, match="needs torch") as caught:
        requirements(torch, "")
    assert "--lock FILE" in caught.value.hint
    lock = tmp_path / "lock.txt"
    lock.write_text(f"Torch==2.6.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(InputError, match=r"lacks what the server needs: .*granian.*numpy"):
        requirements(torch, str(lock))
    own = [pin.text for pin in requirements(package, "")]
    lock.write_text("\n".join([*own, f"Torch==2.6.0 --hash=sha256:{'0' * 64}"]))
    assert "torch" in {pin.name for pin in requirements(torch, str(lock))}


def test_wheels_with_other_hashes_are_refused(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"click==8.1.8 --hash=sha256:{'0' * 64}\n")
    with pytest.raises((IntegrityError, PlatformError)) as caught:
        get_wheels(read_lock(str(lock)), "3.11", "x86_64", tmp_path / "cache", quiet)
    assert "Traceback" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.whl"))


def test_changed_wheels_in_the_cache_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def download(requirements: Path, into: Path, python: str, machine: str) -> None:
        made.append(machine)
        into.mkdir()
        write_wheel(into / "thing-1.0-py3-none-any.whl")

    monkeypatch.setattr(wheels_module, "_pip_download", download)
    for _ in range(2):
        (wheel,) = get_wheels([], "3.11", "x86_64", tmp_path, quiet)
    assert made == ["x86_64"]
    assert (wheel.name, wheel.version, wheel.license) == ("some-thing", "1.0", "MIT")
    wheel.path.write_bytes(b"else")
    with pytest.raises(IntegrityError, match="changed"):
        get_wheels([], "3.11", "x86_64", tmp_path, quiet)
    get_wheels([], "3.11", "x86_64", tmp_path, quiet)
    assert made == ["x86_64"] * 2


def write_wheel(path: Path, **more: str) -> Path:
    """A small wheel."""
    files = {
        "thing/__init__.py": "x = 1\n",
        "thing/tests/test_x.py": "",
        "thing-1.0.data/purelib/pure.py": "",
        "thing-1.0.data/scripts/run": "",
        "thing-1.0.dist-info/METADATA": (
            "Metadata-Version: 2.4\nName: Some_Thing\nVersion: 1.0\nLicense-Expression: MIT\n"
        ),
        **more,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_wheels_are_unpacked_as_installers_do(tmp_path: Path) -> None:
    wheel = Wheel(write_wheel(tmp_path / "w.whl"), "", "thing", "1.0")
    unpack([wheel], tmp_path / "all")
    found = {p.relative_to(tmp_path / "all").as_posix() for p in (tmp_path / "all").rglob("*.py")}
    assert found == {"thing/__init__.py", "thing/tests/test_x.py", "pure.py"}
    unpack([wheel], tmp_path / "few", tests=False)
    assert not (tmp_path / "few/thing/tests").exists()
    assert not (tmp_path / "all/run").exists()
    evil = Wheel(write_wheel(tmp_path / "e.whl", **{"../evil.py": ""}), "", "e", "1")
    with pytest.raises(IntegrityError, match="leaves its folder"):
        unpack([evil], tmp_path / "evil")
    assert not (tmp_path / "evil.py").exists()
