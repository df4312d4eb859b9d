"""Which converter is for which estimator."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

import numpy as np
import skl2onnx
from skl2onnx.common import data_types
from skl2onnx.common._registration import get_converter, get_shape_calculator
from sklearn.base import ClassifierMixin, is_classifier, is_clusterer, is_outlier_detector
from sklearn.cluster import AffinityPropagation, Birch, MeanShift
from sklearn.covariance import EllipticEnvelope
from sklearn.decomposition import (
    FactorAnalysis,
    FastICA,
    MiniBatchSparsePCA,
    SparsePCA,
)
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.kernel_ridge import KernelRidge
from sklearn.multioutput import ClassifierChain
from sklearn.neighbors import NearestCentroid
from sklearn.neural_network import BernoulliRBM
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
)

from modelport.convert.frameworks.sklearn.converters import (
    clusters,
    discriminants,
    encoders,
    functions,
    linear_maps,
    text,
)
from modelport.convert.frameworks.sklearn.converters.metas import METAS, Meta, parse
from modelport.convert.frameworks.sklearn.converters.standins import ChosenColumns, Inverse, Joined
from modelport.convert.frameworks.sklearn.converters.writer import Writer

Converter = Callable[[Writer], None]

_CONVERTERS: Final[dict[type, Converter]] = {
    AffinityPropagation: clusters.nearest_center,
    Birch: clusters.birch,
    MeanShift: clusters.nearest_center,
    EllipticEnvelope: discriminants.elliptic_envelope,
    QuadraticDiscriminantAnalysis: discriminants.quadratic,
    NearestCentroid: discriminants.nearest_centroid,
    DummyClassifier: discriminants.dummy_classifier,
    DummyRegressor: discriminants.dummy_regressor,
    FactorAnalysis: linear_maps.factor_analysis,
    FastICA: linear_maps.independent_components,
    MiniBatchSparsePCA: linear_maps.sparse_components,
    SparsePCA: linear_maps.sparse_components,
    RBFSampler: linear_maps.random_features,
    BernoulliRBM: linear_maps.boltzmann,
    Nystroem: linear_maps.nystroem,
    KernelRidge: linear_maps.kernel_ridge,
    FunctionTransformer: functions.function_transformer,
    PowerTransformer: functions.power_transformer,
    IsotonicRegression: functions.isotonic,
    ChosenColumns: functions.chosen_columns,
    Inverse: functions.inverse,
    Joined: functions.joined,
    KBinsDiscretizer: encoders.discretize,
    QuantileTransformer: functions.quantile_transformer,
    SequentialFeatureSelector: encoders.chosen_features,
    CountVectorizer: text.vectorize,
    TfidfVectorizer: text.vectorize,
    TfidfTransformer: text.weigh,
}


#: One column out for each column in.
_SAME_WIDTH: Final = (
    FunctionTransformer,
    PowerTransformer,
    QuantileTransformer,
    TfidfTransformer,
    Inverse,
)

#: Converters for some settings of estimators that skl2onnx can export otherwise.
_SOMETIMES: Final[tuple[tuple[type, Callable[[Any], bool], Converter, bool], ...]] = (
    (OneHotEncoder, encoders.suits_one_hot, encoders.one_hot, False),
    (OrdinalEncoder, encoders.suits_ordinal, encoders.ordinal, True),
    (SimpleImputer, encoders.suits_imputer, encoders.impute, True),
)


@cache
def register_all() -> None:
    """Register every converter; once in a process."""
    for estimator, converter in _CONVERTERS.items():
        skl2onnx.update_registered_converter(
            estimator,
            f"Modelport{estimator.__name__}",
            _set_types,
            partial(_convert, converter),
            overwrite=True,
            options={"zipmap": [True, False]} if issubclass(estimator, ClassifierMixin) else {},
        )

    for estimator, meta in METAS.items():
        _register_meta(estimator, meta)
    for estimator, suits, converter, retyped in _SOMETIMES:
        alias = f"Sklearn{estimator.__name__}"
        skl2onnx.update_registered_converter(
            estimator,
            alias,
            _types_where(suits, get_shape_calculator(alias))
            if retyped
            else get_shape_calculator(alias),
            encoders.where(suits, converter, get_converter(alias)),
            overwrite=True,
            options=dict(get_converter(alias).get_allowed_options() or {}),
        )


def _types_where(suits: Callable[[Any], bool], otherwise: Any) -> Callable[[Any], None]:
    def set_types(operator: Any) -> None:
        if suits(operator.raw_operator):
            _set_types(operator)
        else:
            otherwise(operator)

    return set_types


def _register_meta(estimator: type, meta: Meta) -> None:
    alias = f"Modelport{estimator.__name__}"

    def parse_parts(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
        return parse(alias, meta, scope, model, inputs, custom_parsers)

    skl2onnx.update_registered_converter(
        estimator,
        alias,
        _set_types,
        partial(_convert, meta.combine),
        overwrite=True,
        parser=parse_parts,
        options={"zipmap": [True, False]},
    )


def _convert(converter: Converter, scope: Any, operator: Any, container: Any) -> None:
    converter(Writer(scope, operator, container))


def _set_types(operator: Any) -> None:
    """Element types and ranks of the outputs; the numbers of columns stay open."""
    real = data_types.FloatTensorType
    if any(isinstance(v.type, data_types.DoubleTensorType) for v in operator.inputs):
        real = data_types.DoubleTensorType
    model = operator.raw_operator
    if is_classifier(model) or is_clusterer(model) or is_outlier_detector(model):
        classes = getattr(model, "classes_", [0])
        words = np.asarray(classes[0]).dtype.kind in "OUS"
        kind = data_types.StringTensorType if words else data_types.Int64TensorType
        several = isinstance(classes[0], np.ndarray) or isinstance(model, ClassifierChain)
        operator.outputs[0].type = kind([None, None] if several else [None])
        for output in operator.outputs[1:]:
            output.type = real([None, None])
    else:
        for output in operator.outputs:
            output.type = real([None, _width(operator)])


def _width(operator: Any) -> int | None:
    """How many columns come out, for steps that need to know their inputs' number."""
    model = operator.raw_operator
    shapes = [variable.type.shape for variable in operator.inputs]
    given = [shape[1] if len(shape) > 1 else 1 for shape in shapes]
    if isinstance(model, _SAME_WIDTH):
        return sum(given) if all(isinstance(size, int) for size in given) else None
    for name in ("components_", "normalization_"):
        if hasattr(model, name):
            return int(getattr(model, name).shape[0])
    if isinstance(model, RBFSampler):
        return int(model.random_weights_.shape[1])
    if isinstance(model, ChosenColumns) and model.indices is not None:
        return len(model.indices)
    if isinstance(model, CountVectorizer):
        return len(model.vocabulary_)
    if isinstance(model, KBinsDiscretizer):
        bins = [int(number) for number in model.n_bins_]
        return len(bins) if model.encode == "ordinal" else sum(bins)
    if isinstance(model, OrdinalEncoder):
        return len(model.categories_)
    if isinstance(model, SimpleImputer):
        empty = 0 if model.keep_empty_features else int(np.isnan(model.statistics_).sum())
        indicator = getattr(model, "indicator_", None)
        flags = 0 if indicator is None else len(indicator.features_)
        return len(model.statistics_) - empty + flags
    if isinstance(model, SequentialFeatureSelector):
        return int(np.count_nonzero(model.support_))
    return 1
