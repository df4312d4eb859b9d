"""Classifiers and outlier detectors with a closed form, and those that look at no row at all."""

from __future__ import annotations

import numpy as np

from modelport.convert.frameworks.sklearn.converters.writer import Writer
from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array

_RANDOM = ("stratified", "uniform")


def quadratic(writer: Writer) -> None:
    """``QuadraticDiscriminantAnalysis``: eq. (4.12) of *The Elements of Statistical Learning*."""
    model, matrix = writer.model, writer.matrix()
    norms = []
    for mean, rotation, scaling in zip(
        model.means_, model.rotations_, model.scalings_, strict=True
    ):
        moved = writer.dot(writer.subtract(matrix, mean), rotation * scaling**-0.5)
        norms.append(writer.row_sums(writer.add("Mul", moved, moved), keep=1))
    logarithms = np.asarray([np.log(scaling).sum() for scaling in model.scalings_])
    together = writer.add("Concat", *norms, axis=1)
    scores = writer.plus(writer.times(together, -0.5), -0.5 * logarithms + np.log(model.priors_))
    _classify(writer, scores)


def nearest_centroid(writer: Writer) -> None:
    """``NearestCentroid``: eq. (18.2) of the same book."""
    model = writer.model
    if model.metric not in ("euclidean", "manhattan"):
        raise UnsupportedError(f"NearestCentroid measures with {model.metric}")
    matrix, classes = writer.matrix(), model.classes_
    # Versions before 1.6 have neither priors nor scores.
    deviation = getattr(model, "within_class_std_dev_", np.ones(model.centroids_.shape[1]))
    deviation = np.where(deviation != 0, deviation, 1.0)
    priors = getattr(model, "class_prior_", np.full(len(classes), 1.0 / len(classes)))
    scaled = writer.times(matrix, 1.0 / deviation)
    squared = _squared(writer, scaled, model.centroids_ / deviation)
    scores = writer.plus(writer.times(squared, -1.0), 2.0 * np.log(priors))
    best = scores
    if np.isclose(priors, 1.0 / len(classes)).all():
        # Then `predict` measures without scaling, unlike `predict_proba`.
        best = writer.times(_squared(writer, matrix, model.centroids_), -1.0)
    writer.give(writer.labels(best, classes), writer.add("Softmax", scores, axis=1))


def _squared(writer: Writer, matrix: str, centroids: Array) -> str:
    if writer.model.metric == "euclidean":
        return writer.squared_distances(matrix, centroids)
    rows = writer.add("Unsqueeze", matrix, writer.constant([1]))
    difference = writer.add("Abs", writer.subtract(rows, centroids[np.newaxis]))
    distances = writer.row_sums(difference, axis=2)
    return str(writer.add("Mul", distances, distances))


def _classify(writer: Writer, scores: str) -> None:
    labels = writer.labels(scores, writer.model.classes_)
    writer.give(labels, writer.add("Softmax", scores, axis=1))


def elliptic_envelope(writer: Writer) -> None:
    """``EllipticEnvelope``: squared Mahalanobis distances against a threshold."""
    model = writer.model
    moved = writer.subtract(writer.matrix(), model.location_)
    products = writer.add("Mul", writer.dot(moved, model.get_precision()), moved)
    distances = writer.row_sums(products, keep=1)
    scores = writer.subtract(writer.times(distances, -1.0), model.offset_)
    inside = writer.add("GreaterOrEqual", scores, writer.constant(np.zeros(1)))
    signs = writer.add("Where", inside, writer.constant([1]), writer.constant([-1]))
    writer.give(writer.add("Squeeze", signs, writer.constant([1])), scores)


def dummy_classifier(writer: Writer) -> None:
    """``DummyClassifier``: the same answer for every row."""
    model = writer.model
    if model.strategy in _RANDOM:
        raise UnsupportedError(
            f'DummyClassifier(strategy="{model.strategy}") draws its answers at random',
            hint='use the strategy "most_frequent", "prior" or "constant"',
        )
    priors = np.asarray(model.class_prior_, dtype=np.float64)
    probabilities = priors
    best = int(priors.argmax())
    if model.strategy == "constant":
        best = int(np.flatnonzero(model.classes_ == np.ravel(model.constant)[0])[0])
    if model.strategy != "prior":
        probabilities = np.eye(len(priors))[best]
    matrix = writer.matrix()
    label = writer.per_row(np.asarray(model.classes_)[best : best + 1], matrix)
    label = writer.add("Reshape", label, writer.constant([-1]))
    writer.give(label, writer.per_row(probabilities, matrix))


def dummy_regressor(writer: Writer) -> None:
    """``DummyRegressor``."""
    constant = np.ravel(np.asarray(writer.model.constant_, dtype=np.float64))
    writer.give(writer.per_row(constant, writer.matrix()))
