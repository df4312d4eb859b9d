"""Base images: where they come from, what is found in them, what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from modelport.core.errors import (
    InputError,
    IntegrityError,
    ModelportError,
    NotFoundError,
    UnsupportedError,
)
from modelport.deploy.images.layers import GZIP_LAYER
from modelport.deploy.images.layout import (
    Layout,
    place,
    read_document,
)
from modelport.deploy.images.look import Contents, Findings
from modelport.deploy.images.platforms import parse_platforms
from tests.deploy.small_images import LIBC, opened, small_base


def test_base_is_looked_into(tmp_path: Path) -> None:
    base = opened(small_base(tmp_path / "base"), tmp_path)
    expected = (("libc6", "2.36-9+deb12u9", "amd64"),)
    assert base.contents == Contents(
        "/usr/local/bin/python3.11", "3.11", (2, 36), expected, "ubuntu-24.04"
    )
    assert base.size == base.layers[0]["size"]
    again = opened(tmp_path / "base", tmp_path)  # this time from what was remembered
    assert again.contents == base.contents


def test_base_from_an_archive(tmp_path: Path) -> None:
    layout = Layout(small_base(tmp_path / "base"))
    place(layout, tmp_path / "base.tar", "n", replace=False)
    base = opened(tmp_path, tmp_path, str(tmp_path / "base.tar"))
    assert base.contents.version == "3.11"
    (tmp_path / "base.tar").write_bytes(b"text")
    with pytest.raises(InputError, match="not an OCI archive"):
        opened(tmp_path, tmp_path, str(tmp_path / "base.tar"))


def test_archives_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    found = []
    for version in ("3.11", "3.12"):
        folder = small_base(tmp_path / version / "l", python=f"usr/local/bin/python{version}")
        archive = tmp_path / version / "base.tar"
        place(Layout(folder), archive, "n", replace=False)
        found.append(opened(folder, tmp_path, str(archive)))
    # Another build may still read the first while the second is opened.
    assert [base.contents.version for base in found] == ["3.11", "3.12"]
    assert all((base.blobs / base.digest.removeprefix("sha256:")).is_file() for base in found)


def test_archives_hold_blobs_and_nothing_else(tmp_path: Path) -> None:
    archive = tmp_path / "base.tar"
    place(Layout(small_base(tmp_path / "base")), archive, "n", replace=False)
    (tmp_path / "victim").write_text("mine")
    with tarfile.open(archive, "a") as opened_archive:
        for name in ("../victim", "index.json/../../victim", str(tmp_path / "victim"), "more"):
            member = tarfile.TarInfo(name)
            member.size = 4
            opened_archive.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("blobs/sha256/" + "0" * 64)
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "victim")
        opened_archive.addfile(link)
    base = opened(tmp_path, tmp_path, str(archive))
    assert (tmp_path / "victim").read_text() == "mine"
    files = [path for path in base.blobs.parents[1].rglob("*") if not path.is_dir()]
    assert not [path for path in files if path.is_symlink() or path.name in ("more", "victim")]


@pytest.mark.parametrize(
    "change",
    [{"layers": [{}]}, {"layers": None}, {"config": 1}, {"config": {"digest": "x", "size": 1}}],
)
def test_bases_whose_manifest_is_none(change: dict[str, Any], tmp_path: Path) -> None:
    folder = small_base(tmp_path / "base")
    layout = Layout(folder)
    entry = json.loads((folder / "index.json").read_bytes())["manifests"][0]
    manifest = read_document(layout.blobs, entry) | change
    layout.finish(layout.add_json(manifest, manifest["mediaType"]), "base")
    with pytest.raises(UnsupportedError, match="not a manifest"):
        opened(folder, tmp_path)


@pytest.mark.parametrize("change", [{"rootfs": None}, {"rootfs": {}}, {"config": {"Env": [1]}}])
def test_bases_whose_configuration_is_none(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="not the configuration"):
        opened(small_base(tmp_path / "base", config=change), tmp_path)


def test_upper_layers_count() -> None:
    lower = Findings(["usr/bin/python3.11", "usr/local/bin/python3.12"], [2, 31], [["a", "1", "x"]])
    path = ["/usr/local/bin", "/usr/bin"]
    assert Contents.stacked([lower], path).python == "/usr/local/bin/python3.12"
    assert Contents.stacked([lower], ["/usr/bin"]).python == "/usr/bin/python3.11"
    upper = Findings(removed=["usr/local/bin/python3.12"])
    assert Contents.stacked([lower, upper], path).python == "/usr/bin/python3.11"
    assert Contents.stacked([lower, Findings(removed=["usr"])], path).python == ""
    assert Contents.stacked([lower, Findings(removed=["."])], path).python == ""
    newer = Findings(["usr/bin/python3.9", "usr/bin/python3.13"], [2, 41], [])
    assert Contents.stacked([lower, newer], ["/usr/bin"]).version == "3.13"
    assert Contents.stacked([lower, newer], ["/usr/bin"]).glibc == (2, 41)
    assert Contents.stacked([lower, newer], ["/usr/bin"]).packages == ()


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ({"python": ""}, UnsupportedError, "no Python"),
        ({"python": "usr/bin/python3.10"}, UnsupportedError, "no Python"),
        ({"python": "opt/x/bin/python3.12"}, UnsupportedError, "on its PATH"),
        ({"libc": b""}, UnsupportedError, "has none"),
        ({"libc": LIBC.replace(b"2.36", b"2.17")}, UnsupportedError, "has 2.17"),
        ({"architecture": "arm64"}, NotFoundError, "linux/arm64"),
        ({"config": {"rootfs": {"diff_ids": []}}}, IntegrityError, "diff_ids"),
        (
            {"config": {"rootfs": {"diff_ids": [f"sha256:{'0' * 64}"]}}},
            IntegrityError,
            "has the digest",
        ),
        (
            {"layer_type": "application/vnd.oci.image.layer.v1.tar+zstd"},
            UnsupportedError,
            "zstd",
        ),
    ],
)
def test_bases_that_cannot_be_used(
    parts: dict[str, Any], error: type[ModelportError], match: str, tmp_path: Path
) -> None:
    folder = small_base(tmp_path / "base", **parts)
    with pytest.raises(error, match=match) as caught:
        opened(folder, tmp_path)
    assert caught.value.where


def test_base_with_changed_bytes_is_refused(tmp_path: Path) -> None:
    folder = small_base(tmp_path / "base")
    opened(folder, tmp_path)  # remembered findings must not hide what happens now
    blobs = folder / "blobs/sha256"
    layer = max(blobs.iterdir(), key=lambda path: path.read_bytes()[:2] == b"\x1f\x8b")
    layer.write_bytes(layer.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match="other bytes"):
        opened(folder, tmp_path)


def test_base_of_several_images_needs_a_tag(tmp_path: Path) -> None:
    folder = small_base(tmp_path / "base")
    one = json.loads((folder / "index.json").read_bytes())
    small_base(folder, python="usr/local/bin/python3.12", tag="other")
    two = json.loads((folder / "index.json").read_bytes())
    two["manifests"] += one["manifests"]
    (folder / "index.json").write_text(json.dumps(two))
    with pytest.raises(InputError, match="several images: other, base"):
        opened(folder, tmp_path)
    assert opened(folder, tmp_path, f"oci:{folder}:other").contents.version == "3.12"
    with pytest.raises(NotFoundError, match="there is: other, base"):
        opened(folder, tmp_path, f"oci:{folder}:no")


def test_docker_media_types_become_oci(tmp_path: Path) -> None:
    layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    base = opened(small_base(tmp_path / "base", layer_type=layer_type), tmp_path)
    assert [layer["mediaType"] for layer in base.layers] == [GZIP_LAYER]


def test_platforms() -> None:
    assert list(map(str, parse_platforms("linux/amd64, linux/arm64/v8,linux/amd64"))) == [
        "linux/amd64",
        "linux/arm64",
    ]
    for wrong in ("", "linux", "windows/amd64", "linux/riscv64"):
        with pytest.raises(UnsupportedError, match="--platform"):
            parse_platforms(wrong)
