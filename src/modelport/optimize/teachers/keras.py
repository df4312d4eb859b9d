"""Teaching a Keras model, on TensorFlow: Adam (Kingma and Ba, 2015) with clipped gradients."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.given.lesson import (
    LABELS_SHARE,
    NUMBERS,
    PROBABILITIES,
    SCORES,
    UNKNOWN,
    VECTORS,
    Head,
    Lesson,
)
from modelport.optimize.teachers.base import Pupil

_MOST_GRADIENT: Final = 5.0
_LEAST: Final = 1e-12
#: As `modelport.optimize.train.losses` has them for PyTorch.
_TEMPERATURE: Final = 4.0
_SHARE_OF_SQUARES: Final = 0.1


class KerasTeacher:
    """See `modelport.optimize.teachers.base.Teacher`."""

    def recognises(self, network: Any) -> bool:
        """See `modelport.optimize.teachers.base.Teacher.recognises`."""
        return isinstance(network, keras.Model)

    def answers(self, network: Any, rows: Sequence[Array]) -> list[Array]:
        """See `modelport.optimize.teachers.base.Teacher.answers`."""
        if keras.config.backend() != "tensorflow":
            raise UnsupportedError(
                f"Keras runs on {keras.config.backend()} in this process; students are taught on "
                "TensorFlow",
                hint="KERAS_BACKEND=tensorflow",
            )
        return [np.asarray(value) for value in _called(network, rows, training=False)]

    @contextmanager
    def pupil(self, network: Any, heads: Sequence[Head]) -> Iterator[Pupil]:
        """See `modelport.optimize.teachers.base.Teacher.pupil`."""
        yield KerasPupil(network, heads)

    def columns(self, network: Any, rows: Sequence[Array]) -> Tensors:
        """See `modelport.optimize.teachers.base.Teacher.columns`."""
        if len(rows) == 1:
            return {"": rows[0]}
        structure = _inputs_of(network)
        if isinstance(structure, dict):
            names = list(structure)
        elif structure is not None:
            names = [leaf._keras_history.operation.name for leaf in keras.tree.flatten(structure)]
        else:
            names = _arguments(network)
            if len(names) == 1:  # of a list, as `modelport.engines.keras` names its entries
                names += [f"{names[0]}_{at}" for at in range(1, len(rows))]
        return dict(zip(names, rows, strict=False))


class KerasPupil:
    """See `modelport.optimize.teachers.base.Pupil`.

    Parameters
    ----------
    network : keras.Model
        Built.
    heads : sequence of Head
    """

    def __init__(self, network: Any, heads: Sequence[Head]) -> None:
        self._network, self._heads = network, heads
        if not network.trainable_variables:
            raise UnsupportedError("it has no weights that could learn")
        self._optimizer = keras.optimizers.Adam(global_clipnorm=_MOST_GRADIENT)
        self._optimizer.build(network.trainable_variables)
        self._learn = tf.function(self._step, autograph=False, reduce_retracing=True)
        self._ask = tf.function(self._held, autograph=False, reduce_retracing=True)
        self._kept: list[Array] = []

    def step(self, batch: Lesson, rate: float) -> float:
        """See `modelport.optimize.teachers.base.Pupil.step`."""
        self._optimizer.learning_rate = rate
        return float(self._learn(list(batch.rows), list(batch.answers), batch.labels))

    def loss(self, part: Lesson) -> float:
        """See `modelport.optimize.teachers.base.Pupil.loss`."""
        return float(self._ask(list(part.rows), list(part.answers)))

    def keep(self) -> None:
        """See `modelport.optimize.teachers.base.Pupil.keep`."""
        self._kept = self._network.get_weights()

    def restore(self) -> None:
        """See `modelport.optimize.teachers.base.Pupil.restore`."""
        self._network.set_weights(self._kept)

    def _step(self, rows: list[Any], answers: list[Any], labels: Any) -> Any:
        weights = self._network.trainable_variables
        with tf.GradientTape() as tape:
            found = self._found(rows, training=True)
            loss = self._loss(found, answers)
            if labels is not None:
                hard = _hard_loss(self._heads[0], found[0], labels)
                loss = (1 - LABELS_SHARE) * loss + LABELS_SHARE * hard
            penalized = loss + sum(self._network.losses, start=0.0)
        self._optimizer.apply(tape.gradient(penalized, weights), weights)
        return loss

    def _held(self, rows: list[Any], answers: list[Any]) -> Any:
        return self._loss(self._found(rows, training=False), answers)

    def _found(self, rows: list[Any], *, training: bool) -> list[Any]:
        found = [ops.cast(v, "float32") for v in _called(self._network, rows, training=training)]
        return [
            ops.softmax(value) if head.softmax else value
            for head, value in zip(self._heads, found, strict=True)
        ]

    def _loss(self, found: Sequence[Any], answers: Sequence[Any]) -> Any:
        return sum(
            _soft_loss(head, mine, theirs)
            for head, mine, theirs in zip(self._heads, found, answers, strict=True)
        )


def _soft_loss(head: Head, found: Any, expected: Any) -> Any:
    """The mean over rows; see `modelport.optimize.train.losses` for the formulas."""
    squares = ops.mean(ops.square(found - expected) / np.asarray(head.variance, np.float32))
    if head.kind == NUMBERS:
        return squares
    if head.kind == VECTORS:
        both = (ops.normalize(value, axis=-1, epsilon=_LEAST) for value in (found, expected))
        return squares + 1 - ops.mean(ops.sum(ops.multiply(*both), axis=-1))
    if head.kind == PROBABILITIES:
        found, expected = (ops.log(ops.maximum(value, _LEAST)) for value in (found, expected))
    mine, theirs = (ops.log_softmax(value / _TEMPERATURE) for value in (found, expected))
    divergence = ops.mean(ops.sum(ops.exp(theirs) * (theirs - mine), axis=-1))
    return _TEMPERATURE**2 * divergence + _SHARE_OF_SQUARES * squares


def _hard_loss(head: Head, found: Any, right: Any) -> Any:
    """Of the rows that have labels: the cross-entropy of classes, the squared error of numbers."""
    if head.kind == NUMBERS:
        known = ops.isfinite(right)
        errors = ops.square(ops.where(known, found - ops.nan_to_num(right), 0.0))
        errors = errors / np.asarray(head.variance, np.float32)
    else:
        known = ops.not_equal(right, UNKNOWN)
        logs = (
            ops.log_softmax(found) if head.kind == SCORES else ops.log(ops.maximum(found, _LEAST))
        )
        hits = ops.one_hot(ops.maximum(right, 0), found.shape[-1])
        errors = ops.where(known, -ops.sum(hits * logs, axis=-1), 0.0)
    return ops.sum(errors) / ops.maximum(ops.sum(ops.cast(known, "float32")), 1.0)


def _inputs_of(network: Any) -> Any:
    """The structure of a functional or sequential model's inputs; None: nobody knows it."""
    graph = getattr(network, "_functional", None) or network
    return getattr(graph, "_inputs_struct", None)


def _arguments(network: Any) -> list[str]:
    return [name for name in inspect.signature(network.call).parameters if name != "training"]


def _called(network: Any, rows: Sequence[Any], *, training: bool) -> list[Any]:
    """The network's outputs, however it takes its inputs."""
    structure = _inputs_of(network)
    mode = {"training": training} if network._call_has_training_arg else {}
    if isinstance(structure, dict):
        found = network(dict(zip(structure, rows, strict=True)), **mode)
    elif len(rows) == 1:
        found = network(rows[0], **mode)
    elif structure is not None or len(_arguments(network)) == 1:
        found = network(list(rows), **mode)
    else:
        found = network(*rows, **mode)
    return list(keras.tree.flatten(found))
