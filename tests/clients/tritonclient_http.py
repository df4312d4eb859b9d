"""NVIDIA's HTTP client, sync and aio. Arguments: ``host:port`` and how many models there are.

The server has ``same-DTYPE`` (x → y, shape [N, 2]) for every element type, ``cube`` ([N, M, 2]),
``scalar``, ``classifier``, ``two``, ``dense`` in versions 1 and 2, and ``later`` in its store.
"""

from __future__ import annotations

import asyncio
import http.client
import inspect
import sys
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.http as sync_http
import tritonclient.http.aio as aio_http
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

VALUES = {
    "bool": np.array([[True, False], [False, True]]),
    **{
        name: np.array([[np.iinfo(name).min, np.iinfo(name).max], [0, 1]], name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    **{
        name: np.array([[np.finfo(name).max, -0.0], [np.inf, np.nan]], name)
        for name in ("float16", "float32", "float64")
    },
    "string": np.array([["", "grüße"], ["日本語\x00", 'quo"te\\']], object),
}
LARGE = np.random.default_rng(0).normal(size=(8000, 2)).astype(np.float32)


def put(name: str, values: Any, binary: bool = True, datatype: str = "") -> Any:
    datatype = datatype or np_to_triton_dtype(values.dtype)
    tensor = sync_http.InferInput(name, list(values.shape), datatype)
    return tensor.set_data_from_numpy(values, binary_data=binary)


def want(name: str, **how: Any) -> Any:
    return sync_http.InferRequestedOutput(name, **how)


def same(got: Any, expected: Any) -> None:
    assert got.shape == expected.shape, (got.shape, expected.shape)
    if expected.dtype == object:
        texts = [t.decode() if isinstance(t, bytes) else t for t in got.ravel()]
        assert texts == expected.ravel().tolist(), texts
        return
    assert got.dtype == expected.dtype, (got.dtype, expected.dtype)
    assert np.array_equal(got, expected, equal_nan=expected.dtype.kind == "f"), (got, expected)


class Both:
    """Calls the sync client, or the aio one from outside its loop."""

    def __init__(self, client: Any, runner: Any = None) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **named: Any) -> Any:
            result = method(*args, **named)
            return self._runner.run(result) if inspect.isawaitable(result) else result

        return call

    def refused(self, status: str, part: str, name: str, *args: Any, **named: Any) -> None:
        error = None
        try:
            getattr(self, name)(*args, **named)
        except InferenceServerException as raised:
            error = raised
        assert error is not None, f"{name} {args} was not refused"
        assert error.status() == status, (error.status(), error.message())
        assert part in error.message(), error.message()


def health_and_metadata(client: Both) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("dense")
    assert client.is_model_ready("dense", "1")
    assert not client.is_model_ready("nothing")
    assert not client.is_model_ready("dense", "9")
    assert client.get_server_metadata()["name"] == "modelport"
    metadata = client.get_model_metadata("dense")
    assert metadata["versions"] == ["1", "2"]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 8]}]
    client.refused("404", "nothing", "get_model_metadata", "nothing")
    client.refused("404", "9", "get_model_metadata", "dense", "9")


def configuration(client: Both) -> None:
    for model in ("dense", "classifier", "scalar", "cube", "same-string", "same-float16"):
        config = client.get_model_config(model)
        message = json_format.ParseDict(config, model_config_pb2.ModelConfig())
        assert message.name == model
        assert (message.max_batch_size > 0) == (model != "scalar")
    assert message.input[0].data_type == model_config_pb2.TYPE_FP16
    client.refused("404", "nothing", "get_model_config", "nothing")


def every_datatype(client: Both) -> None:
    for dtype, values in VALUES.items():
        model = f"same-{dtype}"
        same(client.infer(model, [put("x", values)]).as_numpy("y"), values)  # the defaults
        chosen = client.infer(model, [put("x", values)], outputs=[want("y", binary_data=True)])
        same(chosen.as_numpy("y"), values)
        if dtype == "float16":
            for binary, outputs in ((False, None), (True, [want("y", binary_data=False)])):
                tensors = [put("x", values, binary)]
                client.refused("400", "FP16", "infer", model, tensors, outputs=outputs)
            continue
        for binary in (False, True):
            outputs = [want("y", binary_data=False)]
            result = client.infer(model, [put("x", values, binary)], outputs=outputs)
            assert "data" in result.get_output("y")
            same(result.as_numpy("y"), values)
        same(client.infer(model, [put("x", values, False)]).as_numpy("y"), values)


