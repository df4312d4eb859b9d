"""Honest models: every scikit-learn estimator, fitted, and what people put around them."""

import functools
import io
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from inspect import Parameter, signature
from typing import Any

import joblib
import numpy as np
import pandas as pd
import scipy.sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    ExpSineSquared,
    Matern,
    RationalQuadratic,
    WhiteKernel,
)
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier, SGDRegressor
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

ESTIMATORS = dict(all_estimators())
ROWS = 24

_random = np.random.RandomState(0)
_X = _random.rand(ROWS, 4) + 0.1
_y = np.arange(ROWS) % 2
_target = _random.rand(ROWS) + 0.1
_texts = ["a cat sat", "the dog ran", "red fox here", "blue fish swims"] * (ROWS // 4)
_labels = np.array(["no", "yes"])[_y]
_frame = pd.DataFrame(
    {
        "number": _X[:, 0],
        "count": np.arange(ROWS),
        "word": ["a", "b", "c", "d"] * (ROWS // 4),
        "kind": pd.Categorical(["u", "v"] * (ROWS // 2)),
        "flag": [True, False] * (ROWS // 2),
    }
)

_PARAMETERS: dict[str, Any] = {
    "max_iter": 20,
    "n_components": 2,
    "n_estimators": 3,
    "n_init": 1,
    "n_splits": 2,
    "perplexity": 3,
    "random_state": 0,
}
_SPECIAL: dict[str, Callable[[type], Any]] = {
    "CCA": lambda cls: cls(n_components=1),
    "ColumnTransformer": lambda cls: cls([("s", StandardScaler(), [0, 1])]),
    "FeatureUnion": lambda cls: cls([("s", StandardScaler())]),
    "FrozenEstimator": lambda cls: cls(LogisticRegression().fit(_X, _y)),
    "GridSearchCV": lambda cls: cls(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    "HalvingGridSearchCV": lambda cls: cls(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    "HalvingRandomSearchCV": lambda cls: cls(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    "LinearDiscriminantAnalysis": lambda cls: cls(),
    "MultiOutputRegressor": lambda cls: cls(Ridge()),
    "OrthogonalMatchingPursuitCV": lambda cls: cls(cv=2, max_iter=3),
    "PLSCanonical": lambda cls: cls(n_components=1),
    "Pipeline": lambda cls: cls([("lr", LogisticRegression())]),
    "RandomizedSearchCV": lambda cls: cls(LogisticRegression(), {"C": [0.1, 1]}, n_iter=2, cv=2),
    "RegressorChain": lambda cls: cls(Ridge()),
    "SelfTrainingClassifier": lambda cls: cls(LogisticRegression()),
    "SparseCoder": lambda cls: cls(np.eye(4)),
    "SpectralBiclustering": lambda cls: cls(n_clusters=2, n_best=2, n_components=3),
    "StackingRegressor": lambda cls: cls([("a", Ridge()), ("b", Ridge(alpha=2))], cv=2),
    "TSNE": lambda cls: cls(perplexity=3, max_iter=250),
    "VotingRegressor": lambda cls: cls([("a", Ridge()), ("b", Ridge(alpha=2))]),
    **dict.fromkeys(
        ("StackingClassifier", "VotingClassifier"),
        lambda cls: cls([("a", LogisticRegression()), ("b", DecisionTreeClassifier())]),
    ),
}
# What the estimators accept is found by trying.
_DATA: list[tuple[Any, ...]] = [
    (_X, _y),
    (_X, _target),
    (_X, np.c_[_y, 1 - _y]),
    (_texts, _y),
    (_y,),
    (_X[:4],),
    ([{"a": 1, "b": 2.0}] * ROWS,),
    (_X[:, 0], _target),
    ([["a"], ["b"]] * 5,),
    (_X @ _X.T,),
]


def fitted(name: str) -> Any:
    """An instance of the estimator of that name, fitted on something that it accepts."""
    cls = ESTIMATORS[name]
    problems = []
    for data in _DATA:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _unfitted(name, cls).fit(*data)
        except Exception as error:
            problems.append(repr(error)[:100])
    raise AssertionError(f"{name} fits nothing: {problems}")


def _unfitted(name: str, cls: type) -> Any:
    if name in _SPECIAL:
        return _SPECIAL[name](cls)
    accepted = signature(cls).parameters
    chosen = {key: value for key, value in _PARAMETERS.items() if key in accepted}
    if "estimator" in accepted and accepted["estimator"].default is Parameter.empty:
        chosen["estimator"] = LogisticRegression()
    return cls(**chosen)


def _columns(output: str) -> ColumnTransformer:
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    steps = [("n", StandardScaler(), ["number", "count"]), ("c", encoder, ["word", "kind"])]
    return ColumnTransformer(steps).set_output(transform=output)


def _grid() -> GridSearchCV:
    steps = make_pipeline(StandardScaler(), SVC())
    scoring = {"f1": make_scorer(f1_score, pos_label="yes"), "accuracy": "accuracy"}
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    choices = {"svc__C": [0.1, 1], "svc__kernel": ["rbf", "linear"]}
    return GridSearchCV(steps, choices, cv=folds, scoring=scoring, refit="accuracy")


def _kernel() -> Any:
    first = ConstantKernel() * RBF() + WhiteKernel() + DotProduct() ** 2
    return first + RationalQuadratic() + ExpSineSquared() + Matern()


_NESTED = np.empty(2, dtype=object)
_NESTED[:] = [np.arange(2), "a"]
_ALIGNED = np.dtype([("a", "i1"), ("b", "f8"), ("c", "f4", (2, 3))], align=True)

MODELS: dict[str, Callable[[], Any]] = {
    "pipeline on a frame": lambda: Pipeline(
        [("c", _columns("default")), ("m", LogisticRegression())]
    ).fit(_frame, _labels),
    "pandas output": lambda: _columns("pandas").fit(_frame),
    "column selector": lambda: ColumnTransformer(
        [("n", StandardScaler(), make_column_selector(dtype_include=np.number))]
    ).fit(_frame),
    "isotonic calibration": lambda: CalibratedClassifierCV(
        GaussianNB(), method="isotonic", cv=2
    ).fit(_X, _y),
    "kernels": lambda: GaussianProcessRegressor(_kernel(), optimizer=None, alpha=1.0).fit(
        _X, _target
    ),
    "text": lambda: make_pipeline(TfidfVectorizer(stop_words="english"), MultinomialNB()).fit(
        _texts, _labels
    ),
    "functions": lambda: make_pipeline(
        FunctionTransformer(np.log1p), FunctionTransformer(np.sqrt), Ridge()
    ).fit(_X, _target),
    "target function": lambda: TransformedTargetRegressor(
        Ridge(), func=np.log1p, inverse_func=np.expm1
    ).fit(_X, _target),
    "grid search": lambda: _grid().fit(_X, _labels),
    "regression search": lambda: GridSearchCV(
        Ridge(), {"alpha": [0.1, 1.0]}, cv=KFold(2), scoring="neg_root_mean_squared_error"
    ).fit(_X, _target),
    "ball tree, mahalanobis": lambda: KNeighborsRegressor(
        algorithm="ball_tree", metric="mahalanobis", metric_params={"VI": np.eye(4)}
    ).fit(_X, _target),
    "kd tree, float32": lambda: KNeighborsClassifier(algorithm="kd_tree").fit(
        _X.astype("f4"), _labels
    ),
    "sparse support vectors": lambda: SVC().fit(scipy.sparse.csr_matrix(_X), _y),
    "categories in gradient boosting": lambda: HistGradientBoostingClassifier(
        max_iter=3, categorical_features="from_dtype"
    ).fit(_frame[["number", "count", "kind"]], _labels),
    "bagging with a random state": lambda: BaggingClassifier(
        SVC(), n_estimators=2, random_state=np.random.RandomState(3)
    ).fit(_X, _y),
    "forest of two outputs": lambda: RandomForestClassifier(3).fit(_X, np.c_[_labels, _labels]),
    "three classes": lambda: GradientBoostingClassifier(n_estimators=2).fit(
        _X, np.arange(ROWS) % 3
    ),
    "exponential loss": lambda: GradientBoostingClassifier(loss="exponential", n_estimators=2).fit(
        _X, _y
    ),
    **{
        f"{loss} loss, sgd": lambda loss=loss: SGDClassifier(loss=loss).fit(_X, _y)
        for loss in ("log_loss", "modified_huber", "squared_hinge", "perceptron")
    },
    **{
        f"{loss} loss, sgd regression": lambda loss=loss: SGDRegressor(loss=loss).fit(_X, _target)
        for loss in ("huber", "epsilon_insensitive", "squared_epsilon_insensitive")
    },
    **{
        f"{loss} loss, gradient boosting": lambda loss=loss: GradientBoostingRegressor(
            loss=loss, n_estimators=2
        ).fit(_X, _target)
        for loss in ("absolute_error", "huber", "quantile")
    },
    **{
        f"{loss} loss, histograms": lambda loss=loss: HistGradientBoostingRegressor(
            loss=loss, max_iter=2
        ).fit(_X, _target)
        for loss in ("absolute_error", "gamma", "poisson")
    },
    "a dictionary around a model": lambda: {
        "model": Ridge().fit(_X, _target),
        "columns": _frame.columns.tolist(),
        "threshold": np.float64(0.5),
        "trained": datetime(2026, 1, 1, tzinfo=UTC),
        "took": timedelta(seconds=3),
        ("a", 1): Decimal("1.5"),
    },
    "frames": lambda: [pd.RangeIndex(3), pd.Series([1.0]), pd.DataFrame({0: [1.0], 1: [2]})],
    "containers": lambda: [
        OrderedDict(a=1),
        defaultdict(int, a=1),
        Counter("aab"),
        deque([1, 2], 5),
        {1, "a"},
        frozenset({(1, 2)}),
        bytearray(b"x" * 9),
        1j,
        range(3),
        slice(1, 2),
        10**40,
        {},
        [],
        set(),
        float("nan"),
    ],
    "element types": lambda: [
        *(np.zeros(3, code) for code in ("?", "i1", ">i4", "f2", "c16", "U5", "S3", "M8[ns]", "g")),
        np.zeros(2, _ALIGNED),
        np.zeros((0, 3)),
        np.asfortranarray(np.ones((3, 2))),
        np.array(1.0),
        np.ma.array([1.0, 2.0], mask=[0, 1]),
        np.matrix([[1, 2]]),
    ],
    "scalars": lambda: [
        np.float32(1), np.int8(2), np.bool_(1), np.str_("x"), np.datetime64("2026-01-01")
    ],
    "objects": lambda: np.array([["a", None], [1, "b"]], dtype=object),
    "arrays inside objects": lambda: _NESTED,
    "sparse": lambda: [scipy.sparse.csr_matrix(np.eye(3)), scipy.sparse.csc_array(np.eye(3))],
    "random generators": lambda: [
        np.random.default_rng(0),
        np.random.RandomState(3),
        np.random.Generator(np.random.Philox(1)),
    ],
    "types": lambda: [np.float32, int, object, str, np.dtype("f4"), np.ndarray, LogisticRegression],
    "bytes that look like a pickle": lambda: {
        "array": np.frombuffer(b"cos\nsystem\n(S'true'\ntR." * 3, dtype=np.uint8),
        "bytes": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    },
}  # fmt: skip


@functools.cache
def model(name: str) -> Any:
    """One of `MODELS`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MODELS[name]()


def dump(thing: Any, *, compress: Any = 0, protocol: int | None = None) -> bytes:
    """What `joblib.dump` writes."""
    file = io.BytesIO()
    joblib.dump(thing, file, compress=compress, protocol=protocol)
    return file.getvalue()
