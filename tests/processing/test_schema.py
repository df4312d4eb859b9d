"""The declared steps as JSON: one meaning, and clear words for everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.core.declarations import PRESETS, declare, read_labels
from modelport.core.errors import InputError, NotFoundError
from modelport.core.options import PackOptions
from modelport.core.processing import Processing
from modelport.core.signature import Signature
from modelport.core.steps import Column, ImageStep, LabelsStep, TableStep, TextStep, VocabularyStep
from modelport.core.tensors import TensorSpec

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
NAME = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
NUMBER = st.floats(-1e6, 1e6, allow_nan=False)
POSITIVE = st.floats(1e-3, 1e6)
LEVELS = st.lists(POSITIVE, min_size=3, max_size=3).map(tuple) | st.just(())
SIZE = st.integers(1, 4096)
DTYPES = st.sampled_from(["", "float16", "float32", "float64"])

IMAGES = st.builds(
    ImageStep,
    input=NAME,
    to=TEXT,
    colour=st.sampled_from(["", "RGB", "BGR"]),
    resize=st.sampled_from(["none", "exact", "letterbox"]),
    size=st.tuples(SIZE, SIZE) | st.just(()),
    filter=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    fill=st.integers(0, 255),
    crop=st.tuples(SIZE, SIZE) | st.just(()),
    divide=POSITIVE,
    mean=LEVELS,
    std=LEVELS,
    dtype=DTYPES,
    layout=st.sampled_from(["", "NHWC", "NCHW", "flat"]),
    most_pixels=st.integers(1, 10**9),
)
TEXTS = st.builds(
    TextStep,
    input=NAME,
    file=TEXT,
    max_length=st.integers(0, 4096),
    padding=st.sampled_from(["max_length", "longest"]),
    ids=TEXT,
    mask=TEXT,
    types=TEXT,
    dtype=st.sampled_from(["", "int32", "int64"]),
)
WORDS = st.builds(
    VocabularyStep,
    input=NAME,
    file=TEXT,
    to=TEXT,
    lower=st.booleans(),
    remove=TEXT,
    split_on=TEXT,
    first=st.integers(0, 99),
    unknown=st.integers(-1, 99),
    pad=st.integers(0, 99),
    max_length=st.integers(0, 4096),
)
COLUMNS = st.builds(
    Column, name=NAME, dtype=st.sampled_from(["float32", "int64"]), missing=NUMBER | st.none()
) | st.builds(
    Column,
    name=NAME,
    codes=st.dictionaries(TEXT, NUMBER, min_size=1, max_size=3),
    unknown=NUMBER | st.none(),
    missing=NUMBER | st.none(),
)
TABLES = st.builds(
    TableStep,
    columns=st.lists(COLUMNS, max_size=4, unique_by=lambda c: c.name).map(tuple),
    to=TEXT,
    dtype=DTYPES,
)
LABELS = st.builds(
    LabelsStep,
    labels=st.lists(TEXT, min_size=2, max_size=5).map(tuple),
    output=TEXT,
    activation=st.sampled_from(["", "none", "softmax", "sigmoid"]),
    top_k=st.integers(0, 2),
    keep=st.booleans(),
    label=TEXT,
    probability=TEXT,
)
SIGNATURE = Signature(
    (TensorSpec("x", "float32", ("N", 8), refuses=("nan",)),), (TensorSpec("y", "int64", ("N",)),)
)
PROCESSING = st.builds(
    Processing,
    inputs=st.lists(IMAGES | TEXTS | WORDS | TABLES, max_size=3).map(tuple),
    outputs=st.lists(LABELS, max_size=2).map(tuple),
    signature=st.just(SIGNATURE),
    proven=st.booleans(),
)


@given(PROCESSING)
def test_it_survives_json(processing: Processing) -> None:
    again = Processing.from_json(json.loads(json.dumps(processing.to_json())))
    assert again == processing
    assert again.to_json() == processing.to_json()
    assert len(processing.describe()) == len(processing.steps)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(PROCESSING, st.data())
def test_nothing_else_is_accepted_silently(processing: Processing, data: st.DataObject) -> None:
    """Whatever stands in a field's place: our error, or a value that survives by itself."""
    document = json.loads(json.dumps(processing.to_json()))
    steps = [*document["inputs"], *document["outputs"]]
    place = data.draw(st.sampled_from([document, *steps]))
    key = data.draw(st.sampled_from(sorted(place)) | TEXT)
    place[key] = data.draw(JSON)
    try:
        read = Processing.from_json(document)
    except InputError as error:
        assert error.where and len(error.line) < 1000  # noqa: PT017, PT018 - either is right
    else:
        assert Processing.from_json(json.loads(json.dumps(read.to_json()))) == read


