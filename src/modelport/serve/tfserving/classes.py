"""What classify and regress of TensorFlow Serving answer.

A TensorFlow model has a signature of its own for each; here both follow from the one signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelport.core.errors import InputError
from modelport.core.signature import Signature
from modelport.core.tensors import STRING, Array


@dataclass(frozen=True, slots=True)
class ClassOutputs:
    """Which outputs are classes.

    Parameters
    ----------
    scores : str
        Floating, ``[N]`` or ``[N, classes]``.
    labels : str
        Text of the shape of the scores; empty: none, the position is the label.
    """

    scores: str
    labels: str = ""


def class_outputs(signature: Signature) -> ClassOutputs:
    """Which outputs classify answers: texts with scores beside them, else scores of all classes.

    A floating output ``[N, classes]`` has scores; several are told apart by the names
    ``probabilities`` and ``scores``. Distances are none: the nearest would be the worst.

    Raises
    ------
    InputError
        When the model is no classifier.
    """
    texts = [spec for spec in signature.outputs if spec.dtype == STRING]
    floats = [spec for spec in signature.outputs if spec.numpy_dtype.kind == "f" and spec.shape]
    for label in texts:
        beside = [spec for spec in floats if spec.shape == label.shape]
        if len(beside) == 1 and 1 <= len(label.shape) <= 2:
            return ClassOutputs(beside[0].name, label.name)
    scores = [
        spec
        for spec in floats
        if len(spec.shape) == 2 and spec.shape[1] not in (0, 1) and spec.name != "distances"
    ]
    named = {spec.name: spec for spec in scores}
    for name in ("probabilities", "scores"):
        if name in named:
            return ClassOutputs(name)
    if len(scores) == 1:
        return ClassOutputs(scores[0].name)
    raise InputError(
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict; the model has no output with the scores of classes"
    )


def value_output(signature: Signature) -> str:
    """Which output regress answers: the one floating output, with one value per row.

    Raises
    ------
    InputError
        When the model is no regressor.
    """
    floats = [spec for spec in signature.outputs if spec.numpy_dtype.kind == "f"]
    if (
        len(floats) == 1
        and (len(floats[0].shape) == 1 or (len(floats[0].shape) == 2 and floats[0].shape[1] == 1))
        and not any(spec.dtype == STRING for spec in signature.outputs)
    ):
        return floats[0].name
    raise InputError(
        "Expected regression signature method_name to be tensorflow/serving/regress. "
        "Was: tensorflow/serving/predict; the model has no single output with one number per row"
    )


def classes_of(
    outputs: Mapping[str, Array], chosen: ClassOutputs, signature: Signature
) -> tuple[list[list[str]], Array]:
    """Per row the labels, and their scores.

    Returns
    -------
    list of list of str
        The labels: the model's texts, the names of the scores' columns, or their positions.
    ndarray
        ``[N, classes]``, floating.
    """
    scores = outputs[chosen.scores]
    scores = scores.reshape(len(scores), -1)
    if chosen.labels:
        labels = outputs[chosen.labels].reshape(scores.shape)
        return [[_text(item) for item in row] for row in labels.tolist()], scores
    columns = signature.outputs_by_name[chosen.scores].columns
    width = scores.shape[1]
    names = list(columns) if len(columns) == width else [str(i) for i in range(width)]
    return [names] * len(scores), scores


def _text(item: Any) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
