"""NVIDIA's gRPC client, sync and aio. Arguments: ``host:port`` and how many models there are.

The server has ``same-DTYPE`` (x → y, shape [N, 2]) for every element type, ``cube`` ([N, M, 2]),
``scalar``, ``classifier``, ``lookup`` (fails from 10 on), ``dense`` in versions 1 and 2, and
``later`` in its store.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import sys
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as sync_grpc
import tritonclient.grpc.aio as aio_grpc
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
LARGE = np.random.default_rng(0).normal(size=(200_000, 2)).astype(np.float32)


def put(name: str, values: Any, datatype: str = "") -> Any:
    datatype = datatype or np_to_triton_dtype(values.dtype)
    return sync_grpc.InferInput(name, list(values.shape), datatype).set_data_from_numpy(values)


def same(got: Any, expected: Any) -> None:
    assert got.shape == expected.shape, (got.shape, expected.shape)
    if expected.dtype == object:
        assert [item.decode() for item in got.ravel()] == expected.ravel().tolist()
        return
    assert got.dtype == expected.dtype, (got.dtype, expected.dtype)
    assert np.array_equal(got, expected, equal_nan=expected.dtype.kind == "f"), (got, expected)


class Both:
    """Calls the sync client, or the aio one from outside its loop."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self._client, self._loop = client, loop

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            result = getattr(self._client, name)(*arguments, **named)
            return self._loop.run_until_complete(result) if inspect.isawaitable(result) else result

        return call


def fails(code: str, words: str, call: Any, *arguments: Any, **named: Any) -> None:
    error = None
    try:
        call(*arguments, **named)
    except InferenceServerException as raised:
        error = raised
    assert error is not None, f"no error: {words}"
    assert error.status() == f"StatusCode.{code}", (error.status(), error.message())
    assert words in error.message(), error.message()


def infer(client: Both) -> None:
    for dtype, values in VALUES.items():
        same(client.infer(f"same-{dtype}", [put("x", values)]).as_numpy("y"), values)
        same(client.infer(f"same-{dtype}", [put("x", values[:0])]).as_numpy("y"), values[:0])
    print("every datatype, also without elements")
    halves = np.array([[1.5, -2], [np.inf, 3e38]], ml_dtypes.bfloat16)
    answer = client.infer("same-float32", [put("x", halves, "BF16")]).as_numpy("y")
    same(answer, halves.astype(np.float32))
    print("BF16")
    half = np.array(2.5, np.float32)
    same(client.infer("scalar", [put("x", half)]).as_numpy("y"), half)
    cube = np.zeros((2, 0, 2), np.float32)
    same(client.infer("cube", [put("x", cube)]).as_numpy("y"), cube)
    print("scalar, and a dimension of 0")
    for algorithm in ("gzip", "deflate"):
        named = {"compression_algorithm": algorithm}
        same(client.infer("same-float32", [put("x", LARGE)], **named).as_numpy("y"), LARGE)
    print("gzip and deflate")
    rows = np.array([[0.1, 0.9, 0.5]], np.float32)
    wanted = [sync_grpc.InferRequestedOutput("scores", class_count=2)]
    answer = client.infer("classifier", [put("x", rows)], outputs=wanted, request_id="seven")
    assert [item.split(b":")[1] for item in answer.as_numpy("scores")[0]] == [b"1", b"2"]
    assert answer.as_numpy("label") is None
    assert answer.get_response().id == "seven"
    print("classes, an output chosen, and the id")
    ones = put("x", np.ones((1, 8), np.float32))
    newest, first, second = (
        client.infer("dense", [ones], model_version=version) for version in ("", "1", "2")
    )
    assert newest.get_response().model_version == "2"
    same(newest.as_numpy("y"), second.as_numpy("y"))
    assert first.as_numpy("y") != second.as_numpy("y")
    print("versions")
    parameters = {"parameters": {"of_mine": 3, "more": 0.5, "text": "t", "yes": True}}
    client.infer("dense", [ones], priority=1, timeout=1000, client_timeout=30, **parameters)
    client.infer("dense", [ones], sequence_id=5, sequence_start=True, sequence_end=True)
    print("parameters")


def refusals(client: Both) -> None:
    ones = put("x", np.ones((1, 8), np.float32))
    fails("NOT_FOUND", "model not found: absent", client.infer, "absent", [ones])
    fails("NOT_FOUND", "version", client.infer, "dense", [ones], model_version="9")
    fails("INVALID_ARGUMENT", "unknown input: z",
          client.infer, "dense", [put("z", np.ones((1, 8), np.float32))])  # fmt: skip
    fails("INVALID_ARGUMENT", "datatype", client.infer, "dense", [put("x", np.ones((1, 8)))])
    fails("INVALID_ARGUMENT", "shape", client.infer, "dense", [put("x", np.ones((1, 7), "f4"))])
    fails("INVALID_ARGUMENT", "output nothing is unknown", client.infer, "dense", [ones],
          outputs=[sync_grpc.InferRequestedOutput("nothing")])  # fmt: skip
    shared = sync_grpc.InferInput("x", [1, 8], "FP32")
    shared.set_shared_memory("region", 32)
    fails("INVALID_ARGUMENT", "shared memory", client.infer, "dense", [shared])
    fails("NOT_FOUND", "absent", client.get_model_metadata, "absent")
    fails("NOT_FOUND", "absent", client.get_model_config, "absent")
    fails("NOT_FOUND", "absent", client.get_inference_statistics, "absent")
    print("unknown names, wrong types and shapes")
    fails("UNIMPLEMENTED", "SystemSharedMemoryStatus is not supported",
          client.get_system_shared_memory_status)  # fmt: skip
    fails("UNIMPLEMENTED", "TraceSetting", client.get_trace_settings)
    fails("UNIMPLEMENTED", "LogSettings", client.get_log_settings)
    print("what is not supported")


