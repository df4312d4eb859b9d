"""Source models on their way in."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelport.core.digest import sha256_bytes
from modelport.core.errors import NotFoundError
from modelport.core.source import AuditedSource, Source


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_read_once(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"content")
    source = Source.of(kind(path))
    path.write_bytes(b"changed later")
    assert (source.name, source.path, source.content) == ("model.pkl", path, b"content")
    assert source.digest == sha256_bytes(b"content")
    assert source.model is None
    assert "content" not in repr(source)


def test_a_live_object() -> None:
    source = Source.of({"a": 1})
    assert (source.name, source.path, source.model) == ("dict", None, {"a": 1})
    assert source.digest == ""


def test_a_folder_has_no_content(tmp_path: Path) -> None:
    assert Source.of(tmp_path).content == b""


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").touch()
    with pytest.raises(NotFoundError, match=r"model\.pk; there is: model\.pkl"):
        Source.of(tmp_path / "model.pk")
    with pytest.raises(NotFoundError, match="there is none"):
        Source.of(tmp_path / "nowhere" / "model.pkl")


def test_an_audited_source() -> None:
    audited = AuditedSource(Source.of(3), "object")
    assert audited.trusted == ()
