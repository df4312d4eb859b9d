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
from modelport.optimize.classic.columns import set_attribute
from modelport.optimize.onnx_graph import attribute

OPERATORS: Final = ("SVMClassifier", "SVMRegressor")


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
        raise UnsupportedError("its support vector machine holds weights, and no vectors")
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
    if machine.kernel == "LINEAR":
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
