"""Fewer vectors of a support vector machine: which, and what they weigh then."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.classic.ridge import closeness
from modelport.optimize.classic.support import Machine

_STRENGTHS: Final = (1e-6, 1e-4, 1e-2, 1.0, 100.0)
_JITTER: Final = 1e-9
_SEED: Final = 5
_FEWEST_ROWS: Final = 40
#: Vectors beyond which choosing among them would take too much memory.
_MOST_VECTORS: Final = 6000


def representatives(machine: Machine) -> Array:
    """Vectors in the order in which they say most that the ones before do not.

    The pivots of a Cholesky decomposition of the kernel, weighted by the coefficients (Fine and
    Scheinberg, "Efficient SVM Training Using Low-Rank Kernel Representations", JMLR 2, 2001).
    Each class's first one comes first: none may be left without.

    Raises
    ------
    UnsupportedError
        When there are too many.
    """
    count = len(machine.vectors)
    if count > _MOST_VECTORS:
        raise UnsupportedError(
            f"{count:,} support vectors are too many to choose from: at most {_MOST_VECTORS:,}"
        )
    weight = np.abs(machine.coefficients).sum(axis=0) ** 2 + 1e-12
    order = [] if machine.kernel == "SIGMOID" else _pivots(machine, weight)
    order += np.argsort(-weight, kind="stable").tolist()  # no pivots: it is no inner product
    order = list(dict.fromkeys(order))
    first = [next((i for i in order if machine.classes[i] == label),
                  int(np.flatnonzero(machine.classes == label)[0]))
             for label in range(int(machine.classes[-1]) + 1)]  # fmt: skip
    return np.asarray([*first, *(i for i in order if i not in set(first))])


def _pivots(machine: Machine, weight: Array) -> list[int]:
    kernel = machine.products(machine.vectors, machine.vectors)
    count = len(kernel)
    left = np.diag(kernel).copy()
    enough = _JITTER * float(left.max(initial=0.0))
    factors = np.zeros((count // 2, count))
    order: list[int] = []
    for step in range(count // 2):
        value = left * weight
        value[order] = -np.inf
        pivot = int(np.argmax(value))
        if left[pivot] <= enough:
            break
        order.append(pivot)
        products = kernel[pivot] - factors[:step].T @ factors[:step, pivot]
        factors[step] = products / np.sqrt(left[pivot])
        left = np.maximum(left - factors[step] ** 2, 0.0)
    return order


def shrunk(machine: Machine, kept: Array, matrix: Array, decisions: Array) -> Machine:
    """Some of the vectors, with coefficients that come close to the original's decisions.

    First the projection of the original onto what is left, which needs no rows::

        coefficients = K(left, left)⁻¹ K(left, all) before

    (Schölkopf et al., "Input Space versus Feature Space in Kernel-Based Methods", IEEE Transactions
    on Neural Networks 10, 1999, section V), then kernel ridge regression of what it lacks on the
    rows; of every pair's decisions by itself.

    Parameters
    ----------
    kept : ndarray of int
    matrix : ndarray, shape (n, features)
        Calibration rows; at least 40.
    decisions : ndarray, shape (n, pairs)
        The original's.
    """
    kept = np.sort(kept)
    part = machine.chosen(kept)
    products = part.products(matrix, part.vectors)
    among = part.products(part.vectors, machine.vectors)
    coefficients, offsets = part.coefficients.copy(), part.offsets.copy()
    classifies = len(np.unique(machine.classes)) > 1
    pairs = zip(machine.pairs(), part.pairs(), strict=True)
    for number, ((all_chosen, all_rows), (chosen, rows)) in enumerate(pairs):
        inner = among[np.ix_(chosen, kept[chosen])]
        before = machine.coefficients[all_rows, all_chosen]
        start = _regular(inner, among[np.ix_(chosen, all_chosen)] @ before)
        lacking = decisions[:, number] - products[:, chosen] @ start - offsets[number]
        rates = closeness(decisions[:, [number]]) if classifies else np.ones(len(lacking))
        change, shift = _fitted(products[:, chosen], inner, lacking, rates)
        coefficients[rows, chosen] = start + change
        offsets[number] += shift
    return replace(part, coefficients=coefficients, offsets=offsets)


def _fitted(products: Array, inner: Array, lacking: Array, rates: Array) -> tuple[Array, float]:
    """The change that comes closest on a quarter of the rows that the trial does not see."""
    count = len(lacking)
    order = np.random.default_rng(_SEED).permutation(count)
    unseen, seen = order[: count // 4], order[count // 4 :]
    best, chosen = float(np.sum(rates[unseen] * lacking[unseen] ** 2)), None
    for strength in _STRENGTHS:
        found, offset = _solved(products[seen], inner, lacking[seen], rates[seen], strength)
        error = products[unseen] @ found + offset - lacking[unseen]
        distance = float(np.sum(rates[unseen] * error**2))
        if distance < best:
            best, chosen = distance, strength
    if chosen is None:
        return np.zeros(products.shape[1]), 0.0
    return _solved(products, inner, lacking, rates, chosen)


def _solved(
    products: Array, inner: Array, lacking: Array, rates: Array, strength: float
) -> tuple[Array, float]:
    middle = np.average(products, axis=0, weights=rates)
    mean = float(np.average(lacking, weights=rates))
    centred = products - middle
    normal = (centred * rates[:, np.newaxis]).T @ centred
    unit = float(np.trace(normal)) / max(float(np.trace(inner)), 1e-30)
    found = _regular(normal + strength * unit * inner, centred.T @ (rates * (lacking - mean)))
    return found, mean - float(middle @ found)


def _regular(matrix: Array, wanted: Array) -> Array:
    """The solution of a system that may be nearly singular."""
    size = len(matrix)
    return np.linalg.solve(matrix + _JITTER * np.trace(matrix) * np.eye(size), wanted)


def enough(rows: int) -> bool:
    """Whether so many calibration rows are enough for a fit."""
    return rows >= _FEWEST_ROWS