def bytes_and_bfloat16(client: Both) -> None:
    texts = np.array([[b"a", "grüße".encode()]], object)
    assert client.infer("same-string", [put("x", texts)]).as_numpy("y").tolist() == texts.tolist()
    raw = np.array([[b"\xff", b""]], object)
    client.refused("400", "UTF-8", "infer", "same-string", [put("x", raw)])
    halves = np.array([[1.5, -3.25], [np.inf, 1e38]], ml_dtypes.bfloat16)
    got = client.infer("same-float32", [put("x", halves)]).as_numpy("y")
    same(got, halves.astype(np.float32))
    client.refused("400", "BF16", "infer", "same-float64", [put("x", halves)])


def odd_shapes(client: Both) -> None:
    for shape in ((0, 3, 2), (2, 0, 2), (1, 1, 2)):
        values = np.zeros(shape, np.float32)
        for binary in (False, True):
            got = client.infer("cube", [put("x", values, binary)]).as_numpy("y")
            same(got, values)
            outputs = [want("y", binary_data=not binary)]
            got = client.infer("cube", [put("x", values, binary)], outputs=outputs)
            same(got.as_numpy("y"), values)
    empty = np.zeros((0, 2), object)
    assert client.infer("same-string", [put("x", empty)]).as_numpy("y").shape == (0, 2)
    scalar = np.array(2.5, np.float32)
    same(client.infer("scalar", [put("x", scalar)]).as_numpy("y"), scalar)


def outputs_and_parameters(client: Both) -> None:
    rows = np.array([[1, 5, 3], [9, 0, 2]], np.float32)
    result = client.infer(
        "classifier",
        [put("x", rows)],
        outputs=[want("label", binary_data=False), want("scores", class_count=2)],
        request_id="grüße 42",
        sequence_id=7,
        sequence_start=True,
        priority=3,
        timeout=10**6,
        parameters={"mine": 1, "yours": "a", "flag": True},
    )
    assert result.get_response()["id"] == "grüße 42"
    assert result.get_response()["model_version"] == "1"
    assert result.as_numpy("label").tolist() == [1, 0]
    best = result.as_numpy("scores")
    assert best.shape == (2, 2)
    assert [text.decode().split(":")[1] for text in best.ravel()] == ["1", "2", "0", "2"]
    assert result.as_numpy("other") is None

    a, b = np.array([[1, 2, 3]], np.float32), np.array([[4, 5]])
    assert client.infer("two", [put("b", b), put("a", a, False)]).as_numpy("total").tolist() == [15]


def compression(client: Both) -> None:
    for sent in (None, "gzip", "deflate"):
        for returned in (None, "gzip", "deflate"):
            for values in (LARGE, VALUES["float32"]):
                result = client.infer(
                    "same-float32",
                    [put("x", values)],
                    request_compression_algorithm=sent,
                    response_compression_algorithm=returned,
                )
                same(result.as_numpy("y"), values)
                result = client.infer(
                    "same-float32",
                    [put("x", values, False)],
                    outputs=[want("y", binary_data=False)],
                    request_compression_algorithm=sent,
                    response_compression_algorithm=returned,
                )
                same(result.as_numpy("y"), values)


def versions(client: Both) -> None:
    rows = np.ones((1, 8), np.float32)
    answers = [
        client.infer("dense", [put("x", rows)], model_version=version) for version in ("1", "2", "")
    ]
    got = [answer.get_response()["model_version"] for answer in answers]
    assert got == ["1", "2", "2"], got
    values = [answer.as_numpy("y").item() for answer in answers]
    assert values[0] != values[1] == values[2]


def errors(client: Both) -> None:
    rows = np.ones((1, 8), np.float32)
    client.refused("404", "model not found: nothing", "infer", "nothing", [put("x", rows)])
    client.refused("404", "9", "infer", "dense", [put("x", rows)], model_version="9")
    client.refused("400", "unknown input: z", "infer", "dense", [put("z", rows)])
    client.refused("400", "expected FP32", "infer", "dense", [put("x", rows.astype(np.float64))])
    client.refused("400", "[1, 7]", "infer", "dense", [put("x", rows[:, :7])])
    client.refused("400", "other", "infer", "dense", [put("x", rows)], outputs=[want("other")])
    shared = sync_http.InferInput("x", [1, 8], "FP32")
    shared.set_shared_memory("region", 32)
    client.refused("400", "shared memory", "infer", "dense", [shared])
    output = sync_http.InferRequestedOutput("y")
    output.set_shared_memory("region", 32)
    client.refused("400", "shared memory", "infer", "dense", [put("x", rows)], outputs=[output])
    client.refused("404", "Not Found", "get_system_shared_memory_status")
    client.refused("404", "Not Found", "get_trace_settings")


