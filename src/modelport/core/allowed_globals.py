"""Which names a pickled model may refer to.

A pickle names classes and functions (its *globals*), and loading it imports and calls them. These
are the rules for the names alone, without importing any of them. They are used twice: by the
scan, which also checks how a file uses each name, and by loaders, as the second line of defence.

Three groups are allowed, and everything else is refused:

- *model classes*, of which a file may make bare instances: the classes of scikit-learn's
  estimator packages, sparse matrices, a few pandas containers;
- *values*, which a file may only mention: number types, ufuncs, metrics, kernels;
- *reconstructors*, which a file may call, with arguments that the scan checks one by one.

The lists were made by pickling every scikit-learn estimator (1.5 and 1.9, NumPy 1.26 and 2.4);
``tests/scan`` keeps them complete and tight against the installed versions.
"""

from __future__ import annotations

import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Mapping
from typing import Final

import numpy as np

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_CLASS_NAME = re.compile(r"_?[A-Z][A-Za-z0-9]*", re.ASCII)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The class by which joblib marks that an array's bytes follow in the stream.
ARRAY_WRAPPER: Final = ("joblib.numpy_pickle", "NumpyArrayWrapper")

_SKLEARN_PACKAGES: Final = _words(
    "_loss base calibration cluster compose covariance cross_decomposition decomposition"
    " discriminant_analysis dummy ensemble feature_extraction feature_selection frozen"
    " gaussian_process impute isotonic kernel_approximation kernel_ridge linear_model manifold"
    " metrics mixture model_selection multiclass multioutput naive_bayes neighbors"
    " neural_network pipeline preprocessing random_projection semi_supervised svm tree"
)
_SKLEARN_DENIED_PARTS: Final = frozenset({"tests", "conftest", "_plot"})

# scikit-learn's modules import these from elsewhere, or from its own `utils`, so that
# `sklearn.pipeline.Parallel` exists: a class name in a good module, and not a model's.
_SKLEARN_BORROWED: Final = _words(
    "ABC ABCMeta Any BSpline Bunch BytesIO Callable Client Counter Delayed Enum Generator"
    " HasMethods Hidden Integral Interval InvalidParameterError Iterable Iterator LinAlgError"
    " LinearOperator List Listener Literal Logger Mapping MaskedArray Memory MetadataRouter"
    " MethodMapping MethodType MissingValues MutableMapping NamedTuple NotFittedError Number"
    " Optional Options Parallel Parameter Path Pool Popen Process Protocol Queue Rational Real"
    " RealNotInt Sequence Signature SkipTest StrOptions StringIO TemporaryDirectory Thread"
    " ThreadPool ThreadPoolExecutor ThreadpoolController Tuple Union UnsetMetadataPassedError"
    " _BaseComposition _MetadataRequester _VisualBlock"
)
_SKLEARN_BORROWED_ENDINGS: Final = (
    "Dataset32",
    "Dataset64",
    "Dict",
    "Display",
    "Mixin",
    "Tags",
    "Warning",
)

#: Model classes outside scikit-learn's estimator packages, by module.
_MODEL_CLASSES: Final[Mapping[str, frozenset[str]]] = {
    "sklearn._loss.link": frozenset({"Interval"}),
    "sklearn.compose._column_transformer": frozenset({"make_column_selector"}),
    "sklearn.utils": frozenset({"Bunch"}),
    "sklearn.utils._bunch": frozenset({"Bunch"}),
    "sklearn.utils._encode": frozenset({"MissingValues"}),
    "sklearn.utils._metadata_requests": frozenset({"MetadataRequest", "MethodMetadataRequest"}),
    "scipy.interpolate._bsplines": frozenset({"BSpline"}),
    **{
        f"scipy.sparse.{prefix}{kind}": frozenset({f"{kind}_matrix", f"{kind}_array"})
        for prefix in ("", "_")
        for kind in ("bsr", "coo", "csc", "csr", "dia", "lil")
    },
    "pandas": frozenset({"CategoricalDtype", "DataFrame", "Index", "RangeIndex", "Series"}),
    "pandas.core.dtypes.dtypes": frozenset({"CategoricalDtype"}),
    "pandas.core.frame": frozenset({"DataFrame"}),
    "pandas.core.indexes.base": frozenset({"Index"}),
    "pandas.core.indexes.range": frozenset({"RangeIndex"}),
    "pandas.core.internals.managers": frozenset({"SingleBlockManager"}),
    "pandas.core.series": frozenset({"Series"}),
    "catboost.core": _words("CatBoost CatBoostClassifier CatBoostRanker CatBoostRegressor"),
    "lightgbm.basic": frozenset({"Booster"}),
    "lightgbm.sklearn": _words("LGBMClassifier LGBMModel LGBMRanker LGBMRegressor"),
    "xgboost.callback": frozenset({"EarlyStopping"}),
    "xgboost.core": frozenset({"Booster"}),
    "xgboost.sklearn": _words(
        "XGBClassifier XGBRFClassifier XGBRFRegressor XGBRanker XGBRegressor"
    ),
}

