from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.core.errors import InputError
from modelport.registry.reference import Reference

names = st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)*", fullmatch=True).filter(lambda n: len(n) < 129)
aliases = st.from_regex(r"[a-z][a-z0-9_-]{0,63}", fullmatch=True)
versions = st.integers(1, 999_999_999)
references = st.one_of(
    st.builds(Reference, names),
    st.builds(Reference, names, alias=aliases),
    st.builds(Reference, names, version=versions),
)


@given(references)
def test_a_reference_is_read_as_it_is_written(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@given(st.one_of(st.text(), st.text("ab1@.-_0 \n", max_size=8)))
def test_any_text_is_a_reference_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InputError:
        return
    assert str(reference) == text
    assert reference.alias is None or reference.version is None


@pytest.mark.parametrize(
    "text",
    ["", "@", "a@", "@1", "a@0", "a@01", "a@-1", "a@1.0", "a@b@c", "A", "a/b", "a b", "a@B",
     "a@1\n", "a\n", "a@٣", "a@1234567890", "a@" + "9" * 5000],
)  # fmt: skip
def test_other_texts_are_no_references(text: str) -> None:
    with pytest.raises(InputError):
        Reference.parse(text)