@given(JSON)
def test_any_document(document: Any) -> None:
    try:
        Processing.from_json(document)
    except InputError as error:
        assert error.where  # noqa: PT017


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], r"not an object: \[\] \(at processing\)"),
        ({"input": []}, "unknown key: 'input'; there is: inputs, outputs"),
        ({"inputs": {}}, r"not a list: \{\} \(at inputs\)"),
        ({"inputs": [1]}, r"not an object: 1 \(at inputs\[0\]\)"),
        ({"inputs": [{}]}, r"not a kind of step: None; there is: image, text.*inputs\[0\]\.kind"),
        ({"inputs": [{"kind": "labels"}]}, "not a kind of step: 'labels'"),
        ({"outputs": [{"kind": "labels"}]}, r"a field is missing.*\(at outputs\[0\]\)"),
        ({"inputs": [{"kind": "image", "sise": 8}]}, "unknown key: 'sise'"),
        ({"inputs": [{"kind": "image", "size": 8}]}, r"not a list: 8 \(at inputs\[0\]\.size\)"),
        ({"inputs": [{"kind": "image", "size": [8]}]}, r"exact does not go with \(8,\)"),
        ({"inputs": [{"kind": "image", "size": [8, 0]}]}, "sizes are from 1"),
        ({"inputs": [{"kind": "image", "size": [8, True]}]}, r"not a int: true.*size\[1\]"),
        ({"inputs": [{"kind": "image", "filter": "box"}]}, "not a filter: 'box'; there is: near"),
        ({"inputs": [{"kind": "image", "divide": 0}]}, "cannot divide by 0"),
        ({"inputs": [{"kind": "image", "std": [1, 0, 1]}]}, r"divide by 0 \(at inputs\[0\]\.std"),
        ({"inputs": [{"kind": "image", "mean": [1, 2]}]}, "2 do not fit the channels"),
        ({"inputs": [{"kind": "image", "divide": float("nan")}]}, "not a finite number: NaN"),
        ({"inputs": [{"kind": "image", "dtype": "uint8", "divide": 2}]}, "cannot be scaled"),
        ({"inputs": [{"kind": "image", "fill": 256}]}, "not from 0 to 255"),
        ({"inputs": [{"kind": "text", "max_length": -1}]}, "not from 0"),
        ({"inputs": [{"kind": "text", "padding": "none"}]}, "not a padding: 'none'"),
        ({"inputs": [{"kind": "table", "columns": ["a"]}]}, r"not an object.*columns\[0\]"),
        ({"inputs": [{"kind": "table", "columns": [{"name": "a"}, {"name": "a"}]}]}, "repeat: a"),
        ({"inputs": [{"kind": "table", "columns": [{"name": "a", "dtype": "string"}]}]}, "codes"),
        ({"outputs": [{"kind": "labels", "labels": ["a"]}]}, "1 labels are too few"),
        ({"outputs": [{"kind": "labels", "labels": ["a", "b"], "top_k": 3}]}, "not from 0 to 2"),
        ({"outputs": [{"kind": "labels", "labels": ["a", 1]}]}, r"not a str: 1.*labels\[1\]"),
        ({"signature": {"inputs": []}}, "not a signature"),
        ({"proven": 1}, "not a bool"),
    ],
)
def test_messages_name_the_place(document: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Processing.from_json(document)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_steps(name: str) -> None:
    declaration = declare(PackOptions(image=name))
    assert declaration is not None
    (step,) = declaration.processing.inputs
    assert isinstance(step, ImageStep)


def test_nothing_declared() -> None:
    assert declare(PackOptions()) is None


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("a.txt", "cat\ndog\n\n", ["cat", "dog"]),
        ("a.txt", "\ufeffcat\r\n\r\ndog\r\n", ["cat", "", "dog"]),
        ("a.json", '["cat", "dog"]', ["cat", "dog"]),
        ("a.json", '{"1": "dog", "0": "cat"}', ["cat", "dog"]),
        ("a.json", '{"0": ["n01", "cat"], "1": ["n02", "dog"]}', ["cat", "dog"]),
    ],
)
def test_labels(tmp_path: Path, name: str, content: str, labels: list[str]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_labels(tmp_path / name) == labels


@pytest.mark.parametrize("content", ["{", "1", '{"0": "cat", "2": "dog"}', '["cat", 1]', "\xff"])
def test_labels_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.json"):
        read_labels(tmp_path / "a.json")


def test_a_file_beside_its_files(write_json: Callable[[str, object], Path], tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\n", encoding="utf-8")
    (tmp_path / "words.txt").write_text("x\ny\n", encoding="utf-8")
    path = write_json(
        "processing.json",
        {
            "inputs": [{"kind": "vocabulary", "file": "words.txt"}],
            "outputs": [{"kind": "labels", "labels": "names.txt"}],
        },
    )
    declaration = declare(PackOptions(processing=str(path)))
    assert declaration is not None
    assert declaration.files == {"processing/words.txt": b"x\ny\n"}
    assert declaration.processing.files == ("processing/words.txt",)
    assert declaration.processing.outputs[0].labels == ("a", "b")


def test_mistakes_in_a_file_name_it(write_json: Callable[[str, object], Path]) -> None:
    path = write_json("processing.json", {"inputs": [{"kind": "image", "fill": -1}]})
    with pytest.raises(InputError, match=r"processing\.json: inputs\[0\]\.fill"):
        declare(PackOptions(processing=str(path)))
    path = write_json("processing.json", {"inputs": [{"kind": "text", "file": "no.json"}]})
    with pytest.raises(NotFoundError, match=r"file not found: no\.json; there is: processing"):
        declare(PackOptions(processing=str(path)))
    with pytest.raises(InputError, match="declared twice"):
        declare(PackOptions(processing=str(path)), {"inputs": []})
    with pytest.raises(InputError, match="--top-k needs --labels"):
        declare(PackOptions(top_k=5))