def statistics(client: Both) -> None:
    def of(version: str) -> Any:
        (found,) = client.get_inference_statistics("dense", version)["model_stats"]
        message = json_format.ParseDict(found, service_pb2.ModelStatistics())
        assert (message.name, message.version) == ("dense", version)
        return message

    before = of("1")
    client.infer("dense", [put("x", np.ones((5, 8), np.float32))], model_version="1")
    bad = [put("x", np.ones((5, 7), np.float32))]
    client.refused("400", "[5, 7]", "infer", "dense", bad, model_version="1")
    after = of("1")
    assert after.inference_count == before.inference_count + 5
    assert after.execution_count == before.execution_count + 1
    assert after.last_inference > before.last_inference
    for kind in ("success", "fail", "compute_input", "compute_infer", "compute_output"):
        old, new = getattr(before.inference_stats, kind), getattr(after.inference_stats, kind)
        assert new.count == old.count + 1, kind
        assert new.ns > old.ns, kind
    assert 5 in [batch.batch_size for batch in after.batch_stats]
    assert len(client.get_inference_statistics("dense")["model_stats"]) == 2
    everything = client.get_inference_statistics()["model_stats"]
    assert {"dense", "classifier"} <= {found["name"] for found in everything}
    client.refused("404", "nothing", "get_inference_statistics", "nothing")


def repository(client: Both, models: int) -> None:
    def ready() -> set[str]:
        index = client.get_model_repository_index()
        return {item["name"] for item in index if item["state"] == "READY"}

    extensions = client.get_server_metadata()["extensions"]
    assert {"model_repository", "statistics", "binary_tensor_data"} <= set(extensions)
    assert len(client.get_model_repository_index()) >= models
    assert "later" not in ready()
    client.load_model("later")
    assert "later" in ready()
    assert client.is_model_ready("later")
    rows = np.ones((1, 8), np.float32)
    assert client.infer("later", [put("x", rows)]).as_numpy("y").shape == (1, 1)
    client.unload_model("later", unload_dependents=True)
    assert "later" not in ready()
    assert not client.is_model_ready("later")
    client.refused("503", "later", "infer", "later", [put("x", rows)])
    client.refused("404", "nothing", "load_model", "nothing")
    client.refused("404", "nothing", "unload_model", "nothing")
    client.refused("400", "config", "load_model", "later", config="{}")
    files = {"file:1/model.onnx": b"abc"}
    client.refused("400", "config", "load_model", "later", config="{}", files=files)


CASES = (
    health_and_metadata, configuration, every_datatype, bytes_and_bfloat16, odd_shapes,
    outputs_and_parameters, compression, versions, errors, statistics,
)  # fmt: skip


def only_sync(address: str) -> None:
    """What the aio client does not have: greenlets, and requests that are built apart."""
    rows = np.ones((3, 8), np.float32)
    with sync_http.InferenceServerClient(address, concurrency=4) as client:
        running = [client.async_infer("dense", [put("x", rows * i)]) for i in range(16)]
        for i, job in enumerate(running):
            expected = client.infer("dense", [put("x", rows * i)]).as_numpy("y")
            # A row may run together with others; float32 sums differ in the last bits then.
            np.testing.assert_allclose(job.get_result().as_numpy("y"), expected, rtol=1e-5)

    body, size = sync_http.InferenceServerClient.generate_request_body([put("x", LARGE)])
    connection = http.client.HTTPConnection(address)
    for coding in ("gzip", "deflate"):
        headers = {"Inference-Header-Content-Length": str(size), "Accept-Encoding": coding}
        connection.request("POST", "/v2/models/same-float32/infer", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200
        assert answer.getheader("content-encoding") == coding
        assert len(content) < LARGE.nbytes
        result = sync_http.InferenceServerClient.parse_response_body(
            content,
            header_length=int(answer.getheader("Inference-Header-Content-Length")),
            content_encoding=coding,
        )
        same(result.as_numpy("y"), LARGE)


def main() -> None:
    address, models = sys.argv[1], int(sys.argv[2])
    with sync_http.InferenceServerClient(address) as plain:
        client = Both(plain)
        for case in CASES:
            case(client)
            print(f"sync: {case.__name__}")
        repository(client, models)
        print("sync: repository")
    only_sync(address)
    print("sync: only_sync")

    with asyncio.Runner() as runner:

        async def opened() -> Any:
            return aio_http.InferenceServerClient(address)

        plain = runner.run(opened())
        client = Both(plain, runner)
        for case in CASES:
            case(client)
            print(f"aio: {case.__name__}")
        repository(client, models)
        print("aio: repository")
        runner.run(plain.close())


if __name__ == "__main__":
    main()