_UFUNCS: Final = frozenset(name for name, value in vars(np).items() if isinstance(value, np.ufunc))

_VALUES: Final[Mapping[str, frozenset[str]]] = {
    "builtins": _words("Ellipsis NotImplemented bool dict float int list str tuple"),
    "numpy": _UFUNCS
    | frozenset({t.__name__ for t in np.sctypeDict.values()})
    | _words(
        "amax amin argmax argmin around average bool bool_ character clip complexfloating cumsum"
        " diff flexible float128 floating generic inexact integer matrix max mean median min"
        " nan_to_num nanmax nanmean nanmedian nanmin nanstd nansum nanvar ndarray number prod"
        " ravel round signedinteger squeeze std sum unsignedinteger var"
    ),
    "numpy._core._multiarray_umath": _UFUNCS,
    "numpy.ma": frozenset({"MaskedArray"}),
    "numpy.ma.core": frozenset({"MaskedArray"}),
    "numpy.matrixlib.defmatrix": frozenset({"matrix"}),
    "numpy.random._mt19937": frozenset({"MT19937"}),
    "numpy.random._pcg64": frozenset({"PCG64", "PCG64DXSM"}),
    "numpy.random._philox": frozenset({"Philox"}),
    "numpy.random._sfc64": frozenset({"SFC64"}),
    "numpy.random.bit_generator": frozenset({"SeedSequence"}),
    "scipy._lib.array_api_compat.numpy._aliases": frozenset({"asarray"}),
    **dict.fromkeys(
        ("scipy.special._ufuncs", "scipy.special._special_ufuncs"),
        _words(
            "boxcox boxcox1p cbrt entr erf erfc exp2 exp10 expit expm1 gammaln inv_boxcox"
            " inv_boxcox1p log1p log_expit logit ndtr ndtri xlog1py xlogy"
        ),
    ),
    "sklearn.cluster._kmeans": frozenset({"_kmeans_single_elkan", "_kmeans_single_lloyd"}),
    "sklearn.feature_extraction.text": frozenset({"strip_accents_ascii", "strip_accents_unicode"}),
    "sklearn.feature_selection._mutual_info": frozenset(
        {"mutual_info_classif", "mutual_info_regression"}
    ),
    "sklearn.feature_selection._univariate_selection": frozenset(
        {"chi2", "f_classif", "f_oneway", "f_regression", "r_regression"}
    ),
    "sklearn.metrics._classification": _words(
        "accuracy_score balanced_accuracy_score brier_score_loss cohen_kappa_score d2_brier_score"
        " d2_log_loss_score f1_score fbeta_score hamming_loss hinge_loss jaccard_score log_loss"
        " matthews_corrcoef precision_score recall_score zero_one_loss"
        " class_likelihood_ratios"
    ),
    "sklearn.metrics._ranking": _words(
        "auc average_precision_score coverage_error dcg_score label_ranking_average_precision_score"
        " label_ranking_loss ndcg_score roc_auc_score top_k_accuracy_score"
    ),
    "sklearn.metrics._regression": _words(
        "d2_absolute_error_score d2_pinball_score d2_tweedie_score explained_variance_score"
        " max_error mean_absolute_error mean_absolute_percentage_error mean_gamma_deviance"
        " mean_pinball_loss mean_poisson_deviance mean_squared_error mean_squared_log_error"
        " mean_tweedie_deviance median_absolute_error r2_score root_mean_squared_error"
        " root_mean_squared_log_error"
    ),
    "sklearn.metrics._scorer": frozenset({"_passthrough_scorer"}),
    "sklearn.metrics.cluster._supervised": _words(
        "adjusted_mutual_info_score adjusted_rand_score completeness_score fowlkes_mallows_score"
        " homogeneity_score mutual_info_score normalized_mutual_info_score rand_score"
        " v_measure_score"
    ),
    "sklearn.metrics.cluster._unsupervised": frozenset(
        {"calinski_harabasz_score", "davies_bouldin_score", "silhouette_score"}
    ),
    "sklearn.metrics.pairwise": _words(
        "additive_chi2_kernel chi2_kernel cosine_distances cosine_similarity euclidean_distances"
        " haversine_distances laplacian_kernel linear_kernel manhattan_distances"
        " nan_euclidean_distances polynomial_kernel rbf_kernel sigmoid_kernel"
    ),
    "sklearn.utils.validation": frozenset({"check_array"}),
    "sklearn.preprocessing._data": _words(
        "add_dummy_feature binarize maxabs_scale minmax_scale normalize power_transform"
        " quantile_transform robust_scale scale"
    ),
}

