"""Rows of distributions that are known in full, as many as anybody asks for.

Images and sequences are scikit-learn's digits, moved and with noise; texts are words of four
topics; tables are Friedman's first function with noise ("Multivariate adaptive regression
splines", 1991).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np
from sklearn.datasets import load_digits, make_friedman1

from modelport.core.tensors import Array

Columns = Mapping[str, Any]
Drawn = tuple[Columns, Array]

WORDS: Final = 600
TOPICS: Final = 4


@cache
def _digits() -> tuple[Array, Array]:
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8) / 16).astype(np.float32), labels


def digits(count: int, seed: int, side: int = 8, noise: float = 0.1) -> tuple[Array, Array]:
    """Images of shape (count, side, side), moved by a pixel or none, and their labels."""
    random = np.random.default_rng(seed)
    images, labels = _digits()
    chosen = random.integers(0, len(images), count)
    found = images[chosen]
    for axis in (1, 2):
        steps = random.integers(-1, 2, count)
        found = np.stack([np.roll(image, step, axis - 1)
                          for image, step in zip(found, steps, strict=True)])  # fmt: skip
    found = found.repeat(side // 8, axis=1).repeat(side // 8, axis=2)
    return (found + random.normal(0, noise, found.shape)).astype(np.float32), labels[chosen]


def _topics() -> Array:
    random = np.random.default_rng(5)
    common = 1.0 / np.arange(2, WORDS + 2)
    lean = random.gamma(0.1, 10.0, size=(TOPICS, WORDS))
    found = common * (0.5 + lean)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def documents(count: int, seed: int, longest: int = 24) -> tuple[list[Array], Array]:
    """Numbers of words, eight to `longest` a text, and the texts' topics."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, TOPICS, count)
    lengths = random.integers(8, longest + 1, count)
    topics = _topics()
    return [random.choice(WORDS, length, p=topics[label])
            for length, label in zip(lengths, labels, strict=True)], labels  # fmt: skip


def table(count: int, seed: int) -> tuple[Array, Array]:
    """Ten columns and a number that depends on five of them."""
    rows, answers = make_friedman1(count, 10, noise=1.0, random_state=seed)
    return rows.astype(np.float32), answers


def classes(count: int, seed: int) -> tuple[Array, Array]:
    """The same with the number cut in three."""
    rows, answers = table(count, seed)
    return rows, np.digitize(answers, (12.2, 16.5))


def named(name: str, draw: Callable[[int, int], tuple[Array, Array]]) -> Callable[..., Drawn]:
    def drawn(count: int, seed: int) -> Drawn:
        rows, answers = draw(count, seed)
        return {name: rows}, answers

    return drawn
