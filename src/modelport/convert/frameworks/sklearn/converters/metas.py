"""Models of other models: which answers of theirs they need, and what they make of them.

skl2onnx hands a part to its own converter only where it knows the part's class, so that a pipeline
inside a calibrated classifier fails. Here each part is parsed like a model of its own, and the
whole takes its tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from skl2onnx._parse import _parse_sklearn
from skl2onnx.common import data_types
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.feature_selection import RFE, RFECV
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, RegressorChain
from sklearn.pipeline import Pipeline
from sklearn.semi_supervised import SelfTrainingClassifier

from modelport.convert.frameworks.sklearn.converters.boosting import boosted
from modelport.convert.frameworks.sklearn.converters.functions import interpolated
from modelport.convert.frameworks.sklearn.converters.standins import (
    BoostedClassifier,
    BoostedRegressor,
    ChosenColumns,
    Inverse,
    Joined,
)
from modelport.convert.frameworks.sklearn.converters.writer import Writer
from modelport.convert.frameworks.sklearn.nested import last_step
from modelport.core.errors import UnsupportedError

_TINY: Final = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Part:
    """A model inside another one.

    Parameters
    ----------
    estimator : BaseEstimator
    answers : str
        ``values`` (of a regressor or transformer), ``labels``, ``scores`` (probabilities or
        decisions, see `wants_decisions`) or ``all``.
    after : bool
        Whether the part takes the labels or values of the parts before it besides the inputs.
    """

    estimator: Any
    answers: str
    after: bool = False


@dataclass(frozen=True)
class Meta:
    """How a model of models is made.

    Parameters
    ----------
    parts : callable
        The model's parts.
    combine : callable
        Makes the model's outputs; the tensors of the parts are the writer's inputs.
    """

    parts: Callable[[Any], list[Part]]
    combine: Callable[[Writer], None]


def parse(alias: str, meta: Meta, scope: Any, model: Any, inputs: Any, parsers: Any) -> Any:
    """Parse the parts, and declare the model's operator on top of them."""
    given: list[Any] = []
    before: list[Any] = []
    for part in meta.parts(model):
        taken = _joined(scope, inputs, before) if part.after and before else inputs
        made = list(_parse_sklearn(scope, part.estimator, taken, custom_parsers=parsers))
        chosen = {"scores": made[1:2], "all": made}.get(part.answers, made[:1])
        if not chosen:
            raise UnsupportedError(
                f"the {type(last_step(part.estimator)).__name__} inside a "
                f"{type(model).__name__} has no scores"
            )
        before += made[:1] if part.answers != "scores" else chosen
        given += chosen
    operator = scope.declare_local_operator(alias, model)
    for variable in given:
        operator.inputs.append(variable)
    real = data_types.guess_tensor_type(given[-1].type)
    for name in _output_names(model):
        kind = data_types.Int64TensorType() if name == "label" else real
        operator.outputs.append(scope.declare_local_variable(name, kind))
    return operator.outputs


def _joined(scope: Any, inputs: list[Any], more: list[Any]) -> list[Any]:
    operator = scope.declare_local_operator("ModelportJoined", Joined())
    for variable in (*inputs, *more):
        operator.inputs.append(variable)
    output = scope.declare_local_variable("joined", data_types.guess_tensor_type(inputs[0].type))
    operator.outputs.append(output)
    return [output]


def _output_names(model: Any) -> list[str]:
    if isinstance(model, MultiOutputClassifier) and hasattr(model, "predict_proba"):
        return ["label", *(f"probabilities{i}" for i in range(len(model.estimators_)))]
    return ["label", "probabilities"] if is_classifier(model) else ["variable"]


def decisions_wanted(estimators: Iterator[Any]) -> Iterator[Any]:
    """Parts whose decisions are wanted although they have probabilities, too."""
    for estimator in estimators:
        if isinstance(estimator, CalibratedClassifierCV):
            for part in _calibrated(estimator):
                if hasattr(part.estimator, "decision_function"):
                    yield _classifier_of(part.estimator)


def _classifier_of(model: Any) -> Any:
    """Whose scores they are in the end."""
    model = last_step(model)
    while isinstance(model, FrozenEstimator | SelfTrainingClassifier | RFE):
        model = getattr(model, "estimator_", model.estimator)
        model = last_step(model)
    return model


