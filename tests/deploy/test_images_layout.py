"""Layers and layouts: the same bytes, nothing overwritten, fit for the OCI schemas."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path

import jsonschema
import pytest

from modelport.core.errors import (
    ConflictError,
    InputError,
)
from modelport.deploy.images.layers import Entry, write_layer
from modelport.deploy.images.layout import (
    TAG,
    Layout,
    check_place,
    place,
    read_document,
)
from tests.deploy.small_images import check_schema, members, small_base


def test_layer_does_not_depend_on_order_time_owner_or_place(tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "deeper" / "b"
    two.parent.mkdir()
    one.write_bytes(b"text")
    two.write_bytes(b"text")
    os.utime(two, (1, 1))
    two.chmod(0o600)
    entries = [
        Entry("x/y/file", one),
        Entry("x/run", b"#!", executable=True),
        Entry("l", link="/x"),
    ]
    first = write_layer(tmp_path / "1", entries)
    entries[0] = Entry("x/y/file", two)
    second = write_layer(tmp_path / "2", reversed(entries))
    assert first.digest == second.digest
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert first.size == (tmp_path / "1").stat().st_size
    assert (tmp_path / "1").read_bytes()[4:8] == bytes(4)  # gzip's own time
    plain = gzip.decompress((tmp_path / "1").read_bytes())
    assert first.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert first.unpacked == len(plain)


def test_layer_is_readable_by_everybody_and_belongs_to_root(tmp_path: Path) -> None:
    long = "d/" + "n" * 200
    write_layer(tmp_path / "l", [Entry(long, b"1"), Entry("d/run", b"2", executable=True)])
    found = {member.name: member for member in members(tmp_path / "l")}
    assert list(found) == ["d", long, "d/run"]
    assert [oct(member.mode) for member in found.values()] == ["0o755", "0o644", "0o755"]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in found.values()} == {
        (0, 0, "", "", 0)
    }


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b")])
def test_layer_refuses_one_path_twice(paths: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="path"):
        write_layer(tmp_path / "l", [Entry(path, b"") for path in paths])


def test_layout_and_artifact_fit_the_schemas(tmp_path: Path) -> None:
    layout = Layout(small_base(tmp_path / "base"))
    index = json.loads((layout.folder / "index.json").read_bytes())
    image = {key: value for key, value in index["manifests"][0].items() if key != "annotations"}
    artifact = layout.add_artifact(image, {"a": 1}, "application/vnd.cyclonedx+json")
    layout.finish(image, "v1", [artifact])
    index = json.loads((layout.folder / "index.json").read_bytes())
    check_schema(index, "image-index-schema.json")
    check_schema(
        json.loads((layout.folder / "oci-layout").read_bytes()), "image-layout-schema.json"
    )
    for descriptor in index["manifests"]:
        check_schema(descriptor, "content-descriptor.json")
        check_schema(read_document(layout.blobs, descriptor), "image-manifest-schema.json")
    document = read_document(layout.blobs, artifact)
    assert document["subject"]["digest"] == image["digest"]
    empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert document["config"]["digest"] == empty


def test_schemas_can_fail() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check_schema({"mediaType": "a/b", "size": 1, "digest": "none"}, "content-descriptor.json")


def test_archive_holds_the_image_alone(tmp_path: Path) -> None:
    layout = Layout(small_base(tmp_path / "base"))
    image = json.loads((layout.folder / "index.json").read_bytes())["manifests"][0]
    image.pop("annotations")
    layout.finish(image, "v1", [layout.add_artifact(image, {"a": 1}, "application/json")])
    out = tmp_path / "out.tar"
    place(layout, out, "churn", replace=False)
    with tarfile.open(out) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (entry,) = json.loads((tmp_path / "unpacked/index.json").read_bytes())["manifests"]
    assert entry["annotations"] == {TAG: "v1"}
    (docker,) = json.loads((tmp_path / "unpacked/manifest.json").read_bytes())
    assert docker["RepoTags"] == ["churn:v1"]
    for name in (docker["Config"], *docker["Layers"]):
        content = (tmp_path / "unpacked" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == Path(name).name
    assert len(list((tmp_path / "unpacked/blobs/sha256").iterdir())) == 3


def test_place_changes_nothing_that_it_may_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    place(Layout(small_base(tmp_path / "1")), out, "n", replace=False)
    before = (out / "index.json").stat().st_mtime_ns
    place(Layout(small_base(tmp_path / "2")), out, "n", replace=False)  # the same: as it was
    assert (out / "index.json").stat().st_mtime_ns == before
    with pytest.raises(ConflictError, match="--force"):
        place(Layout(small_base(tmp_path / "3", tag="other")), out, "n", replace=False)
    place(Layout(small_base(tmp_path / "4", tag="other")), out, "n", replace=True)
    assert b"other" in (out / "index.json").read_bytes()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    for may in (True, False):
        layout = Layout(small_base(tmp_path / f"5{may}"))
        with pytest.raises(ConflictError, match="something else"):
            place(layout, tmp_path / "mine", "n", replace=may)
    with pytest.raises(ConflictError, match="something else"):
        check_place(tmp_path / "mine")
    check_place(out)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_what_was_there_comes_back_when_it_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    place(Layout(small_base(tmp_path / "1")), out, "n", replace=False)
    before = (out / "index.json").read_bytes()
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if Path(target) == out and self.name == "out":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(InputError, match="Input/output error"):
        place(Layout(small_base(tmp_path / "2", tag="other")), out, "n", replace=True)
    assert (out / "index.json").read_bytes() == before
