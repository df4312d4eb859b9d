"""Signatures: names, shapes, and the symbols that inputs share."""

from __future__ import annotations

import re

import numpy as np
import pytest

from modelport.core.errors import SignatureError
from modelport.core.signature import Signature
from modelport.core.tensors import Array, TensorSpec


def spec(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


TWO = Signature((spec("a", "N", 2), spec("b", "N", "M"), spec("c", "M")), (spec("y", "N"),))


def zeros(**shapes: tuple[int, ...]) -> dict[str, Array]:
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def test_tensors_come_back_in_order() -> None:
    given = zeros(c=(3,), b=(4, 3), a=(4, 2))
    checked = TWO.check(given)
    assert list(checked) == ["a", "b", "c"]
    assert all(checked[name] is given[name] for name in given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (zeros(a=(4, 2), b=(4, 3)), "missing input: c; the model takes: a, b, c"),
        (zeros(), "missing input: a, b, c; the model takes: a, b, c"),
        (
            zeros(a=(4, 2), b=(4, 3), c=(3,), d=(1,)),
            "unknown input: d; the model takes: a, b, c",
        ),
        (
            zeros(a=(4, 2), b=(4, 3), d=(1,)),
            "missing input: c; unknown input: d; the model takes: a, b, c",
        ),
        (zeros(a=(4, 3), b=(4, 3), c=(3,)), "input a has shape [4, 3], expected [N, 2]"),
        (zeros(a=(4, 2), b=(5, 3), c=(3,)), "dimension N is 4 in input a and 5 in input b"),
        (zeros(a=(4, 2), b=(4, 3), c=(2,)), "dimension M is 3 in input b and 2 in input c"),
    ],
)
def test_tensors_that_do_not_fit(given: dict[str, Array], message: str) -> None:
    with pytest.raises(SignatureError, match=re.escape(message)):
        TWO.check(given)


def test_names_are_unique_and_there_are_some() -> None:
    with pytest.raises(SignatureError, match="input names repeat: a"):
        Signature((spec("a"), spec("a")), (spec("y"),))
    with pytest.raises(SignatureError, match="output names repeat: y"):
        Signature((spec("a"),), (spec("y"), spec("y")))
    with pytest.raises(SignatureError, match="at least one input"):
        Signature((), (spec("y"),))
    with pytest.raises(SignatureError, match="at least one output"):
        Signature((spec("a"),), ())


@pytest.mark.parametrize(
    ("inputs", "outputs", "symbol"),
    [
        ([("N", 2)], [("N",)], "N"),
        ([("N", 2), ("N",)], [("N",), ("N", 3)], "N"),
        ([("N", 2), ("M",)], [("N",)], None),
        ([("N", 2)], [("M",)], None),
        ([("N", 2)], [("N",), ()], None),
        ([(1, 2)], [(1,)], None),
        ([()], [()], None),
    ],
)
def test_the_batch_symbol_leads_everything(
    inputs: list[tuple[int | str, ...]], outputs: list[tuple[int | str, ...]], symbol: str | None
) -> None:
    signature = Signature(
        tuple(spec(f"x{i}", *shape) for i, shape in enumerate(inputs)),
        tuple(spec(f"y{i}", *shape) for i, shape in enumerate(outputs)),
    )
    assert signature.batch_symbol == symbol


def test_plain_form() -> None:
    assert Signature.from_json(TWO.to_json()) == TWO
    assert list(TWO.inputs_by_name) == ["a", "b", "c"]
    assert list(TWO.outputs_by_name) == ["y"]
