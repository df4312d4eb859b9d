"""Support vector machines of ONNX graphs: fewer vectors.

``SVMClassifier`` decides between every two classes ``i < j`` with the vectors of both, the
coefficients of class ``i`` standing in row ``j - 1`` and those of class ``j`` in row ``i``; so do
libsvm's files (Chang and Lin, "LIBSVM: a library for support vector machines", 2011, section 7).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.classic.columns import attribute, set_attribute
from modelport.optimize.classic.ridge import closeness

OPERATORS: Final = ("SVMClassifier", "SVMRegressor")
_STRENGTHS: Final = (1e-6, 1e-4, 1e-2, 1.0, 100.0)
_JITTER: Final = 1e-9
_SEED: Final = 5
_FEWEST_ROWS: Final = 40
#: Vectors beyond which choosing among them would take too much memory.
_MOST_VECTORS: Final = 6000


@dataclass(frozen=True, eq=False)
class Machine:
    """A support vector machine.

    Parameters
    ----------
    vectors : ndarray of float64, shape (vectors, features)
        Ordered by class.
    coefficients : ndarray of float64, shape (classes - 1, vectors)
        One row for regression.
    offsets : ndarray of float64
        One for each pair of classes; one for regression.
    classes : ndarray of int
        Of each vector; all 0 for regression.
    kernel : str
        ``LINEAR``, ``RBF``, ``POLY`` or ``SIGMOID``.
    gamma, constant, degree : float
    """

    vectors: Array
    coefficients: Array
    offsets: Array
    classes: Array
    kernel: str
    gamma: float
    constant: float
    degree: float

    def products(self, matrix: Array, vectors: Array) -> Array:
        """The kernel of every row with every vector."""
        inner = matrix @ vectors.T
        if self.kernel == "RBF":
            lengths = (matrix**2).sum(axis=1)[:, np.newaxis] + (vectors**2).sum(axis=1)
            return np.asarray(np.exp(-self.gamma * np.maximum(lengths - 2 * inner, 0.0)))
        if self.kernel == "POLY":
            return np.asarray((self.gamma * inner + self.constant) ** self.degree)
        if self.kernel == "SIGMOID":
            return np.asarray(np.tanh(self.gamma * inner + self.constant))
        return np.asarray(inner)

    def pairs(self) -> Iterator[tuple[Array, Array]]:
        """Of each decision, the vectors that take part, and the rows of their coefficients."""
        count = int(self.classes[-1]) + 1
        if count == 1:
            yield np.arange(len(self.vectors)), np.zeros(len(self.vectors), dtype=np.int64)
        for i in range(count):
            for j in range(i + 1, count):
                chosen = np.flatnonzero((self.classes == i) | (self.classes == j))
                yield chosen, np.where(self.classes[chosen] == i, j - 1, i)

    def decisions(self, matrix: Array) -> Array:
        """Of shape ``[rows, pairs]``."""
        products = self.products(matrix, self.vectors)
        return np.stack([
            products[:, chosen] @ self.coefficients[rows, chosen] + offset
            for (chosen, rows), offset in zip(self.pairs(), self.offsets, strict=True)
        ], axis=1)  # fmt: skip

    def chosen(self, kept: Array) -> Machine:
        """Some of the vectors."""
        return replace(
            self, vectors=self.vectors[kept], coefficients=self.coefficients[:, kept],
            classes=self.classes[kept],
        )  # fmt: skip


def read(node: onnx.NodeProto) -> Machine:
    """The machine of a node.

    Raises
    ------
    UnsupportedError
        When it has no support vectors.
    """
    per_class = attribute(node, "vectors_per_class")
    count = sum(per_class) if per_class else int(attribute(node, "n_supports") or 0)
    flat = np.asarray(attribute(node, "support_vectors") or [], dtype=np.float64)
    if not count or not len(flat) or flat.size % count:
        raise UnsupportedError("it has no support vectors")
    parameters = [*(attribute(node, "kernel_params") or []), 0.0, 0.0, 0.0]
    classes = np.repeat(np.arange(len(per_class)), per_class) if per_class else np.zeros(count, int)
    return Machine(
        vectors=flat.reshape(count, -1),
        coefficients=np.asarray(attribute(node, "coefficients"), float).reshape(-1, count),
        offsets=np.asarray(attribute(node, "rho"), dtype=np.float64),
        classes=classes,
        kernel=(attribute(node, "kernel_type") or b"LINEAR").decode(),
        gamma=float(parameters[0]),
        constant=float(parameters[1]),
        degree=float(parameters[2]),
    )


def write(node: onnx.NodeProto, machine: Machine) -> None:
    """Give a node another machine; classes and what follows the decisions stay."""

    def floats(values: Array) -> list[float]:
        return list(values.astype(np.float32).ravel().tolist())

    set_attribute(node, "support_vectors", floats(machine.vectors))
    set_attribute(node, "coefficients", floats(machine.coefficients))
    set_attribute(node, "rho", floats(machine.offsets))
    if node.op_type == "SVMClassifier":
        count = int(machine.classes[-1]) + 1
        set_attribute(
            node, "vectors_per_class", np.bincount(machine.classes, minlength=count).tolist()
        )
    else:
        set_attribute(node, "n_supports", len(machine.vectors))


def merged(machine: Machine) -> Machine:
    """Equal vectors of a class as one, without those whose coefficients are 0.

    Of a linear kernel, those of a class as one for each other class: ``Σ c ⟨v, x⟩`` is
    ``⟨Σ c v, x⟩``.
    """
    if machine.kernel == "LINEAR" and not machine.constant:
        return _primal(machine)
    vectors, coefficients, classes = [], [], []
    for label in range(int(machine.classes[-1]) + 1):
        mine = machine.classes == label
        unique, place = np.unique(machine.vectors[mine], axis=0, return_inverse=True)
        sums = np.zeros((len(machine.coefficients), len(unique)))
        np.add.at(sums.T, place.reshape(-1), machine.coefficients[:, mine].T)
        used = (sums != 0).any(axis=0)
        used[0] |= not used.any()  # a class needs a vector
        vectors.append(unique[used])
        coefficients.append(sums[:, used])
        classes += [label] * int(used.sum())
    return replace(
        machine, vectors=np.concatenate(vectors),
        coefficients=np.concatenate(coefficients, axis=1), classes=np.asarray(classes),
    )  # fmt: skip


def _primal(machine: Machine) -> Machine:
    rows = len(machine.coefficients)
    count = int(machine.classes[-1]) + 1
    if count * rows >= len(machine.vectors):
        return machine
    sums = [
        machine.coefficients[:, machine.classes == label]
        @ machine.vectors[machine.classes == label]
        for label in range(count)
    ]
    return replace(
        machine, vectors=np.concatenate(sums), coefficients=np.tile(np.eye(rows), count),
        classes=np.repeat(np.arange(count), rows),
    )  # fmt: skip


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
        raise UnsupportedError(f"{count:,} support vectors are too many to choose from")
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
