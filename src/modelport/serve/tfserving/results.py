"""The results of classify and regress as TensorFlow Serving's gRPC API has them.

Source: ``tensorflow/serving`` (``apis/{classification,regression,model}.proto``).
"""

from __future__ import annotations

from collections.abc import Mapping

from modelport.core.tensors import Array
from modelport.serve.base import ModelIdentity
from modelport.serve.tfserving import classes as class_results
from modelport.serve.tfserving.models import REGRESS, SIGNATURE_NAME
from modelport.serve.tfserving.tensor_proto import field, varint


def result_message(method: str, outputs: Mapping[str, Array], model: ModelIdentity) -> bytes:
    """The wire bytes of a ``ClassificationResult`` or a ``RegressionResult``.

    Parameters
    ----------
    method : str
        ``tensorflow/serving/classify`` or ``…/regress``.
    outputs : mapping of str to ndarray
    model : ModelIdentity
    """
    signature = model.signature
    if method == REGRESS:
        values = outputs[class_results.value_output(signature)].reshape(-1)
        return b"".join(field(1, b"\x0d" + item) for item in _floats(values))
    chosen = class_results.class_outputs(signature)
    labels, scores = class_results.classes_of(outputs, chosen, signature)
    rows = []
    for texts, row in zip(labels, scores, strict=True):
        classes = (
            field(1, field(1, text.encode()) + b"\x15" + item)
            for text, item in zip(texts, _floats(row), strict=True)
        )
        rows.append(field(1, b"".join(classes)))
    return b"".join(rows)


def _floats(values: Array) -> list[bytes]:
    """Each value in the four bytes of a float."""
    raw = values.astype("<f4").tobytes()
    return [raw[i : i + 4] for i in range(0, len(raw), 4)]


def model_spec(model: ModelIdentity) -> bytes:
    """The wire bytes of a ``ModelSpec`` that says what answered."""
    version = field(2, b"\x08" + varint(model.version))
    return field(1, model.name.encode()) + version + field(3, SIGNATURE_NAME.encode())
