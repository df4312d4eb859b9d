"""TensorFlow Serving over gRPC, against its contract, and by OpenVINO's client over both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from clients import run_client
from hypothesis import given
from hypothesis import strategies as st

from modelport.core.errors import ModelportError
from modelport.core.signature import Signature
from modelport.core.tensors import TensorSpec
from modelport.serve.base import ModelIdentity, Request
from modelport.serve.protocols.tfserving_grpc import TensorFlowServingGrpc
from modelport.serve.protos import message
from modelport.serve.tfserving.tensor_proto import NUMBERS

from . import onnx_models
from .packages import build_package, reference
from .running import RunningServer, free_port

PREDICTION = "/tensorflow.serving.PredictionService"
MODEL = "/tensorflow.serving.ModelService"
ROWS = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
TEXT = np.array(["plain", "grüße"], object)
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def packages(folder: Path) -> list[Path]:
    def package(name: str, model: bytes, version: str = "", **golden: Any) -> Path:
        inputs = {key: np.asarray(value) for key, value in golden.items()}
        return build_package(folder / f"{name}{version}", name, model, inputs).path

    floats = np.array([[1, 2], [3, 4]], np.float32)
    return [
        package("dense", onnx_models.dense(0), x=ROWS),
        package("dense", onnx_models.dense(1), "-2", x=ROWS),
        package("two", onnx_models.sum_of_two(), a=ROWS[:2, :3], b=np.array([[1, 2], [3, 4]])),
        package("classifier", onnx_models.classifier(), x=ROWS[:, :3]),
        package("text", onnx_models.identity("string", ("N",)), x=TEXT),
        package("vector", onnx_models.identity("float32", ("N",)), x=floats[0]),
        *(
            package(f"same-{dtype}", onnx_models.identity(dtype), x=floats.astype(dtype))
            for dtype in onnx_models.NUMERIC_TYPES
        ),
    ]


class Rpc:
    """Calls methods of a server by their paths."""

    def __init__(self, server: RunningServer, port: int) -> None:
        self.server = server
        self.port = port
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def raw(self, path: str, body: bytes) -> bytes:
        answer: bytes = self.channel.unary_unary(path)(body, timeout=30)
        return answer

    def call(self, path: str, request: Any, answer: str) -> Any:
        raw = self.raw(path, request.SerializeToString())
        return message(f"tensorflow.serving.{answer}").FromString(raw)

    def refuse(self, path: str, request: Any) -> tuple[str, str]:
        """The code and the text of an error."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        with pytest.raises(grpc.RpcError) as caught:
            self.raw(path, body)
        return caught.value.code().name, caught.value.details()


@pytest.fixture(scope="module")
def rpc(module_path: Path) -> Iterator[Rpc]:
    port = free_port()
    flags = ["--grpc-port", str(port)]
    with RunningServer(module_path / "server", packages(module_path), flags) as server:
        client = Rpc(server, port)
        yield client
        client.channel.close()


def new(name: str, model: str = "", **fields: Any) -> Any:
    request = message(f"tensorflow.serving.{name}")(**fields)
    if model:
        request.model_spec.name = model
    return request


def put(proto: Any, array: Any) -> None:
    """Fill a ``TensorProto`` with the raw bytes of an array."""
    array = np.asarray(array)
    proto.dtype = NUMBERS[array.dtype.name]
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_content = array.tobytes()


def predict(model: str, **inputs: Any) -> Any:
    request = new("PredictRequest", model)
    for name, array in inputs.items():
        put(request.inputs[name], array)
    return request


def test_predict_and_what_answered(rpc: Rpc) -> None:
    for version, seed in ((None, 1), (0, 1), (1, 0), (2, 1)):
        request = predict("dense", x=ROWS)
        if version is not None:
            request.model_spec.version.value = version
        answer = rpc.call(f"{PREDICTION}/Predict", request, "PredictResponse")
        expected = reference(onnx_models.dense(seed), {"x": ROWS})["y"]
        assert list(answer.outputs) == ["y"]
        assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [5, 1]
        np.testing.assert_allclose(answer.outputs["y"].float_val, expected.ravel(), rtol=1e-5)
        assert answer.model_spec.name == "dense"
        assert answer.model_spec.version.value == (version or 2)
        assert answer.model_spec.signature_name == "serving_default"


def test_output_filter(rpc: Rpc) -> None:
    request = predict("classifier", x=np.eye(3, dtype=np.float32))
    for wanted in ([], ["label"], ["scores"], ["scores", "label"]):
        del request.output_filter[:]
        request.output_filter.extend(wanted)
        answer = rpc.call(f"{PREDICTION}/Predict", request, "PredictResponse")
        assert set(answer.outputs) == set(wanted or ["label", "scores"])
    for wanted, text in ((["other"], "not found in signature: other"), (["label"] * 2, "dupl")):
        del request.output_filter[:]
        request.output_filter.extend(wanted)
        code, error = rpc.refuse(f"{PREDICTION}/Predict", request)
        assert code == "INVALID_ARGUMENT"
        assert text in error


