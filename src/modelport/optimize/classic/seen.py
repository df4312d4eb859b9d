"""Tensors inside a graph for calibration rows, as many rows as memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx

from modelport.core.tensors import Array, Tensors
from modelport.optimize.classic.part import part
from modelport.optimize.session import Probe, batches

_BATCH: Final = 32
_MOST_BYTES: Final = 240_000_000


def seen(
    model: onnx.ModelProto, rows: Tensors, names: Sequence[str], most: int = _MOST_BYTES
) -> dict[str, Array]:
    """Tensors by name, for the first rows.

    Parameters
    ----------
    names : sequence of str
        Also inputs.
    most : int
        Bytes after which no more rows are run; each tensor then has as many rows.
    """
    inner = [name for name in dict.fromkeys(names) if name not in rows]
    probe = Probe(part(model, inner), inner, optimize=True) if inner else None
    parts: dict[str, list[Array]] = {name: [] for name in names}
    held = 0
    for some in batches(model, rows, _BATCH):
        found = {**some, **(probe.run(some, inner) if probe is not None else {})}
        for name, mine in parts.items():
            mine.append(found[name])
            held += found[name].nbytes
        if held > most:
            break
    return {name: np.concatenate(mine) for name, mine in parts.items()}
