"""Golden records: a few dozen real input/output pairs that travel with the model.

They are stored as one ``.npz`` without any pickle. The expected outputs are the *source*
model's, so that whoever replays them proves the whole way from training to here.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np

from modelport.core.compare import OutputComparison, Tolerance, compare
from modelport.core.errors import IntegrityError
from modelport.core.tensors import Array, Tensors, holds_bytes

#: How many rows travel with a package: at most, and at least where rows are large.
GOLDEN_ROWS = 32
_FEWEST_ROWS = 4
#: Bytes of inputs beyond which fewer rows are kept.
_LARGE = 4 << 20
#: Bytes of inputs that are replayed at once, so that a replay needs little more memory than a
#: request.
_REPLAYED = 1 << 20


@dataclass(frozen=True)
class GoldenRecords:
    """Inputs and the outputs expected for them.

    Parameters
    ----------
    inputs, outputs : dict of str to ndarray
        By name; where the model has a batch dimension the rows stand along the first axis.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]

    @property
    def rows(self) -> int:
        """How many records there are."""
        first = next(iter(self.inputs.values()))
        return len(first) if first.ndim else 1

    def replay(
        self, run: Callable[[Tensors], Tensors], tolerance: Tolerance, *, in_parts: bool = False
    ) -> list[OutputComparison]:
        """Run the inputs through `run` and compare its answers with the expected ones.

        Parameters
        ----------
        run : callable
        tolerance : Tolerance
        in_parts : bool
            Run large records a few rows at a time; only for row-independent models.
        """
        size = sum(_size(array) for array in self.inputs.values())
        if not in_parts or size <= _REPLAYED:
            return compare(self.outputs, run(self.inputs), tolerance)
        step = max(1, self.rows * _REPLAYED // size)
        parts = [
            run({name: array[start : start + step] for name, array in self.inputs.items()})
            for start in range(0, self.rows, step)
        ]
        answers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return compare(self.outputs, answers, tolerance)

    def to_bytes(self) -> bytes:
        """Encode as ``.npz``; the same records always give the same bytes.

        Arrays of `bytes` become two: all bytes behind each other, and where each one ends. So do
        texts that NumPy's fixed-width text would waste much space for, or cut.
        """
        arrays: dict[str, Array] = {}
        for side, name, array in self._items():
            kind = _joined_as(array)
            if kind:
                items = [item if isinstance(item, bytes) else str(item).encode() for item in array]
                arrays[f"{side}-{kind}:{name}"] = np.frombuffer(b"".join(items), dtype=np.uint8)
                arrays[f"{side}-ends:{name}"] = np.cumsum([len(item) for item in items])
            else:
                arrays[f"{side}:{name}"] = _plain(array)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    def _items(self) -> list[tuple[str, str, Array]]:
        return [
            (side, name, array)
            for side, arrays in (("input", self.inputs), ("output", self.outputs))
            for name, array in arrays.items()
        ]

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "golden records") -> GoldenRecords:
        """Decode what `to_bytes` wrote.

        Raises
        ------
        IntegrityError
            When the bytes are not an ``.npz`` of plain arrays.
        """
        sides: dict[str, dict[str, Array]] = {"input": {}, "output": {}}
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                for key in archive.files:
                    side, _, name = key.partition(":")
                    array = archive[key]
                    side, _, kind = side.partition("-")
                    if kind == "ends":
                        continue
                    if kind:
                        array = _split(array, archive[f"{side}-ends:{name}"], text=kind == "text")
                    sides[side][name] = array.astype(object) if array.dtype.kind == "U" else array
        except (ValueError, KeyError, OSError, EOFError, BadZipFile, TypeError) as error:
            raise IntegrityError(f"golden records cannot be read: {error}", where=where) from error
        return cls(inputs=sides["input"], outputs=sides["output"])


def _size(array: Array) -> int:
    """In bytes; an encoded image is far larger once it is decoded."""
    return len(array) * _REPLAYED if holds_bytes(array) else array.nbytes


def _joined_as(array: Array) -> str:
    """``bytes`` or ``text`` for arrays that are stored behind each other; empty for others."""
    if array.dtype != object or array.ndim != 1 or not array.size:
        return ""
    if holds_bytes(array):
        return "bytes"
    longest = max(len(str(item)) for item in array)
    cut = any(str(item).endswith("\0") for item in array)
    return "text" if cut or 4 * longest * len(array) > _LARGE else ""


def _split(joined: Array, ends: Array, *, text: bool) -> Array:
    """What `GoldenRecords.to_bytes` joined."""
    if (
        ends.ndim != 1
        or not ends.size
        or (np.diff(ends, prepend=0) < 0).any()
        or ends[-1] != len(joined)
    ):
        raise ValueError("the ends of bytes do not fit them")
    data, items = joined.astype(np.uint8, copy=False).tobytes(), np.empty(len(ends), dtype=object)
    parts = [data[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    items[:] = [part.decode() for part in parts] if text else parts
    return items


def _plain(array: Array) -> Array:
    return array.astype(np.str_) if array.dtype == object else array


def golden_rows(inputs: Tensors) -> Array:
    """Indices of the rows to keep: spread evenly, and fewer where rows are large."""
    count = min(len(array) for array in inputs.values())
    row = max(1, sum(array.nbytes for array in inputs.values()) // max(1, count))
    return choose_rows(count, max(_FEWEST_ROWS, min(GOLDEN_ROWS, _LARGE // row)))


def choose_rows(count: int, limit: int = GOLDEN_ROWS) -> Array:
    """Indices of at most `limit` of `count` rows, spread evenly and always the same."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))