def test_inputs_must_match(rpc: Rpc) -> None:
    request = predict("two", a=np.ones((1, 3), np.float32), c=np.ones(1))
    code, error = rpc.refuse(f"{PREDICTION}/Predict", request)
    assert code == "INVALID_ARGUMENT"
    assert error == (
        "input size does not match signature: 2!=2. Sent extra: {c}. Missing but required: {b}."
    )
    code, error = rpc.refuse(f"{PREDICTION}/Predict", predict("dense", x=np.ones((1, 8))))
    assert (code, "DT_DOUBLE, expected DT_FLOAT" in error) == ("INVALID_ARGUMENT", True)
    code, error = rpc.refuse(f"{PREDICTION}/Predict", predict("dense"))
    assert (code, "Missing but required: {x}" in error) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (f"{PREDICTION}/Predict", "PredictRequest"),
        (f"{PREDICTION}/Classify", "ClassificationRequest"),
        (f"{PREDICTION}/Regress", "RegressionRequest"),
        (f"{PREDICTION}/GetModelMetadata", "GetModelMetadataRequest"),
        (f"{MODEL}/GetModelStatus", "GetModelStatusRequest"),
    ],
)
def test_models_that_are_not_there(rpc: Rpc, method: str, name: str) -> None:
    more = {"metadata_field": ["signature_def"]} if "Metadata" in method else {}
    status = method.endswith("Status")
    code, error = rpc.refuse(method, new(name, "nothing", **more))
    assert code == "NOT_FOUND"
    assert error.startswith(
        "Could not find any versions of model nothing"
        if status
        else "Servable not found for request: Latest(nothing); there is: "
    )
    request = new(name, "dense", **more)
    for version in (7, -1, 2**63 - 1):
        request.model_spec.version.value = version
        code, error = rpc.refuse(method, request)
        assert code == "NOT_FOUND"
        assert str(version) in error
    if not status:
        request.model_spec.version_label = "stable"
        code, error = rpc.refuse(method, request)
        assert code == "INVALID_ARGUMENT"
        assert error.startswith("Unrecognized servable version label: stable")
    assert rpc.refuse(method, new(name)) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    unnamed = new(name)
    unnamed.model_spec.signature_name = "serving_default"
    code, error = rpc.refuse(method, unnamed)
    assert (code, error) == ("INVALID_ARGUMENT", "ModelSpec has no name specified.")
    code, error = rpc.refuse(method, b"\xff\xff")
    assert code == "INVALID_ARGUMENT"


def test_signature_names(rpc: Rpc) -> None:
    request = predict("dense", x=ROWS)
    request.model_spec.signature_name = "serving_default"
    rpc.call(f"{PREDICTION}/Predict", request, "PredictResponse")
    request.model_spec.signature_name = "other"
    code, error = rpc.refuse(f"{PREDICTION}/Predict", request)
    assert code == "FAILED_PRECONDITION"
    assert error.startswith('Serving signature name: "other" not found in signature def')
    request = examples("ClassificationRequest", "classifier", {"x": [1.0, 2.0, 3.0]})
    request.model_spec.signature_name = "other"
    assert rpc.refuse(f"{PREDICTION}/Classify", request)[0] == "INVALID_ARGUMENT"


def fill(example: Any, features: dict[str, list[Any]]) -> None:
    for name, values in features.items():
        kind = {float: "float_list", int: "int64_list", bytes: "bytes_list"}[type(values[0])]
        getattr(example.features.feature[name], kind).value.extend(values)


def examples(kind: str, model: str, *rows: dict[str, Any], context: Any = None) -> Any:
    request = new(kind, model)
    given = request.input.example_list
    if context is not None:
        given = request.input.example_list_with_context
        fill(given.context, context)
    given.SetInParent()
    for row in rows:
        fill(given.examples.add(), row)
    return request


def test_classify(rpc: Rpc) -> None:
    rows = [[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]]
    request = examples("ClassificationRequest", "classifier", *({"x": row} for row in rows))
    answer = rpc.call(f"{PREDICTION}/Classify", request, "ClassificationResponse")
    expected = reference(onnx_models.classifier(), {"x": np.array(rows, np.float32)})["scores"]
    found = answer.result.classifications
    assert [[c.label for c in item.classes] for item in found] == [["0", "1", "2"]] * 2
    scores = [[c.score for c in item.classes] for item in found]
    np.testing.assert_array_equal(np.array(scores, np.float32), expected)
    assert answer.model_spec.version.value == 1


