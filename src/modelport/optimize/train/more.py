"""More rows where there are few: made of real ones, and answered by the original itself.

Nothing is assumed about the answers, so nothing wrong is learned; what may be wrong is that such
rows never occur, hence they stay near real ones, and only real ones decide when it is learned.

- Images (four axes, numbers): moved by a pixel or two, the edge repeated.
- Other numbers: between two rows, nearer to the first. A column of whole numbers takes the one or
  the other: a category stays a category, and a row of a one-hot code may hold two.
- Integers: of tokens or categories; such models get no more rows.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from modelport.core.tensors import Array, Tensors
from modelport.optimize.onnx_graph import parse
from modelport.optimize.session import served

_WANTED: Final = 4000
#: Multiplications that asking the original may take: a few seconds.
_WORK: Final = 2.5e11
#: Bytes of the rows that are made.
_MEMORY: Final = 2**27
_SEED: Final = 11
_SMALLEST_IMAGE: Final = 8
_PIXELS_PER_SHIFT: Final = 14
_FURTHEST: Final = 0.4


def more_rows(
    teacher: bytes, rows: Tensors, answers: Tensors, cost: float
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Rows and the original's answers to them; none where there are enough, or none can be made.

    Parameters
    ----------
    teacher : bytes
    rows, answers : mapping of str to ndarray
        Real ones.
    cost : float
        Multiplications per row.
    """
    count = len(next(iter(rows.values())))
    size = sum(array[:1].nbytes for array in rows.values())
    wanted = int(min(_WANTED - count, _WORK / max(cost, 1), _MEMORY / max(size, 1)))
    if wanted <= 0 or any(array.dtype != np.float32 for array in rows.values()):
        return {}, {}
    random = np.random.default_rng(_SEED)
    first = np.resize(random.permutation(count), wanted)
    second = random.permutation(first)
    share = random.uniform(0, _FURTHEST, wanted).astype(np.float32)
    made = {name: _vary(array, first, second, share, random) for name, array in rows.items()}
    told = served(parse(teacher), made)
    return made, {name: told[name] for name in answers}


def _vary(
    array: Array, first: Array, second: Array, share: Array, random: np.random.Generator
) -> Array:
    if array.ndim == 4 and min(array.shape[2:]) >= _SMALLEST_IMAGE:
        return _shifted(array[first], random)
    shape = (-1, *[1] * (array.ndim - 1))
    mixed = array[first] + share.reshape(shape) * (array[second] - array[first])
    whole = (array == np.round(array)).all(axis=0)
    taken = np.where(random.random(mixed.shape) < share.reshape(shape), array[second], array[first])
    return np.where(whole, taken, mixed).astype(np.float32)


def _shifted(images: Array, random: np.random.Generator) -> Array:
    """Each by its own number of pixels, up to a fourteenth of the height and width."""
    most = max(1, min(images.shape[2:]) // _PIXELS_PER_SHIFT)
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)), mode="edge")
    found = np.empty_like(images)
    height, width = images.shape[2:]
    for at, (down, right) in enumerate(random.integers(0, 2 * most + 1, (len(images), 2))):
        found[at] = padded[at, :, down : down + height, right : right + width]
    return found