# Calibration.


def _calibrated(model: Any) -> list[Part]:
    return [Part(each.estimator, "scores") for each in model.calibrated_classifiers_]


def _calibrate(writer: Writer) -> None:
    model = writer.model
    answers = [
        _calibrated_scores(writer, scores, each)
        for scores, each in zip(writer.inputs, model.calibrated_classifiers_, strict=True)
    ]
    total = answers[0] if len(answers) == 1 else writer.add("Sum", *answers)
    mean = writer.times(total, 1.0 / len(answers))
    writer.give(writer.labels(mean, model.classes_), mean)


def _calibrated_scores(writer: Writer, scores: str, each: Any) -> str:
    scores = writer.cast(scores, writer.dtype)
    if each.method == "temperature":
        return _temperature(writer, scores, each)
    count = len(each.classes)
    if count == 2:
        # Whether one column or two, the last one is that of the positive class.
        last = writer.add("Gather", scores, writer.constant([-1]), axis=1)
        positive = _calibrator(writer, last, each.calibrators[0])
        negative = writer.plus(writer.times(positive, -1.0), 1.0)
        return str(writer.add("Concat", negative, positive, axis=1))
    places = np.searchsorted(each.classes, each.estimator.classes_)
    columns = {
        int(place): _calibrator(
            writer, writer.add("Gather", scores, writer.constant([number]), axis=1), calibrator
        )
        for number, (place, calibrator) in enumerate(zip(places, each.calibrators, strict=True))
    }
    nothing = writer.times(next(iter(columns.values())), 0.0)
    together = writer.add("Concat", *(columns.get(i, nothing) for i in range(count)), axis=1)
    total = writer.row_sums(together, keep=1)
    none = writer.add("Equal", total, writer.constant(np.zeros(1)))
    shares = writer.add("Div", together, total)
    return str(writer.add("Where", none, writer.constant(np.full(count, 1.0 / count)), shares))


def _calibrator(writer: Writer, scores: str, calibrator: Any) -> str:
    if hasattr(calibrator, "X_thresholds_"):
        return interpolated(writer, scores, calibrator)
    # Platt: 1 / (1 + exp(a * score + b)).
    moved = writer.plus(writer.times(scores, -calibrator.a_), -calibrator.b_)
    return str(writer.add("Sigmoid", moved))


def _temperature(writer: Writer, scores: str, each: Any) -> str:
    """``sklearn.calibration._convert_to_logits``, whose answer hangs on the rows beside."""
    if hasattr(each.estimator, "decision_function"):
        if len(each.classes) == 2:
            last = writer.add("Gather", scores, writer.constant([-1]), axis=1)
            scores = writer.add("Concat", writer.times(last, -1.0), last, axis=1)
    else:
        scores = writer.add("Log", writer.plus(scores, _TINY))
    beta = float(each.calibrators[0].beta_)
    return str(writer.add("Softmax", writer.times(scores, beta), axis=1))


# Thresholds.


def _threshold(writer: Writer) -> None:
    model = writer.model
    classes = np.asarray(model.classes_)
    positive = getattr(model, "pos_label", None)
    if positive is None and isinstance(model, TunedThresholdClassifierCV):
        positive = getattr(model, "_curve_scorer", None) and model._curve_scorer._get_pos_label()
    place = 1 if positive is None else int(np.flatnonzero(classes == positive)[0])
    threshold = getattr(model, "best_threshold_", getattr(model, "threshold", 0.5))
    probable = hasattr(model.estimator_, "predict_proba")
    if model.response_method == "decision_function" or not probable:
        raise UnsupportedError(
            f"the {type(model).__name__} sets a threshold on decisions, not on probabilities",
            hint='fit it with response_method="predict_proba"',
        )
    threshold = 0.5 if threshold == "auto" else float(threshold)
    probabilities = writer.cast(writer.inputs[-1], writer.dtype)
    score = writer.add("Gather", probabilities, writer.constant(place), axis=1)
    above = writer.add("GreaterOrEqual", score, writer.constant(np.asarray(threshold)))
    order = classes if place else classes[::-1]
    label = writer.add("Gather", writer.constant(order), writer.cast(above, np.int64), axis=0)
    writer.give(label, probabilities)