def test_regress_with_context(rpc: Rpc) -> None:
    first, common = {"x": ROWS[0].tolist()}, {"x": ROWS[1].tolist()}
    request = examples("RegressionRequest", "dense", first, {"y": [1]}, context=common)
    answer = rpc.call(f"{PREDICTION}/Regress", request, "RegressionResponse")
    expected = reference(onnx_models.dense(1), {"x": ROWS[:2]})["y"].ravel()
    values = [item.value for item in answer.result.regressions]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert answer.model_spec.version.value == 2


@pytest.mark.parametrize(
    ("method", "request_", "text"),
    [
        (
            "Regress",
            examples("RegressionRequest", "classifier", {"x": [1.0]}),
            "Expected reg",
        ),
        ("Classify", examples("ClassificationRequest", "dense", {"x": [1.0]}), "Expected classif"),
        ("Classify", new("ClassificationRequest", "classifier"), "Input is empty"),
        ("Classify", examples("ClassificationRequest", "classifier"), "Input is empty"),
        ("Classify", examples("ClassificationRequest", "classifier", {"z": [1.0]}), "Feature: x"),
        ("Classify", examples("ClassificationRequest", "classifier", {"x": [1.0]}), "expected 3"),
        ("Classify", examples("ClassificationRequest", "classifier", {"x": [b"a"] * 3}), "match"),
    ],
)
def test_examples_that_do_not_fit(rpc: Rpc, method: str, request_: Any, text: str) -> None:
    code, error = rpc.refuse(f"{PREDICTION}/{method}", request_)
    assert code == "INVALID_ARGUMENT"
    assert text in error


def tasks(*methods: str, model: str = "classifier") -> Any:
    request = examples("MultiInferenceRequest", "", {"x": [1.0, 2.0, 3.0]})
    for method in methods:
        task = request.tasks.add(method_name=method)
        task.model_spec.name = model
    return request


def test_multi_inference(rpc: Rpc) -> None:
    path = f"{PREDICTION}/MultiInference"
    answer = rpc.call(path, tasks(CLASSIFY), "MultiInferenceResponse")
    (result,) = answer.results
    assert result.model_spec.name == "classifier"
    assert [c.label for c in result.classification_result.classifications[0].classes] == [*"012"]
    request = tasks(REGRESS, model="dense")
    del request.input.example_list.examples[:]
    fill(request.input.example_list.examples.add(), {"x": ROWS[0].tolist()})
    answer = rpc.call(path, request, "MultiInferenceResponse")
    assert len(answer.results[0].regression_result.regressions) == 1

    assert rpc.refuse(path, tasks())[0] == "INVALID_ARGUMENT"
    assert rpc.refuse(path, tasks("tensorflow/serving/predict"))[0] == "UNIMPLEMENTED"
    code, error = rpc.refuse(path, tasks(CLASSIFY, CLASSIFY))
    assert (code, "Duplicate evaluation of signature" in error) == ("INVALID_ARGUMENT", True)
    mixed = tasks(CLASSIFY, CLASSIFY)
    mixed.tasks[1].model_spec.name = "dense"
    code, error = rpc.refuse(path, mixed)
    assert (code, "must access the same model" in error) == ("INVALID_ARGUMENT", True)


def test_metadata(rpc: Rpc) -> None:
    path = f"{PREDICTION}/GetModelMetadata"
    request = new("GetModelMetadataRequest", "two", metadata_field=["signature_def"])
    answer = rpc.call(path, request, "GetModelMetadataResponse")
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("two", 1)
    packed = answer.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    definitions = message("tensorflow.serving.SignatureDefMap").FromString(packed.value)
    definition = definitions.signature_def["serving_default"]
    assert definition.method_name == "tensorflow/serving/predict"
    assert {name: info.dtype for name, info in definition.inputs.items()} == {"a": 1, "b": 9}
    assert [dim.size for dim in definition.inputs["a"].tensor_shape.dim] == [-1, 3]
    assert list(definition.outputs) == ["total"]
    for fields in ([], ["other"], ["signature_def", "other"]):
        request = new("GetModelMetadataRequest", "two", metadata_field=fields)
        assert rpc.refuse(path, request)[0] == "INVALID_ARGUMENT"


