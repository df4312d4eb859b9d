"""The tree of errors: messages, exit codes, statuses."""

from __future__ import annotations

import re

import pytest

from modelport.core import errors
from modelport.core.errors import (
    EngineError,
    InputError,
    ModelportError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)

EVERY = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ModelportError)
]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"(\w+Error)\b", errors.__doc__ or "")
    assert sorted(drawn) == sorted(kind.__name__ for kind in EVERY)


@pytest.mark.parametrize("kind", EVERY)
def test_exit_codes(kind: type[ModelportError]) -> None:
    expected = 2 if issubclass(kind, InputError) else 3 if issubclass(kind, RefusedError) else 1
    assert kind.exit_code == expected
    if issubclass(kind, UnavailableError | EngineError):
        assert kind.exit_code == 1


def test_message_place_and_hint() -> None:
    error = InputError("value is 3", where="inputs[0].shape", hint="use 4")
    assert error.line == "value is 3 (at inputs[0].shape)"
    assert str(error) == "value is 3 (at inputs[0].shape)\nhint: use 4"
    assert str(InputError("value is 3")) == InputError("value is 3").line == "value is 3"
    assert error.args == ("value is 3",)


def test_names_that_exist_are_listed_nearest_first() -> None:
    error = NotFoundError("model", "churm", ["digits", "churn", "prices"], where="registry")
    assert error.line == "model not found: churm; there is: churn, digits, prices (at registry)"
    assert error.what == "model"
    assert error.name == "churm"
    assert str(NotFoundError("model", "a")) == "model not found: a; there is none"


def test_long_lists_are_cut() -> None:
    error = NotFoundError("model", "zzz", [f"m{i}" for i in range(100)])
    assert error.message.endswith("m18, m19, …")
    assert len(error.known) == 100