#: What a file may call while it loads; ``scan/pickles/calls.py`` has the rules for the arguments.
RECONSTRUCTORS: Final[Mapping[str, frozenset[str]]] = {
    "_codecs": frozenset({"encode"}),
    "builtins": _words("bytearray bytes complex frozenset object range set slice"),
    "collections": frozenset({"Counter", "OrderedDict", "defaultdict", "deque"}),
    "copyreg": frozenset({"_reconstructor"}),
    "datetime": frozenset({"date", "datetime", "time", "timedelta", "timezone"}),
    "decimal": frozenset({"Decimal"}),
    # Histogram gradient boosting on categories: partial(check_array, …), and nothing else.
    "functools": frozenset({"partial"}),
    ARRAY_WRAPPER[0]: frozenset({ARRAY_WRAPPER[1]}),
    "numpy": frozenset({"dtype"}),
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
    "numpy.ma.core": frozenset({"MaskedConstant", "_mareconstruct"}),
    "numpy.random._pickle": frozenset(
        {"__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"}
    ),
    "numpy.random.bit_generator": frozenset({"__pyx_unpickle_SeedSequence"}),
    "pandas._libs.internals": frozenset({"_unpickle_block"}),
    "pandas.core.indexes.base": frozenset({"_new_Index"}),
    "pandas.core.internals.managers": frozenset({"BlockManager"}),
    "sklearn.metrics._dist_metrics": frozenset({"newObj", "newObj32", "newObj64"}),
    "sklearn.neighbors._ball_tree": frozenset({"newObj", "newObj32", "newObj64"}),
    "sklearn.neighbors._kd_tree": frozenset({"newObj", "newObj32", "newObj64"}),
}

# Cython before 3 called scikit-learn's module `_loss` in pickles, without its package.
_LOSS_MODULES: Final = frozenset({"_loss", "sklearn._loss._loss"})
_LOSS_NAME = re.compile(r"(__pyx_unpickle_)?Cy[A-Z][A-Za-z0-9]*", re.ASCII)

_REASONS: Final[Mapping[str, str]] = {
    "__main__": "defined in the program that trained the model, not in a library",
    "builtins": "can run any code or reach any object",
    "functools": "can call any function or make any class",
    "operator": "can call any function or reach any attribute",
    **dict.fromkeys(
        ("importlib", "nt", "os", "posix", "pty", "runpy", "shutil", "subprocess"),
        "runs programs, or changes files",
    ),
    **dict.fromkeys(("_pickle", "cloudpickle", "dill", "marshal", "pickle"), "loads further code"),
    "scipy.stats": "scipy's distributions rebuild themselves with exec()",
    "sklearn.callback": "opens a connection when it is loaded",
    "joblib": "joblib's own functions open files and run processes",
}


def python3_name(module: str, name: str) -> tuple[str, str]:
    """The Python 3 name of a global in a pickle of protocol 0, 1 or 2, as `pickle` maps it."""
    if (module, name) in NAME_MAPPING:
        return NAME_MAPPING[module, name]
    return IMPORT_MAPPING.get(module, module), name


def is_allowed(module: str, name: str) -> bool:
    """Whether a pickled model may refer to ``module.name`` at all.

    For loaders this is the last check, not the only one: the scan also checks the arguments of
    every call.
    """
    # Neither module exists on Python 3, so that the old names cannot mean anything else.
    if module in ("__builtin__", "copy_reg"):
        module, name = python3_name(module, name)
    return (
        is_model_class(module, name)
        or is_value(module, name)
        or is_reconstructor(module, name)
        or (module in _LOSS_MODULES and _LOSS_NAME.fullmatch(name) is not None)
    )


def is_model_class(module: str, name: str) -> bool:
    """Whether it is a class of which a file may make bare instances and set their state."""
    if name in _MODEL_CLASSES.get(module, ()):
        return True
    package, *rest = module.split(".")
    return (
        package == "sklearn"
        and len(rest) > 0
        and rest[0] in _SKLEARN_PACKAGES
        and _MODULE.fullmatch(module) is not None
        and _SKLEARN_DENIED_PARTS.isdisjoint(rest)
        and _CLASS_NAME.fullmatch(name) is not None
        and name not in _SKLEARN_BORROWED
        and not name.endswith(_SKLEARN_BORROWED_ENDINGS)
    )


def is_value(module: str, name: str) -> bool:
    """Whether a file may mention it as a value, and not call it."""
    return name in _VALUES.get(_numpy2(module), ())


def is_reconstructor(module: str, name: str) -> bool:
    """Whether a file may call it with arguments that the scan has checked."""
    return name in RECONSTRUCTORS.get(_numpy2(module), ())


def refusal(module: str, name: str) -> str:
    """Why ``module.name`` is refused; empty when it is allowed."""
    if is_allowed(module, name):
        return ""
    if _NAME.fullmatch(name) is None or _MODULE.fullmatch(module) is None:
        return "not a plain name in a module; it could reach anything through it"
    if module == ARRAY_WRAPPER[0] and name.endswith("NDArrayWrapper"):
        return "written by joblib before 0.10, which reads arrays from other files"
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        reason = _REASONS.get(".".join(parts[:length]))
        if reason:
            return reason
    return "not on the list of names that models need"


def _numpy2(module: str) -> str:
    """NumPy 2 renamed `numpy.core`; files of both ages mean the same functions."""
    return "numpy._core" + module[10:] if module.startswith("numpy.core.") else module