def server(client: Both, models: int) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("dense")
    assert client.is_model_ready("dense", "1")
    fails("NOT_FOUND", "absent", client.is_model_ready, "absent")
    print("readiness")
    metadata = client.get_server_metadata()
    assert metadata.name == "modelport"
    assert "statistics" in metadata.extensions
    metadata = client.get_model_metadata("dense")
    assert list(metadata.versions) == ["1", "2"]
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
        ("x", "FP32", [-1, 8])
    ]
    assert metadata.platform == "onnxruntime_onnx"
    print("metadata")
    config = client.get_model_config("cube").config
    assert config.name == "cube"
    assert list(config.input[0].dims) == [-1, 2]
    assert config.max_batch_size > 0
    assert client.get_model_config("scalar", as_json=True)["config"]["name"] == "scalar"
    print("configuration")
    before = client.get_inference_statistics("same-int8").model_stats[0]
    client.infer("same-int8", [put("x", VALUES["int8"])])
    after = client.get_inference_statistics("same-int8", "1").model_stats[0]
    assert after.inference_count == before.inference_count + 2
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    assert len(client.get_inference_statistics().model_stats) >= models
    print("statistics")


def repository(client: Both) -> None:
    ones = put("x", np.ones((1, 8), np.float32))
    states = {item.name: item.state for item in client.get_model_repository_index().models}
    assert states["dense"] == "READY"
    client.load_model("later")
    assert client.is_model_ready("later")
    assert client.infer("later", [ones]).as_numpy("y").shape == (1, 1)
    client.unload_model("later")
    fails("UNAVAILABLE", "later", client.infer, "later", [ones])
    states = {item.name: item.state for item in client.get_model_repository_index().models}
    assert states["later"] == "UNAVAILABLE"
    fails("NOT_FOUND", "absent", client.load_model, "absent")
    fails("INVALID_ARGUMENT", "config", client.load_model, "later", config="{}")
    fails("NOT_FOUND", "absent", client.unload_model, "absent")
    print("repository")


def number(value: int) -> Any:
    return [put("i", np.array([value]))]


def streams(url: str) -> None:
    """The sync client's stream: errors in it, and errors that end it."""
    answers: queue.Queue[Any] = queue.Queue()
    with sync_grpc.InferenceServerClient(url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for value, request_id in ((3, "a"), (99, "b"), (4, "c")):
            client.async_stream_infer("lookup", number(value), request_id=request_id)
        client.async_stream_infer("absent", number(1))
        client.async_stream_infer("lookup", number(5), enable_empty_final_response=True)
        got = [answers.get(timeout=30) for _ in range(5)]
        client.stop_stream()
    assert [float(result.as_numpy("y")[0]) for result, error in got if error is None] == [9, 16, 25]
    assert [result.get_response().id for result, error in got if error is None] == ["a", "c", ""]
    assert "Gather" in got[1][1].message() or "index" in got[1][1].message(), got[1]
    assert "model not found: absent" in got[3][1].message()
    print("a stream that outlives its errors")
    with sync_grpc.InferenceServerClient(url) as client:
        client.start_stream(
            lambda result, error: answers.put((result, error)),
            headers={"triton_grpc_error": "true"},
        )
        client.async_stream_infer("lookup", number(3))
        result, error = answers.get(timeout=30)
        assert error is None
        assert result.as_numpy("y") == 9
        client.async_stream_infer("absent", number(3))
        result, error = answers.get(timeout=30)
        assert result is None
        assert error.status() == "StatusCode.NOT_FOUND", error
        client.stop_stream()
    print("a stream that ends with its first error")


async def aio_stream(url: str) -> None:
    async def requests() -> Any:
        for value in range(20):
            yield {"model_name": "lookup", "inputs": number(value), "request_id": str(value)}

    async with aio_grpc.InferenceServerClient(url) as client:
        results, errors = [], 0
        async for result, error in client.stream_infer(requests(), compression_algorithm="gzip"):
            errors += error is not None
            results += [] if error else [float(result.as_numpy("y")[0])]
    assert results == [float(value**2) for value in range(10)]
    assert errors == 10
    print("aio: a stream, compressed")


def main(url: str, models: int) -> None:
    loop = asyncio.new_event_loop()
    with sync_grpc.InferenceServerClient(url) as plain:

        async def connect() -> Any:
            return aio_grpc.InferenceServerClient(url)

        aio = loop.run_until_complete(connect())
        for client in (Both(plain, None), Both(aio, loop)):
            infer(client)
            refusals(client)
            server(client, models)
            repository(client)
        loop.run_until_complete(aio.close())
    streams(url)
    loop.run_until_complete(aio_stream(url))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
