"""Models of tables and texts."""

from __future__ import annotations

import warnings

import numpy as np

from modelport.core.tensors import Array
from tests.optimize.drawn import Drawn, classes, digits, documents, named, table
from tests.optimize.made import Made


def _pixels(count: int, seed: int) -> tuple[Array, Array]:
    images, labels = digits(count, seed)
    return images.reshape(count, 64), labels


def perceptron(size: int) -> Made:
    """A perceptron of scikit-learn."""
    from sklearn.neural_network import MLPClassifier

    rows, labels = _pixels(3000, 2)
    model = MLPClassifier((128 * size,), max_iter=60, random_state=0, early_stopping=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        model.fit(rows, labels)
    return Made(model, named("", _pixels))


def _holes(count: int, seed: int) -> tuple[Array, Array]:
    """`classes` of which a tenth of the cells is not known."""
    rows, labels = classes(count, seed)
    rows[np.random.default_rng(seed).random(rows.shape) < 0.1] = np.nan
    return rows, labels


def xgboost(size: int) -> Made:
    """Boosted trees of XGBoost, for three classes, with unknown cells."""
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=40 * size, max_depth=5, learning_rate=0.1, n_jobs=1)
    return Made(model.fit(*_holes(2000, 2)), named("", _holes))


def lightgbm(size: int) -> Made:
    """Boosted trees of LightGBM that answer a number."""
    from lightgbm import LGBMRegressor

    model = LGBMRegressor(n_estimators=60 * size, learning_rate=0.08, n_jobs=1, verbose=-1)
    rows, answers = table(3000, 2)
    return Made(model.fit(rows, answers), named("", table), numbers=True)


def forest(size: int) -> Made:
    """A forest that answers a number."""
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(25 * size, min_samples_leaf=3, random_state=0)
    return Made(model.fit(*table(1500, 2)), named("", table), numbers=True)


def words_as_labels(size: int) -> Made:
    """Extremely random trees whose labels are texts."""
    from sklearn.ensemble import ExtraTreesClassifier

    def draw(count: int, seed: int) -> tuple[Array, Array]:
        rows, labels = classes(count, seed)
        return rows, np.asarray(["low", "middle", "high"], dtype=object)[labels]

    model = ExtraTreesClassifier(25 * size, min_samples_leaf=3, random_state=0)
    return Made(model.fit(*draw(1500, 2)), named("", draw))


def columns(size: int) -> Made:
    """Logistic regression on columns with names: scaled numbers, and cities and jobs by name."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    cities = np.asarray([f"city-{place}" for place in range(10 * size)], dtype=object)
    pull = np.random.default_rng(3).normal(0, 1.5, len(cities))

    def draw(count: int, seed: int) -> Drawn:
        rows, answers = table(count, seed)
        random = np.random.default_rng(seed)
        city = random.integers(0, len(cities), count)
        labels = (answers + pull[city] > 14.4).astype(np.int64)
        numbers = {f"x{at}": rows[:, at] * 10.0**at for at in range(6)}
        return {**numbers, "city": cities[city]}, labels

    rows, labels = draw(2000, 2)
    frame = pd.DataFrame(rows)
    steps = ColumnTransformer(
        [("numbers", StandardScaler(), list(frame)[:6]),
         ("city", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    )  # fmt: skip
    return Made(make_pipeline(steps, LogisticRegression(max_iter=500)).fit(frame, labels), draw)


def support_vectors(size: int) -> Made:
    """An RBF machine of ten classes."""
    from sklearn.svm import SVC

    rows, labels = _pixels(400 * min(size, 5), 2)
    return Made(SVC(random_state=0).fit(rows, labels), named("", _pixels))


def neighbours(size: int) -> Made:
    """Five nearest neighbours: it holds its training set."""
    from sklearn.neighbors import KNeighborsClassifier

    rows, labels = classes(600 * min(size, 5), 2)
    return Made(KNeighborsClassifier().fit(rows, labels), named("", classes))


def text(size: int) -> Made:
    """TF-IDF of words and pairs with logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def draw(count: int, seed: int) -> Drawn:
        texts, labels = documents(count, seed)
        found = np.empty(count, dtype=object)
        found[:] = [" ".join(f"word{number}" for number in one) for one in texts]
        return {"": found}, labels

    rows, labels = draw(1000 * min(size, 4), 2)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10))
    return Made(model.fit(rows[""], labels), draw)
