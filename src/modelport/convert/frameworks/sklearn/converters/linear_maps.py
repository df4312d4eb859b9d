"""Transformers and regressors that are a matrix product, or a kernel and one."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelport.convert.frameworks.sklearn.converters.writer import Writer
from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array


def independent_components(writer: Writer) -> None:
    """``FastICA``."""
    model, matrix = writer.model, writer.matrix()
    if model.whiten:
        matrix = writer.subtract(matrix, model.mean_)
    writer.give(writer.dot(matrix, model.components_.T))


def factor_analysis(writer: Writer) -> None:
    """``FactorAnalysis``: the mean of the posterior."""
    model = writer.model
    weights = model.components_ / model.noise_variance_
    covariance = np.linalg.inv(np.eye(len(model.components_)) + weights @ model.components_.T)
    moved = writer.subtract(writer.matrix(), model.mean_)
    writer.give(writer.dot(writer.dot(moved, weights.T), covariance))


def sparse_components(writer: Writer) -> None:
    """``SparsePCA``: ridge regression on the components, which has a closed form."""
    model = writer.model
    components = model.components_
    gram = components @ components.T + model.ridge_alpha * np.eye(len(components))
    moved = writer.subtract(writer.matrix(), model.mean_)
    writer.give(writer.dot(moved, np.linalg.solve(gram, components).T))


def random_features(writer: Writer) -> None:
    """``RBFSampler``: random Fourier features."""
    model = writer.model
    angles = writer.plus(writer.dot(writer.matrix(), model.random_weights_), model.random_offset_)
    if writer.dtype == np.float64:
        # ONNX Runtime's Cos takes float64 since 1.20 only on some machines: sin is everywhere.
        cosines = writer.add("Sin", writer.plus(angles, np.pi / 2))
    else:
        cosines = writer.add("Cos", angles)
    writer.give(writer.times(cosines, np.sqrt(2.0 / model.random_weights_.shape[1])))


def boltzmann(writer: Writer) -> None:
    """``BernoulliRBM``: probabilities of the hidden units."""
    model = writer.model
    products = writer.dot(writer.matrix(), model.components_.T)
    writer.give(writer.add("Sigmoid", writer.plus(products, model.intercept_hidden_)))


def nystroem(writer: Writer) -> None:
    """``Nystroem``: kernels with some of the training rows."""
    model = writer.model
    values = _kernel(writer, model, model.components_)
    writer.give(writer.dot(values, model.normalization_.T))


def kernel_ridge(writer: Writer) -> None:
    """``KernelRidge``: kernels with all training rows."""
    model = writer.model
    dual = np.asarray(model.dual_coef_)
    products = writer.dot(_kernel(writer, model, model.X_fit_), dual.reshape(len(dual), -1))
    writer.give(products)


def _kernel(writer: Writer, model: Any, points: Any) -> str:
    """``sklearn.metrics.pairwise``'s kernels by name."""
    points = np.asarray(points.toarray() if hasattr(points, "toarray") else points)
    gamma = model.gamma if model.gamma is not None else 1.0 / points.shape[1]
    kernel, matrix = model.kernel, writer.matrix()
    if kernel == "rbf":
        squared = writer.squared_distances(matrix, points)
        return str(writer.add("Exp", writer.times(squared, -gamma)))
    if kernel == "laplacian":
        rows = writer.add("Unsqueeze", matrix, writer.constant([1]))
        difference = writer.add("Abs", writer.subtract(rows, points[np.newaxis]))
        return str(writer.add("Exp", writer.times(writer.row_sums(difference, axis=2), -gamma)))
    products = writer.dot(matrix, points.T)
    if kernel == "linear":
        return products
    if kernel not in ("poly", "polynomial", "sigmoid"):
        raise UnsupportedError(
            f"the kernel {kernel!r} of {type(model).__name__} has no closed form here",
            hint="use a kernel of rbf, laplacian, linear, polynomial or sigmoid",
        )
    return _of_products(writer, model, products, gamma)


def _of_products(writer: Writer, model: Any, products: str, gamma: float) -> str:
    constant = 1.0 if model.coef0 is None else model.coef0
    moved = writer.plus(writer.times(products, gamma), constant)
    if model.kernel == "sigmoid":
        return str(writer.add("Tanh", moved))
    degree: Array = np.asarray(3.0 if model.degree is None else model.degree, dtype=np.float64)
    return str(writer.add("Pow", moved, writer.constant(degree)))
