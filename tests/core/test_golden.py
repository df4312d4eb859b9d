"""Golden records: kept exactly, replayed, and never a pickle."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelport.core.compare import Tolerance
from modelport.core.errors import IntegrityError
from modelport.core.golden import GOLDEN_ROWS, GoldenRecords, choose_rows
from modelport.core.tensors import NUMPY_DTYPES, Array, Tensors

TOLERANCE = Tolerance(relative=1e-4, absolute=1e-5)
#: NumPy's fixed-width text ends at its last character that is not NUL.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
SHAPES = hnp.array_shapes(min_dims=0, min_side=0)
ARRAYS = st.one_of(
    *(
        hnp.arrays(dtype, SHAPES, elements=TEXT if dtype.kind == "O" else None)
        for dtype in NUMPY_DTYPES.values()
    )
)
NAMES = st.sampled_from(["x", "input", "a:b", "ä", "a b", "file", "../x"])


@given(
    st.dictionaries(NAMES, ARRAYS, min_size=1, max_size=3),
    st.dictionaries(NAMES, ARRAYS, max_size=3),
)
def test_records_survive(inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
    data = GoldenRecords(inputs, outputs).to_bytes()
    assert GoldenRecords(inputs, outputs).to_bytes() == data
    again = GoldenRecords.from_bytes(data)
    for before, after in ((inputs, again.inputs), (outputs, again.outputs)):
        assert list(after) == list(before)
        for name, array in before.items():
            assert after[name].dtype == array.dtype
            np.testing.assert_array_equal(after[name], array)


def test_the_number_of_records() -> None:
    assert GoldenRecords({"x": np.zeros((5, 2))}, {}).rows == 5
    assert GoldenRecords({"x": np.float32(1)}, {}).rows == 1


def test_replay() -> None:
    records = GoldenRecords({"x": np.arange(3.0)}, {"y": np.arange(3.0) * 2})

    def right(inputs: Tensors) -> Tensors:
        return {"y": inputs["x"] * 2}

    def wrong(inputs: Tensors) -> Tensors:
        return {"y": inputs["x"] * 3}

    assert all(comparison.agrees for comparison in records.replay(right, TOLERANCE))
    (comparison,) = records.replay(wrong, TOLERANCE)
    assert not comparison.agrees
    assert comparison.name == "y"


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("/tmp/modelport-was-here"),))


def saved(**arrays: Array) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


GOOD = GoldenRecords({"x": np.arange(100.0)}, {"y": np.arange(100.0)}).to_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"PK\x03\x04",
        b"hello" * 100,
        GOOD[:-1],
        GOOD[: len(GOOD) // 2],
        GOOD[:200] + b"\xff" * 50 + GOOD[250:],
        GOOD.replace(b"NUMPY", b"NUMPX"),
        saved(**{"other:x": np.zeros(1)}),
        saved(x=np.zeros(1)),
        saved(**{"input:x": np.array([_Evil()], object)}),
    ],
    ids=[
        "empty", "two bytes", "zip header", "text", "byte missing", "half", "overwritten",
        "damaged", "third side", "no side", "pickle",
    ],
)  # fmt: skip
def test_damaged_records_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"golden records cannot be read.*\(at golden\.npz\)"):
        GoldenRecords.from_bytes(data, where="golden.npz")
    assert not Path("/tmp/modelport-was-here").exists()


@given(st.integers(1, 10_000), st.integers(1, 100))
def test_rows_are_spread_evenly(count: int, limit: int) -> None:
    chosen = choose_rows(count, limit)
    assert len(chosen) == min(count, limit)
    assert chosen[0] == 0
    assert chosen[-1] == (count - 1 if limit > 1 else 0)
    assert (np.diff(chosen) >= 1).all()
    gaps = np.diff(chosen)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_a_few_rows_are_all_taken() -> None:
    assert choose_rows(5).tolist() == [0, 1, 2, 3, 4]
    assert len(choose_rows(1000)) == GOLDEN_ROWS


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_bytes_survive(items: list[bytes]) -> None:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    data = GoldenRecords({"image": array}, {"y": np.arange(len(items))}).to_bytes()
    again = GoldenRecords.from_bytes(data)
    assert list(again.inputs["image"]) == items
    assert again.to_bytes() == data


@pytest.mark.parametrize("texts", [["a\0", "", "ü"], ["x" * 300_000, "y", "z", "\0"]])
def test_text_that_fixed_width_would_cut_or_waste(texts: list[str]) -> None:
    records = GoldenRecords({"x": np.array(texts, dtype=object)}, {})
    data = records.to_bytes()
    assert list(GoldenRecords.from_bytes(data).inputs["x"]) == texts
    assert len(data) < 400_000


@pytest.mark.parametrize("ends", [[3], [-1, 4], [3, 2, 4], [5], [[4]], []])
def test_ends_that_do_not_fit(ends: list[int]) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        **{"input-bytes:x": np.frombuffer(b"abcd", np.uint8), "input-ends:x": np.array(ends, int)},
    )
    with pytest.raises(IntegrityError, match="golden records cannot be read"):
        GoldenRecords.from_bytes(buffer.getvalue())


def test_encoded_images_are_replayed_one_by_one() -> None:
    array = np.empty(3, dtype=object)
    array[:] = [b"a", b"b", b"c"]
    sizes = []

    def run(inputs: Tensors) -> Tensors:
        sizes.append(len(inputs["image"]))
        return {"y": np.array([item[0] for item in inputs["image"]])}

    records = GoldenRecords({"image": array}, {"y": np.array([97, 98, 99])})
    assert records.replay(run, TOLERANCE, in_parts=True)[0].agrees
    assert sizes == [1, 1, 1]
