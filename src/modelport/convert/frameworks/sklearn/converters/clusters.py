"""Clusterers that give a new row the label of the nearest center."""

from __future__ import annotations

import numpy as np

from modelport.convert.frameworks.sklearn.converters.writer import Writer


def nearest_center(writer: Writer) -> None:
    """``MeanShift``, ``AffinityPropagation``."""
    centers = np.asarray(writer.model.cluster_centers_)
    distances = writer.squared_distances(writer.matrix(), centers)
    nearest = writer.add("ArgMin", distances, axis=1, keepdims=0)
    writer.give(nearest, writer.add("Sqrt", distances))


def birch(writer: Writer) -> None:
    """``Birch``: subclusters, each with the label of its cluster."""
    centers = np.asarray(writer.model.subcluster_centers_)
    distances = writer.squared_distances(writer.matrix(), centers)
    nearest = writer.add("ArgMin", distances, axis=1, keepdims=0)
    labels = writer.constant(np.asarray(writer.model.subcluster_labels_))
    writer.give(writer.add("Gather", labels, nearest, axis=0), writer.add("Sqrt", distances))
