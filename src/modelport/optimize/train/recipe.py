"""How a student is trained: steps, batch and rate by what the network costs and is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import onnx

from modelport.core.errors import UnsupportedError
from modelport.optimize.onnx_graph import operators
from modelport.optimize.reduce.observe import Observed

_MOST_EPOCHS: Final = 60
_MOST_STEPS: Final = 3000
#: Steps times batch: fewer rows teach a network nothing.
_FEWEST_ROWS: Final = 3000
#: Of the steps that a training should have: with less, the time is better spent otherwise.
_LEAST_SHARE: Final = 1 / 8
#: Of the multiplications: from here on the rate is the full one.
_MUCH: Final = 0.75
#: Multiplications per step that are worth a second thread.
_WORTH_THREADS: Final = 5e8
_BATCH: Final = 64
_SMALLEST_BATCH: Final = 8
#: Bytes of activations that a step may hold, with their gradients.
_MEMORY: Final = 6e8
#: Learning rates: with norms, in perceptrons, in transformers.
_RATE_NORMED: Final = 4e-3
_RATE: Final = 2e-3
_RATE_TRANSFORMER: Final = 3e-4
#: Of those, for what knows the teacher's answers already and adds the right ones.
_FINER: Final = 0.1
_FINER_STEPS: Final = 0.25


@dataclass(frozen=True)
class Recipe:
    """How a student is trained.

    Parameters
    ----------
    steps : int
    batch : int
        Rows per step.
    rate : float
        The highest learning rate.
    threads : int
        A network that is small for its threads waits for them.
    least : int
        Steps that have to fit into the time: after the first ones it is clear whether they do,
        and less than that would be minutes for nothing.
    right : float
        The share of the right answers in what is learned; the rest is the teacher's.
    seed : int
        Of the order of the rows.
    """

    steps: int
    batch: int
    rate: float
    threads: int = 1
    least: int = 0
    right: float = 0.0
    seed: int = 0

    def finer(self, right: float) -> Recipe:
        """For what is trained already: fewer steps at a lower rate."""
        steps = max(int(_FINER_STEPS * self.steps), 1)
        return Recipe(steps, self.batch, _FINER * self.rate, self.threads, 0, right, self.seed + 1)


def recipe_for(
    model: onnx.ModelProto, observed: Observed, rows: int, work: float,
    *, normed: bool, changed: float,
) -> Recipe:  # fmt: skip
    """Steps by what they cost, the batch by its memory, the rate by the kind of network.

    Parameters
    ----------
    model : ModelProto
    observed : Observed
        The model's.
    rows : int
        There are to learn from.
    work : float
        Multiplications that all forward steps may take.
    normed : bool
        Whether convolutions are normalized while training.
    changed : float
        The share of the multiplications that is gone: what has lost little forgets the rest by
        steps that are as large as those of what has lost much.

    Raises
    ------
    UnsupportedError
        When the work is not enough for a few thousand rows.
    """
    cost = max(sum(observed.multiplications(model).values()), 1.0)
    if work / cost < _FEWEST_ROWS:
        raise UnsupportedError(
            f"a row takes {cost / 1e6:.0f} million multiplications, and learning {_FEWEST_ROWS} "
            "rows more time than one training gets",
            hint="a larger --budget: one training gets a tenth of it",
        )
    # Many small steps teach more than few large ones, where there are few rows.
    batch = max(min(_BATCH, fitting_rows(model, observed), rows // 16), _SMALLEST_BATCH)
    epochs = min(work / (cost * rows), _MOST_EPOCHS)
    steps = int(min(max(epochs * rows / batch, 1), _MOST_STEPS))
    rate = _RATE_TRANSFORMER if _attends(model) else _RATE
    if normed:  # otherwise the rate is low as it is
        rate = _RATE_NORMED * min(1.0, changed / _MUCH)
    # Half of the cores: others wait for each other when the machine has something else to do.
    threads = len(os.sched_getaffinity(0)) // 2 if cost * batch > _WORTH_THREADS else 1
    fewest = min(_FEWEST_ROWS // batch, steps) // 2
    least = max(fewest, int(_LEAST_SHARE * steps))
    return Recipe(steps, batch, rate, max(threads, 1), least)


def fitting_rows(model: onnx.ModelProto, observed: Observed) -> int:
    """Rows whose activations and gradients fit into the memory of a step."""
    floats = sum(
        observed.numbers(name)
        for node in model.graph.node
        for name in node.output
        if name in observed.shapes
    )
    return int(_MEMORY / (8 * max(floats, 1)))


def _attends(model: onnx.ModelProto) -> bool:
    """Whether it multiplies what it has computed with each other, or normalizes layers."""
    constants = {item.name for item in model.graph.initializer}
    return "LayerNormalization" in operators(model) or any(
        node.op_type == "MatMul" and not constants & set(node.input) for node in model.graph.node
    )