# Several outputs.


def _several(model: Any) -> list[Part]:
    scores = hasattr(model, "predict_proba")
    return [Part(each, "all" if scores else "labels") for each in model.estimators_]


def _stack_labels(writer: Writer) -> None:
    probable = hasattr(writer.model, "predict_proba")
    labels = writer.inputs[::2] if probable else writer.inputs
    writer.give(_columns(writer, labels), *(writer.inputs[1::2] if probable else ()))


def _columns(writer: Writer, vectors: list[str]) -> str:
    shaped = [writer.add("Reshape", vector, writer.constant([-1, 1])) for vector in vectors]
    return str(writer.add("Concat", *shaped, axis=1))


def _chain_of_classifiers(model: Any) -> list[Part]:
    method = getattr(model, "chain_method", "predict")
    if method != "predict":
        raise UnsupportedError(
            f'a ClassifierChain with chain_method="{method}" cannot be exported',
            hint='fit it with chain_method="predict"',
        )
    probable = hasattr(model, "predict_proba")
    return [Part(e, "all" if probable else "labels", after=True) for e in model.estimators_]


def _classifier_chain(writer: Writer) -> None:
    model = writer.model
    probable = hasattr(model, "predict_proba")
    places = np.argsort(model.order_)
    labels = writer.inputs[::2] if probable else writer.inputs
    answers = [_columns(writer, [labels[i] for i in places])]
    if probable:
        positive = [
            writer.add("Gather", writer.inputs[2 * i + 1], writer.constant([-1]), axis=1)
            for i in places
        ]
        answers.append(writer.add("Concat", *positive, axis=1))
    writer.give(*answers)


def _chain_of_regressors(model: Any) -> list[Part]:
    return [Part(each, "values", after=True) for each in model.estimators_]


def _regressor_chain(writer: Writer) -> None:
    places = np.argsort(writer.model.order_)
    writer.give(_columns(writer, [writer.inputs[i] for i in places]))


# One part.


def _eliminated(model: Any) -> list[Part]:
    chosen = ChosenColumns(np.flatnonzero(model.support_).tolist())
    steps = Pipeline([("columns", chosen), ("model", model.estimator_)])
    return [Part(steps, "all" if is_classifier(model) else "values")]


def _as_they_are(writer: Writer) -> None:
    writer.give(*writer.inputs)


def _transformed_target(model: Any) -> list[Part]:
    return [
        Part(Pipeline([("model", model.regressor_), ("i", Inverse(model.transformer_))]), "values")
    ]


def _preprocessed(model: Any) -> list[Part]:
    """The encoder of categories that histogram gradient boosting brings along."""
    before = getattr(model.model, "_preprocessor", None)
    if before is None:
        return [Part(ChosenColumns(None), "values")]
    by_number = copy.copy(before)
    by_number.transformers_ = [
        (name, step, np.flatnonzero(mask).tolist()) for name, step, mask in before.transformers_
    ]
    return [Part(by_number, "values")]


METAS: Final[dict[type, Meta]] = {
    BoostedClassifier: Meta(_preprocessed, boosted),
    BoostedRegressor: Meta(_preprocessed, boosted),
    CalibratedClassifierCV: Meta(_calibrated, _calibrate),
    ClassifierChain: Meta(_chain_of_classifiers, _classifier_chain),
    FixedThresholdClassifier: Meta(lambda m: [Part(m.estimator_, "all")], _threshold),
    FrozenEstimator: Meta(
        lambda m: [Part(m.estimator, "all" if is_classifier(m) else "values")], _as_they_are
    ),
    MultiOutputClassifier: Meta(_several, _stack_labels),
    RegressorChain: Meta(_chain_of_regressors, _regressor_chain),
    RFE: Meta(_eliminated, _as_they_are),
    RFECV: Meta(_eliminated, _as_they_are),
    SelfTrainingClassifier: Meta(lambda m: [Part(m.estimator_, "all")], _as_they_are),
    TransformedTargetRegressor: Meta(_transformed_target, _as_they_are),
    TunedThresholdClassifierCV: Meta(lambda m: [Part(m.estimator_, "all")], _threshold),
}
