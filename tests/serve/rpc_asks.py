"""How every inference method of gRPC is asked for one tensor, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from modelport.core.tensors import Array
from modelport.serve.protos import message

from .asks import DATATYPES, NUMBERS, Ask, Asked, array_of, from_raw, raw


def _grpc_raw(rows: Array, dtype: str) -> Asked:
    asked = message("inference.ModelInferRequest")(model_name="same")
    asked.inputs.add(name="x", datatype=DATATYPES[dtype], shape=rows.shape)
    asked.raw_input_contents.append(raw(rows))
    return Asked(asked.SerializeToString())


CONTENTS: Final = {
    "bool": "bool_contents", "float32": "fp32_contents", "float64": "fp64_contents",
    "int64": "int64_contents", "uint64": "uint64_contents", "string": "bytes_contents",
}  # fmt: skip


def _grpc_typed(rows: Array, dtype: str) -> Asked:
    asked = message("inference.ModelInferRequest")(model_name="same")
    added = asked.inputs.add(name="x", datatype=DATATYPES[dtype], shape=rows.shape)
    values = [item.encode() for item in rows.ravel()] if dtype == "string" else rows.ravel()
    getattr(added.contents, CONTENTS[dtype]).extend(
        values if dtype == "string" else values.tolist()
    )
    return Asked(asked.SerializeToString())


def _read_infer(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    return _from_infer(message("inference.ModelInferResponse").FromString(body), dtype)


def _read_stream(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    answer = message("inference.ModelStreamInferResponse").FromString(body)
    assert not answer.error_message
    return _from_infer(answer.infer_response, dtype)


def _from_infer(answer: Any, dtype: str) -> Array:
    (output,) = answer.outputs
    assert (output.name, output.datatype) == ("y", DATATYPES[dtype])
    if answer.raw_output_contents:
        return from_raw(answer.raw_output_contents[0], output.shape, dtype)
    values = list(getattr(output.contents, CONTENTS[dtype]))
    return array_of([v.decode() if dtype == "string" else v for v in values], dtype).reshape(
        list(output.shape)
    )


TF_TYPES: Final = {
    "bool": 10, "float32": 1, "float64": 2, "int64": 9, "uint64": 23, "string": 7,
}  # fmt: skip
TF_VALUES: Final = {
    "bool": "bool_val", "float32": "float_val", "float64": "double_val", "int64": "int64_val",
    "uint64": "uint64_val", "string": "string_val",
}  # fmt: skip


def _tf_tensor(rows: Array, dtype: str, *, whole: bool) -> Any:
    tensor = message("tensorflow.TensorProto")(dtype=TF_TYPES[dtype])
    for size in rows.shape:
        tensor.tensor_shape.dim.add(size=size)
    if whole:
        tensor.tensor_content = raw(rows)
    else:
        values = [v.encode() if dtype == "string" else v for v in rows.ravel().tolist()]
        getattr(tensor, TF_VALUES[dtype]).extend(values)
    return tensor


def _tf_predict(*, whole: bool) -> Callable[[Array, str], Asked]:
    def build(rows: Array, dtype: str) -> Asked:
        asked = message("tensorflow.serving.PredictRequest")()
        asked.model_spec.name = "same"
        asked.inputs["x"].CopyFrom(_tf_tensor(rows, dtype, whole=whole))
        return Asked(asked.SerializeToString())

    return build


def _read_tf_predict(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    outputs = message("tensorflow.serving.PredictResponse").FromString(body).outputs
    assert list(outputs) == ["y"]
    output = outputs["y"]
    assert output.dtype == TF_TYPES[dtype]
    shape = [dim.size for dim in output.tensor_shape.dim]
    if output.tensor_content:
        return from_raw(output.tensor_content, shape, dtype)
    values = list(getattr(output, TF_VALUES[dtype]))
    return array_of([v.decode() if dtype == "string" else v for v in values], dtype).reshape(shape)


def _tf_examples(kind: str, model: str) -> Callable[[Array, str], Asked]:
    def build(rows: Array, dtype: str) -> Asked:
        asked = message(f"tensorflow.serving.{kind}Request")()
        if kind == "MultiInference":
            method = "classify" if model == "same" else "regress"
            task = asked.tasks.add(method_name=f"tensorflow/serving/{method}")
            task.model_spec.name = model
        else:
            asked.model_spec.name = model
        for row in rows:
            example = asked.input.example_list.examples.add()
            example.features.feature["x"].float_list.value.extend(row.tolist())
        return Asked(asked.SerializeToString())

    return build


def _classes(result: Any) -> Array:
    rows = result.classifications
    assert all([item.label for item in row.classes] == ["0", "1"] for row in rows)
    return array_of([[item.score for item in row.classes] for row in rows], "float32")


def _values(result: Any) -> Array:
    return array_of([[item.value] for item in result.regressions], "float32")


def _read_tf_classes(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    return _classes(message("tensorflow.serving.ClassificationResponse").FromString(body).result)


def _read_tf_values(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    return _values(message("tensorflow.serving.RegressionResponse").FromString(body).result)


def _read_tf_multi(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    (result,) = message("tensorflow.serving.MultiInferenceResponse").FromString(body).results
    if result.HasField("classification_result"):
        return _classes(result.classification_result)
    return _values(result.regression_result)


V2_GRPC: Final = (("raw", _grpc_raw), ("typed", _grpc_typed))
ONE: Final = ("float32",)
_TF: Final = "/tensorflow.serving.PredictionService/"

#: (protocol, path of the method) → ways to ask it.
RPC_ASKS: Final[dict[tuple[str, str], Sequence[Ask]]] = {
    ("oip-grpc", "/inference.GRPCInferenceService/ModelInfer"): [
        Ask(name, build, _read_infer) for name, build in V2_GRPC
    ],
    ("oip-grpc", "/inference.GRPCInferenceService/ModelStreamInfer"): [
        Ask(name, build, _read_stream) for name, build in V2_GRPC
    ],
    ("tfserving-grpc", f"{_TF}Predict"): (
        Ask("typed", _tf_predict(whole=False), _read_tf_predict),
        Ask("tensor_content", _tf_predict(whole=True), _read_tf_predict, NUMBERS),
    ),
    ("tfserving-grpc", f"{_TF}Classify"): (
        Ask("examples", _tf_examples("Classification", "same"), _read_tf_classes, ONE),
    ),
    ("tfserving-grpc", f"{_TF}Regress"): (
        Ask("examples", _tf_examples("Regression", "column"), _read_tf_values, ONE, "column"),
    ),
    ("tfserving-grpc", f"{_TF}MultiInference"): (
        Ask("classify", _tf_examples("MultiInference", "same"), _read_tf_multi, ONE),
        Ask("regress", _tf_examples("MultiInference", "column"), _read_tf_multi, ONE, "column"),
    ),
}  # fmt: skip