@given(st.sampled_from(["Predict", "Classify", "Regress", "MultiInference"]), st.data())
def test_garbage_is_an_error_of_the_clients(method: str, data: Any) -> None:
    """Anything at all, and good messages with a few bytes changed."""
    good = {
        "Predict": predict("m", x=np.ones((3, 8), np.float32)),
        "Classify": examples("ClassificationRequest", "m", {"x": [1.0] * 8}),
        "Regress": examples("RegressionRequest", "m", {"x": [1] * 8}, context={"x": [b"a"]}),
        "MultiInference": tasks(CLASSIFY, model="m"),
    }[method]
    body = bytearray(good.SerializeToString())
    for position in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=4)):
        body[position] = data.draw(st.integers(0, 255))
    request = Request("POST", f"{PREDICTION}/{method}", {}, bytes(body))
    spec = TensorSpec("x", "float32", ("N", 8))
    scores = TensorSpec("y", "float32", ("N", "C"))
    model = ModelIdentity("m", 1, Signature((spec,), (scores,)), "")
    protocol = TensorFlowServingGrpc()
    try:
        protocol.place({}, request)
        model.signature.check(protocol.decode(request, model).inputs)
        status = 200
    except ModelportError as error:
        status = protocol.error(error).status
    assert status in (200, 400, 404, 413, 501)


def test_status(rpc: Rpc) -> None:
    request = new("GetModelStatusRequest", "dense")
    answer = rpc.call(f"{MODEL}/GetModelStatus", request, "GetModelStatusResponse")
    found = [(item.version, item.state) for item in answer.model_version_status]
    assert found == [(1, 30), (2, 30)]
    assert all(item.status.error_code == 0 for item in answer.model_version_status)


def config(*models: tuple[str, str]) -> Any:
    request = new("ReloadConfigRequest")
    request.config.model_config_list.SetInParent()
    for name, place in models:
        request.config.model_config_list.config.add(name=name, base_path=place)
    return request


RELOAD = f"{MODEL}/HandleReloadConfigRequest"


def test_reload_needs_model_control(rpc: Rpc) -> None:
    for request in (config(), config(("dense", ""))):
        code, error = rpc.refuse(RELOAD, request)
        assert code == "UNAVAILABLE"
        assert "not allowed" in error
    rpc.call(f"{PREDICTION}/Predict", predict("dense", x=ROWS), "PredictResponse")


def test_reload_replaces_the_list(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for name, version, seed in (("dense", 1, 0), ("dense", 2, 1), ("other", 1, 2)):
        build_package(store / name / str(version), name, onnx_models.dense(seed), {"x": ROWS})
    port = free_port()
    flags = ["--grpc-port", str(port), "--model-control", "--model-store", str(store)]
    with RunningServer(tmp_path / "server", [store / "dense" / "1"], flags) as server:
        rpc = Rpc(server, port)

        def reload(request: Any) -> tuple[int, str]:
            status = rpc.call(RELOAD, request, "ReloadConfigResponse").status
            return status.error_code, status.error_message

        def answers(name: str, version: int = 0) -> str:
            request = predict(name, x=ROWS)
            request.model_spec.version.value = version
            try:
                rpc.call(f"{PREDICTION}/Predict", request, "PredictResponse")
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        assert reload(config(("other", "other"))) == (0, "")
        assert (answers("other"), answers("dense")) == ("OK", "UNAVAILABLE")

        request = config(("dense", "dense"), ("other", "other"))
        policy = request.config.model_config_list.config[0].model_version_policy
        policy.specific.versions.append(2)
        assert reload(request) == (0, "")
        assert [answers("dense", v) for v in (0, 1, 2)] == ["OK", "UNAVAILABLE", "OK"]

        # What cannot be loaded leaves everything as it was.
        code, text = reload(config(("nothing", "nothing")))
        assert (code, "nothing" in text) == (5, True)
        policy.specific.versions.append(9)
        code, text = reload(request)
        assert (code, "9" in text) == (5, True)
        twice = reload(config(("other", "other"), ("other", "other")))
        assert twice[0] == 3
        assert "multiple times" in twice[1]
        labels = config(("other", "other"))
        labels.config.model_config_list.config[0].version_labels["stable"] = 1
        assert reload(labels)[0] == 12
        assert reload(new("ReloadConfigRequest"))[0] == 12
        assert reload(config(("", "other")))[0] == 3
        assert reload(config(("other", "../..")))[0] == 3
        assert (answers("dense", 2), answers("other")) == ("OK", "OK")

        assert reload(config()) == (0, "")
        assert (answers("dense"), answers("other")) == ("UNAVAILABLE", "UNAVAILABLE")
        rpc.channel.close()


def test_ovmsclient_over_http(rpc: Rpc) -> None:
    assert "errors" in run_client("ovmsclient_http", rpc.server.port)


def test_ovmsclient_over_grpc(rpc: Rpc) -> None:
    assert "half_val" in run_client("ovmsclient_grpc", rpc.port)
