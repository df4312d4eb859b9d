"""Estimators that have no export, each with the reason and a way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from modelport.convert.frameworks.sklearn.nested import estimators_in
from modelport.core.errors import UnsupportedError

_SOLVES: Final = "it solves an optimization for every new row"
_DENSE: Final = "its answers have a million columns, which ONNX holds in full"
_NEIGHBOURS: Final = "how many neighbours count differs from row to row"

#: Class → why, and what to do instead.
_REASONS: Final[dict[str, tuple[str, str]]] = {
    "BisectingKMeans": ("a new row walks down a tree of clusters", "use KMeans"),
    "DictionaryLearning": (_SOLVES, "use PCA, SparsePCA or TruncatedSVD"),
    "FeatureHasher": (_DENSE, "use DictVectorizer"),
    "HashingVectorizer": (_DENSE, "use CountVectorizer or TfidfVectorizer with max_features"),
    "Isomap": ("it searches shortest paths for every new row", "use PCA or KernelPCA"),
    "IterativeImputer": ("it fits its columns on each other in turns", "use SimpleImputer"),
    "LabelPropagation": ("it keeps a graph of the training rows", "use KNeighborsClassifier"),
    "LabelSpreading": ("it keeps a graph of the training rows", "use KNeighborsClassifier"),
    "LatentDirichletAllocation": (_SOLVES, "use TruncatedSVD"),
    "LocallyLinearEmbedding": (_SOLVES, "use PCA or KernelPCA"),
    "MiniBatchDictionaryLearning": (_SOLVES, "use PCA, SparsePCA or TruncatedSVD"),
    "MiniBatchNMF": (_SOLVES, "use PCA, SparsePCA or TruncatedSVD"),
    "NMF": (_SOLVES, "use PCA, SparsePCA or TruncatedSVD"),
    "OutputCodeClassifier": ("its code book has no converter", "use OneVsRestClassifier"),
    "PatchExtractor": ("it draws patches of images at random", "do this step before the model"),
    "RadiusNeighborsClassifier": (_NEIGHBOURS, "use KNeighborsClassifier"),
    "RadiusNeighborsRegressor": (_NEIGHBOURS, "use KNeighborsRegressor"),
    "RadiusNeighborsTransformer": (_NEIGHBOURS, "use KNeighborsTransformer"),
    "RandomTreesEmbedding": ("its answers are sparse", "use the forest itself as the model"),
    "SparseCoder": (_SOLVES, "use PCA, SparsePCA or TruncatedSVD"),
    "SplineTransformer": ("its polynomials have no converter", "use PolynomialFeatures"),
}


def _multiclass(model: Any) -> bool:
    return getattr(model, "n_classes_", 2) > 2


def _multilabel(model: Any) -> bool:
    return bool(
        getattr(getattr(model, "_label_binarizer", None), "y_type_", "").startswith("multilabel")
    )


#: Class → when, why, and what to do instead.
_SOMETIMES: Final[dict[str, tuple[Callable[[Any], bool], str, str]]] = {
    "GaussianProcessClassifier": (
        _multiclass,
        "with more than two classes it is one Gaussian process for each class, and skl2onnx "
        "converts one",
        "use OneVsRestClassifier(GaussianProcessClassifier()), or SVC(probability=True)",
    ),
    "RidgeClassifier": (
        _multilabel,
        "it predicts several labels at once",
        "use MultiOutputClassifier(RidgeClassifier())",
    ),
    "TargetEncoder": (
        lambda model: getattr(model, "target_type_", "") == "multiclass",
        "it was fitted on more than two classes",
        "use OneHotEncoder",
    ),
}


def refuse_known(model: Any) -> None:
    """Refuse a model that has a part without an export.

    Raises
    ------
    UnsupportedError
        Naming the part, the reason and the remedy.
    """
    for part in estimators_in(model):
        name = type(part).__name__
        if not type(part).__module__.startswith("sklearn."):
            continue
        reason = _REASONS.get(name)
        if reason is None and name in _SOMETIMES and _SOMETIMES[name][0](part):
            reason = _SOMETIMES[name][1:]
        if reason is not None:
            inside = "" if part is model else f" inside the {type(model).__name__}"
            raise UnsupportedError(
                f"the {name}{inside} cannot become ONNX: {reason[0]}", hint=reason[1]
            )
