"""Estimators that modelport converts itself, and models of other models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import AffinityPropagation, Birch, MeanShift
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.covariance import EllipticEnvelope
from sklearn.decomposition import FactorAnalysis, FastICA, SparsePCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.feature_selection import RFE, SelectFromModel, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.mixture import BayesianGaussianMixture
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, RegressorChain
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor, NearestCentroid
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC, SVR, LinearSVC, OneClassSVM

from .conftest import convert_model, fit, load_data, runner

X, Y = load_data("wine")
CANCER = load_data("breast_cancer")
DIABETES = load_data("diabetes")
TWO_LABELS = np.column_stack([Y, X[:, 0] > 13]).astype(int)
THREE_FLAGS = np.column_stack([Y == 0, Y == 1, X[:, 0] > 13]).astype(int)
TWO_TARGETS = np.column_stack([DIABETES[1], DIABETES[1] ** 2])
FRACTIONS = np.column_stack([np.round(X[:, 0]), np.round(X[:, 2], 1)])
CODES = np.column_stack([X[:, :3], np.round(X[:, 4]) % 7, (Y + X[:, 0].astype(int)) % 5])
HOLES = np.where(np.random.default_rng(0).random(X.shape) < 0.05, np.nan, X)
HALF_LABELLED = np.where(np.arange(len(Y)) % 5 == 0, -1, Y)


def logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=300)


def scaled(*steps: Any) -> Any:
    return make_pipeline(StandardScaler(), *steps)


CLASSIFIERS = {
    "quadratic": (QuadraticDiscriminantAnalysis(reg_param=0.05), X, Y),
    "quadratic, two classes": (scaled(QuadraticDiscriminantAnalysis(reg_param=0.05)), *CANCER),
    "nearest centroid": (NearestCentroid(), X, Y),
    "nearest centroid, text": (NearestCentroid(metric="manhattan"), X, np.asarray(list("abć"))[Y]),
    "nearest centroid, priors": (
        scaled(NearestCentroid(shrink_threshold=0.3, priors="empirical")), *CANCER,
    ),
    "prior": (DummyClassifier(), X, np.asarray(list("abć"))[Y]),
    "constant": (DummyClassifier(strategy="constant", constant=2), X, Y),
    "features by eliminating": (RFE(LogisticRegression(max_iter=40), n_features_to_select=5), X, Y),
    "features before a model": (scaled(RFE(logistic(), n_features_to_select=4), SVC()), X, Y),
    "features of a forest": (
        make_pipeline(SelectFromModel(RandomForestClassifier(5, random_state=0)), logistic()), X, Y,
    ),
    "self-training": (SelfTrainingClassifier(logistic()), X, HALF_LABELLED),
    "calibrated pipeline": (CalibratedClassifierCV(scaled(LinearSVC()), cv=2), *CANCER),
    "calibrated forest": (
        CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=2), X, Y,
    ),
    "isotonic calibration": (
        CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2), *CANCER,
    ),
    "calibration by temperature": (
        CalibratedClassifierCV(logistic(), method="temperature", cv=2), X, Y,
    ),
    "frozen": (CalibratedClassifierCV(FrozenEstimator(fit(scaled(SVC()), X, Y)), cv=2), X, Y),
    "tuned threshold": (TunedThresholdClassifierCV(scaled(logistic()), cv=2), *CANCER),
    "fixed threshold": (FixedThresholdClassifier(scaled(logistic()), threshold=0.3), *CANCER),
    "bagged pipelines": (BaggingClassifier(scaled(logistic()), 3, random_state=0), X, Y),
    "vote of pipelines": (
        VotingClassifier(
            [("a", scaled(logistic())), ("b", HistGradientBoostingClassifier(max_iter=3))],
            voting="soft",
        ), X, Y,
    ),
    "fractions as categories": (
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), logistic()), FRACTIONS, Y,
    ),
    "rare categories": (
        make_pipeline(
            OneHotEncoder(min_frequency=8, handle_unknown="infrequent_if_exist"), logistic()
        ), FRACTIONS, Y,
    ),
    "known categories only": (make_pipeline(OneHotEncoder(), logistic()), FRACTIONS, Y),
    "ranks of fractions": (
        make_pipeline(
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), logistic()
        ), FRACTIONS, Y,
    ),
    "bins": (
        make_pipeline(
            KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), logistic()
        ), X, Y,
    ),
    "where something was missing": (
        make_pipeline(SimpleImputer(add_indicator=True), StandardScaler(), logistic()), HOLES, Y,
    ),
    "boosting with categories": (
        HistGradientBoostingClassifier(max_iter=4, categorical_features=[3, 4], random_state=0),
        CODES, Y,
    ),
    "independent components": (scaled(FastICA(3, random_state=0), logistic()), X, Y),
    "random features": (scaled(RBFSampler(random_state=0), logistic()), X, Y),
    "hidden units": (
        make_pipeline(MinMaxScaler(), BernoulliRBM(6, random_state=0), logistic()), X, Y,
    ),
    "columns and functions": (
        make_pipeline(
            ColumnTransformer(
                [("log", FunctionTransformer(np.log1p), [2, 3, 4]), ("rest", MinMaxScaler(), [0])]
            ),
            logistic(),
        ), X, Y,
    ),
}  # fmt: skip


def asked(artifact: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
    (spec,) = artifact.signature.inputs
    return runner(artifact)({"input": rows.astype(spec.numpy_dtype)}, 50)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str) -> None:
    model, x, y = CLASSIFIERS[name]
    fit(model, x, y)
    artifact = convert_model(model, x)
    answers = asked(artifact, x)
    np.testing.assert_array_equal(answers["label"], model.predict(x))
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(answers["probabilities"], model.predict_proba(x), atol=5e-5)
    assert artifact.row_independent


REGRESSORS = {
    "logarithm of the target": (
        TransformedTargetRegressor(
            RandomForestRegressor(5, random_state=0), func=np.log1p, inverse_func=np.expm1
        ), *DIABETES,
    ),
    "scaled target": (
        TransformedTargetRegressor(scaled(SVR()), transformer=StandardScaler()), *DIABETES,
    ),
    "power of the target": (
        TransformedTargetRegressor(LinearRegression(), transformer=PowerTransformer()), *DIABETES,
    ),
    "chain": (RegressorChain(Ridge()), DIABETES[0], TWO_TARGETS),
    "mean": (DummyRegressor(), DIABETES[0], TWO_TARGETS),
    "kernel": (KernelRidge(alpha=0.1, kernel="rbf"), *DIABETES),
    "polynomial kernel": (KernelRidge(kernel="polynomial"), DIABETES[0], TWO_TARGETS),
    "some kernels": (scaled(Nystroem(n_components=20, random_state=0), Ridge()), *DIABETES),
    "isotonic": (IsotonicRegression(out_of_bounds="clip"), DIABETES[0][:, 2:3], DIABETES[1]),
    "features one by one": (
        make_pipeline(SequentialFeatureSelector(Ridge(), n_features_to_select=3, cv=2), Ridge()),
        *DIABETES,
    ),
    "boosting with categories": (
        HistGradientBoostingRegressor(max_iter=4, categorical_features=[4]), CODES, X[:, 5],
    ),
    "boosting of counts": (HistGradientBoostingRegressor(loss="poisson", max_iter=5), *DIABETES),
}  # fmt: skip


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors(name: str) -> None:
    model, x, y = REGRESSORS[name]
    fit(model, x, y)
    answers = asked(convert_model(model, x), x)
    np.testing.assert_allclose(answers["prediction"], model.predict(x), rtol=2e-4)


TRANSFORMERS = {
    "factors": FactorAnalysis(3),
    "sparse components": SparsePCA(3, random_state=0, max_iter=10),
    "powers": PowerTransformer(),
    "quantiles": QuantileTransformer(n_quantiles=60),
    **{
        function.__name__: make_pipeline(MinMaxScaler((0.1, 2)), FunctionTransformer(function))
        for function in (np.sqrt, np.abs, np.square, np.log, np.log10, np.cbrt, np.tanh, np.sin)
    },
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str) -> None:
    model = fit(TRANSFORMERS[name], X)
    answers = asked(convert_model(model, X), X)
    np.testing.assert_allclose(answers["output"], model.transform(X), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        AffinityPropagation(random_state=0),
        Birch(n_clusters=5),
        MeanShift(),
        EllipticEnvelope(random_state=0),
        LocalOutlierFactor(novelty=True),
        scaled(OneClassSVM(nu=0.1)),
        BayesianGaussianMixture(n_components=3, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_clusters_and_outliers(model: Any) -> None:
    fit(model, X)
    answers = asked(convert_model(model, X), X)
    np.testing.assert_array_equal(answers["label"], model.predict(X))


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        (RandomForestClassifier(5, random_state=0), TWO_LABELS),
        (RandomForestClassifier(5, random_state=0), THREE_FLAGS),
        (KNeighborsClassifier(), THREE_FLAGS),
        (MultiOutputClassifier(scaled(logistic())), TWO_LABELS),
        (scaled(MultiOutputClassifier(SVC())), TWO_LABELS),
        (ClassifierChain(logistic(), random_state=0), THREE_FLAGS),
    ],
    ids=["forest", "forest of flags", "neighbours", "several models", "several decisions", "chain"],
)
def test_several_labels_at_once(model: Any, targets: np.ndarray) -> None:
    fit(model, X, targets)
    artifact = convert_model(model, X)
    answers = asked(artifact, X)
    np.testing.assert_array_equal(answers["label"], model.predict(X))
    assert artifact.signature.outputs_by_name["label"].shape == ("N", targets.shape[1])
    if not hasattr(model, "predict_proba"):
        return
    probabilities = model.predict_proba(X)
    if isinstance(probabilities, list):
        for number, expected in enumerate(probabilities):
            np.testing.assert_allclose(answers[f"probabilities_{number}"], expected, atol=1e-5)
    else:
        np.testing.assert_allclose(answers["probabilities"], probabilities, atol=1e-5)
