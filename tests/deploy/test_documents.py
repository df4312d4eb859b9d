"""Data as text, and back."""

from __future__ import annotations

import json

import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelport.deploy.documents import to_json, to_yaml

_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
_DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=20,
)


@given(_DATA)
def test_yaml_gives_the_data_back(value: object) -> None:
    assert yaml.safe_load(to_yaml(value)) == value


@given(_DATA)
def test_json_gives_the_data_back(value: object) -> None:
    assert json.loads(to_json(value)) == value


def test_text_that_looks_like_another_type_stays_text() -> None:
    value = {"a": "true", "b": "1e3", "c": "null", "d": "0x1f", "e": "12:30", "f": "~", "g": "no"}
    assert yaml.safe_load(to_yaml(value)) == value


def test_documents_are_separated_and_keep_their_order() -> None:
    text = to_yaml({"b": 1, "a": [{"c": 2}]}, {"d": "x\ny\n"}, comment="one\ntwo")
    assert text == "# one\n# two\nb: 1\na:\n  - c: 2\n---\nd: |\n  x\n  y\n"
