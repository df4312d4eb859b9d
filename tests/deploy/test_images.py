"""What is in an image: the server, its configuration, its bill of materials; and the verb."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from modelport.cli.main import main
from modelport.core.options import ImageOptions
from modelport.core.package import Package
from modelport.deploy.images.base import Base
from modelport.deploy.images.build import _insecure_base
from modelport.deploy.images.config import image_config
from modelport.deploy.images.layers import Layer, write_layer
from modelport.deploy.images.layout import (
    INDEX,
    Layout,
    read_document,
)
from modelport.deploy.images.reference import parse_reference
from modelport.deploy.images.sbom import describe_image
from modelport.deploy.images.server import find_compiler, server_entries
from modelport.deploy.images.wheels import Wheel
from tests.deploy.containers import CACHE, locked
from tests.deploy.small_images import check_schema, opened, small_base


def test_server_needs_nothing_of_the_base_but_its_python(tmp_path: Path) -> None:
    entries = {
        entry.path: entry for entry in server_entries(tmp_path, "/usr/bin/python3.11", "3.11", "")
    }
    assert entries["opt/modelport/bin/python"].link == "/usr/bin/python3.11"
    assert b"home = /usr/bin\n" in entries["opt/modelport/pyvenv.cfg"].content  # type: ignore[operator]
    site = "opt/modelport/lib/python3.11/site-packages/modelport"
    assert f"{site}/cli/main.py" in entries
    assert f"{site}/serve/protos/descriptors.binpb" in entries
    assert f"{site}/deploy/images/requirements.lock" in entries
    assert not [path for path in entries if path.endswith(".pyc")]


def test_bytecode_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    python = ".".join(map(str, sys.version_info[:2]))
    compiler = find_compiler(python)
    assert compiler.version.startswith(python)
    assert find_compiler("3.99").path == ""
    layers = []
    for name in ("a", "somewhere/else"):
        (tmp_path / name).mkdir(parents=True)
        entries = list(server_entries(tmp_path / name, "/usr/bin/python3", python, compiler.path))
        layers.append(write_layer(tmp_path / f"{len(layers)}.layer", entries))
    assert layers[0].digest == layers[1].digest
    name = f"cli/__pycache__/serve.cpython-{python.replace('.', '')}.pyc"
    with tarfile.open(layers[0].path) as archive:
        (compiled,) = (member for member in archive if member.name.endswith(name))
        file = archive.extractfile(compiled)
        assert file is not None
        # PEP 552: named by the hash of its source, which is never looked at.
        assert int.from_bytes(file.read(8)[4:], "little") == 0b01


def _made(package: Package, base: Base, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    layer = Layer(tmp_path, "sha256:" + "1" * 64, "sha256:" + "2" * 64, 10, 20)
    wheel = Wheel(tmp_path, "3" * 64, "numpy", "2.0+local", "BSD-3-Clause")
    config = image_config(package, base, [(layer, "model")], "3.11.2")
    return config, describe_image(package, base, [wheel])


def test_configuration(package: Package, tmp_path: Path) -> None:
    base = opened(small_base(tmp_path / "base"), tmp_path)
    config, _ = _made(package, base, tmp_path)
    check_schema(config, "config-schema.json")
    inside = config["config"]
    assert inside["Entrypoint"] == ["/opt/modelport/bin/modelport", "serve"]
    assert "Cmd" not in inside
    assert inside["User"] == "65532:65532"
    assert inside["StopSignal"] == "SIGTERM"
    assert inside["ExposedPorts"] == {"8080/tcp": {}}
    assert inside["Healthcheck"]["Test"] == ["CMD", "/opt/modelport/bin/healthcheck"]
    assert inside["Healthcheck"]["Interval"] == 10_000_000_000
    variables = dict(text.split("=", 1) for text in inside["Env"])
    assert variables["PATH"] == "/opt/modelport/bin:/usr/local/bin:/usr/bin"
    assert variables["HOME"] == "/tmp"
    assert variables["MODELPORT_HOST"] == "0.0.0.0"
    assert variables["LANG"] == "C"
    labels = inside["Labels"]
    assert labels["io.modelport.package.digest"] == package.digest
    assert json.loads(labels["io.modelport.signature"]) == package.manifest.signature.to_json()
    assert labels["org.opencontainers.image.base.digest"] == base.digest
    # A folder's name must not get into the digest.
    assert str(tmp_path) not in json.dumps(config)
    assert len(config["rootfs"]["diff_ids"]) == 2
    layers = [entry for entry in config["history"] if not entry.get("empty_layer")]
    assert len(layers) == 2


def test_history_of_the_base_is_kept(package: Package, tmp_path: Path) -> None:
    history = [{"created_by": "ADD"}, {"created_by": "CMD", "empty_layer": True}]
    base = opened(small_base(tmp_path / "base", config={"history": history}), tmp_path)
    config, _ = _made(package, base, tmp_path)
    assert [entry["created_by"] for entry in config["history"]] == [
        "ADD",
        "CMD",
        "modelport image: model",
    ]
    assert all(entry["created"] for entry in config["history"])


def test_bill_of_materials(package: Package, tmp_path: Path) -> None:
    base = opened(small_base(tmp_path / "base"), tmp_path)
    _, bill = _made(package, base, tmp_path)
    purls = {component.get("purl") for component in bill["components"]}
    assert "pkg:pypi/numpy@2.0%2Blocal" in purls
    assert "pkg:deb/ubuntu/libc6@2.36-9%2Bdeb12u9?arch=amd64&distro=ubuntu-24.04" in purls
    model = next(c for c in bill["components"] if c["type"] == "machine-learning-model")
    assert model["version"] == package.digest
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(set(references)) == len(references)
    told = {item["ref"] for item in bill["dependencies"]}
    assert told <= {*references, bill["metadata"]["component"]["bom-ref"]}
    assert bill == _made(package, base, tmp_path)[1]


def test_bill_of_materials_is_cyclonedx(package: Package, tmp_path: Path) -> None:
    if find_spec("cyclonedx") is None:
        reason = "cyclonedx-python-lib[json-validation] is not installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    base = opened(small_base(tmp_path / "base"), tmp_path)
    _, bill = _made(package, base, tmp_path)
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bill)) is None
    bill["components"][0]["type"] = "nothing of the kind"
    assert validator.validate_str(json.dumps(bill)) is not None


@pytest.mark.slow
def test_two_platforms_make_an_index(package: Package, tmp_path: Path) -> None:
    """With real wheels for both processors, upon a base that is an index itself."""
    folder = small_base(tmp_path / "base")
    one = json.loads((folder / "index.json").read_bytes())["manifests"][0]
    small_base(folder, architecture="arm64", config={"variant": "v8"})
    two = json.loads((folder / "index.json").read_bytes())["manifests"][0]
    platforms = [{"os": "linux", "architecture": name} for name in ("amd64", "arm64")]
    children = [
        {key: item[key] for key in ("mediaType", "digest", "size")} | {"platform": platform}
        for item, platform in zip((one, two), platforms, strict=True)
    ]
    layout = Layout(folder)
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}
    layout.finish(layout.add_json(index, INDEX), "base")
    out = tmp_path / "image"
    words = ["image", str(package.path), "--base", f"oci:{folder}", "--out", str(out), "--json"]
    with locked("wheels"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELPORT_CACHE", str(CACHE))
        assert main([*words, "--platform", "linux/amd64,linux/arm64"]) == 0
    blobs = out / "blobs/sha256"
    index = json.loads((out / "index.json").read_bytes())
    image, *artifacts = index["manifests"]
    assert image["mediaType"] == INDEX
    assert len(artifacts) == 2
    document = read_document(blobs, image)
    check_schema(document, "image-index-schema.json")
    told = [child["platform"] for child in document["manifests"]]
    assert told == [platforms[0], {**platforms[1], "variant": "v8"}]
    subjects = [read_document(blobs, artifact)["subject"]["digest"] for artifact in artifacts]
    assert subjects == [child["digest"] for child in document["manifests"]]
    for child, machine in zip(document["manifests"], ("x86-64", "aarch64"), strict=True):
        manifest = read_document(blobs, child)
        check_schema(manifest, "image-manifest-schema.json")
        dependencies = blobs / manifest["layers"][1]["digest"].removeprefix("sha256:")
        with tarfile.open(dependencies) as archive:
            library = next(m for m in archive if m.name.endswith("orjson.abi3.so")
                           or "/orjson/orjson." in m.name)  # fmt: skip
            header = archive.extractfile(library)
            assert header is not None
            number = int.from_bytes(header.read(20)[18:20], "little")
        assert {62: "x86-64", 183: "aarch64"}[number] == machine


def test_verb_refuses_with_a_hint(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        ("--platform", "linux/s390x"): "no images are made for the platform",
        ("--base", f"oci:{tmp_path}/none"): "OCI layout not found",
        ("--base", f"{tmp_path}/none.tar"): "OCI archive not found",
        ("--push", "UPPER/x"): "not an image reference",
        ("--push", f"a.example/b@sha256:{'0' * 64}"): "cannot push to a digest",
        ("--lock", f"{tmp_path}/none"): "lock file not found",
        ("--out", str(tmp_path)): "something else exists",
        ("--out", str(tmp_path / "x.tar.gz")): "no such archives are written",
        ("--push", "a.example:70000/b"): "not a host",
    }
    for flags, message in cases.items():
        assert main(["image", str(package.path), *flags]) == 2
        printed = capsys.readouterr().err
        assert message in printed
        assert "Traceback" not in printed
    assert main(["image", str(tmp_path / "nothing")]) == 2
    words = ["--base", "127.0.0.1:1/x:y", "--out", str(tmp_path / "out")]
    assert main(["image", str(package.path), *words]) == 1
    assert "--base oci:DIR" in capsys.readouterr().err
    not_tar = tmp_path / "x.tar"
    not_tar.write_bytes(b"no tar")
    assert main(["image", str(package.path), "--base", str(not_tar)]) == 2
    assert "not an OCI archive" in capsys.readouterr().err


def test_base_with_a_newer_python_needs_a_lock_file(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_base(tmp_path / "base", python="usr/bin/python3.99")
    words = ["--base", f"oci:{folder}", "--out", str(tmp_path / "out")]
    assert main(["image", str(package.path), *words]) == 2
    assert "3.99; modelport's lock file has wheels for 3.11" in capsys.readouterr().err


def test_plain_http_is_for_the_registry_that_was_meant() -> None:
    mine = parse_reference("mine.example/a:1")
    for base, target, insecure in (
        ("docker.io/library/python:3.13", mine, False),
        ("mine.example/python:3.13", mine, True),
        ("oci:/folder", mine, False),
        ("mine.example/python:3.13", None, True),
    ):
        assert _insecure_base(ImageOptions(base=base, insecure=True), target) is insecure
        assert not _insecure_base(ImageOptions(base=base), target)


def test_damaged_package_is_refused(package: Package, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(package.path, copy)
    (copy / "model/model.onnx").write_bytes(b"else")
    assert main(["image", str(copy), "--out", str(tmp_path / "out")]) == 3
    assert not (tmp_path / "out").exists()
