"""Manifests: one canonical form, and nothing else is ever accepted or crashes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.core.errors import IntegrityError, ModelportError, UnsupportedError
from modelport.core.manifest import Manifest, check_name, read_manifest

from .test_package import manifest_of

GOOD = manifest_of({"model/model.onnx": b"weights", "baseline.json": b"{}"})
DOCUMENT: dict[str, Any] = json.loads(GOOD.to_bytes())


def canonical(document: Any) -> bytes:
    """The form that `Manifest.to_bytes` writes, also for what it would never write."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


def changed(*path: str | int, value: Any) -> bytes:
    """The canonical manifest with another value at `path`."""
    document = json.loads(GOOD.to_bytes())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return canonical(document)


def test_it_survives() -> None:
    again = read_manifest(GOOD.to_bytes(), where="here")
    assert again == GOOD
    assert again.to_bytes() == GOOD.to_bytes()
    assert again.digest == GOOD.digest
    assert again.digest.startswith("sha256:")
    # Without processing the same bytes as ever.
    assert DOCUMENT["format"] == 1
    assert "processing" not in DOCUMENT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"format":null}',
        b'{"format":"one"}',
        b'{"format":[1]}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format":1,"parity":' + b"[" * 100_000,
        GOOD.to_bytes()[:-1],
        GOOD.to_bytes() + b" ",
        GOOD.to_bytes() + b"\n",
        b"\xef\xbb\xbf" + GOOD.to_bytes(),
        GOOD.to_bytes().replace(b'"format":1', b'"format":"1"'),
        GOOD.to_bytes().replace(b'"format":1', b'"format":1.0'),
        GOOD.to_bytes().replace(b'"format":1', b'"format":true'),
        GOOD.to_bytes().replace(b'"task":', b'"task":"x","task":'),
        json.dumps(DOCUMENT).encode(),
    ],
    ids=repr,
)
def test_damaged_documents(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"\(at here\)") as caught:
        read_manifest(data, where="here")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("number", [3, 999, 10**30, 0, -1])
def test_other_formats(number: int) -> None:
    with pytest.raises(UnsupportedError, match=f"package format {number} "):
        read_manifest(changed("format", value=number), where="here")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["name"], 1),
        (["name"], "../evil"),
        (["name"], None),
        (["engine"], 1),
        (["engine"], ["onnxruntime"]),
        (["model_file"], ["model"]),
        (["model_file"], None),
        (["task"], {"a": 1}),
        (["files"], []),
        (["files"], {"a": "b"}),
        (["files"], {"a": {"sha256": "00"}}),
        (["files"], {"a": {"sha256": "00", "size": "many"}}),
        (["files"], {"a": {"sha256": "00", "size": "7"}}),
        (["files"], {"a": {"sha256": "00", "size": 1, "mode": "+x"}}),
        (["signature"], {}),
        (["signature"], []),
        (["signature", "inputs"], []),
        (["signature", "inputs"], [{"name": "x"}]),
        (["signature", "inputs", 0, "dtype"], "complex64"),
        (["signature", "inputs", 0, "shape"], 3),
        (["signature", "inputs", 0, "shape"], [1.5]),
        (["signature", "inputs", 0, "name"], 7),
        (["tolerance"], {}),
        (["tolerance", "relative"], "small"),
        (["tolerance", "relative"], float("nan")),
        (["tolerance", "absolute"], float("inf")),
        (["row_independent"], 1),
        (["row_independent"], "yes"),
        (["parity"], []),
        (["parity"], {"error": float("nan")}),
        (["parity"], {"text": "\ud800"}),
        (["provenance"], "me"),
        (["unknown"], 1),
    ],
)
def test_values_of_another_kind(path: list[str | int], value: Any) -> None:
    with pytest.raises(IntegrityError, match=r"\(at here\)"):
        read_manifest(changed(*path, value=value), where="here")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def items_of(value: Any) -> list[tuple[str | int, ...]]:
    """The path of everything inside a document."""
    found: list[tuple[str | int, ...]] = []
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        if path:
            found.append(path)
        inside = item.items() if isinstance(item, dict) else ()
        inside = enumerate(item) if isinstance(item, list) else inside
        stack.extend(((*path, key), part) for key, part in inside)
    return found


@given(st.sampled_from(items_of(DOCUMENT)), ANYTHING)
def test_no_value_crashes_the_reader(path: tuple[str | int, ...], value: Any) -> None:
    """It is refused, or it is a manifest that says exactly these bytes."""
    data = changed(*path, value=value)
    try:
        manifest = read_manifest(data, where="here")
    except ModelportError:
        return
    assert manifest.to_bytes() == data


@given(st.binary(max_size=20), st.integers(0, len(GOOD.to_bytes())), st.integers(0, 20))
def test_no_bytes_crash_the_reader(by: bytes, start: int, length: int) -> None:
    data = GOOD.to_bytes()[:start] + by + GOOD.to_bytes()[start + length :]
    try:
        manifest = read_manifest(data, where="here")
    except ModelportError:
        return
    assert isinstance(manifest, Manifest)
    assert manifest.to_bytes() == data


@pytest.mark.parametrize("name", ["a", "0", "a1", "resnet-50", "a.b_c-d", "v1.2.3", "a" * 128])
def test_names_that_can_be(name: str) -> None:
    assert check_name(name) == name
