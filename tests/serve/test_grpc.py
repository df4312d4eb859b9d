"""gRPC: Open Inference V2, health and reflection, over a real server and raw channels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from modelport.adapters import adapters_of
from modelport.core.options import ServeOptions
from modelport.serve.base import Route
from modelport.serve.protos import DESCRIPTORS, message, pool
from modelport.serve.protos.build import build
from tests.clients import CLIENT_PYTHON

from . import onnx_models
from .conftest import Serve
from .grpc_caller import (
    HEALTH,
    INFERENCE,
    Caller,
    infer_request,
    raw_request,
    tensor,
    typed_request,
)
from .packages import build_package, reference
from .running import LIMIT, RunningServer, free_port

ROWS = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
INFER = f"{INFERENCE}/ModelInfer"
STREAM = f"{INFERENCE}/ModelStreamInfer"
KEY = "0123456789abcdef0123"
LIMIT_BYTES = 1 << 20


@pytest.fixture(scope="module")
def models(module_path: Path) -> list[Path]:
    def package(name: str, model: bytes, **golden: Any) -> Path:
        return build_package(module_path / name, name, model, golden or None).path

    return [
        package("dense", onnx_models.dense(), x=ROWS),
        package("two", onnx_models.sum_of_two(), a=ROWS[:, :3], b=np.array([[1, 2], [3, 4]])),
        package("ints", onnx_models.identity("int8"), x=np.ones((1, 2), np.int8)),
        package("bools", onnx_models.identity("bool"), x=np.ones((1, 2), bool)),
        package("texts", onnx_models.identity("string"), x=np.array([["a", "b"]], object)),
        package("halves", onnx_models.identity("float16"), x=np.ones((1, 2), np.float16)),
        package("lookup", onnx_models.lookup(), i=np.array([1, 2])),
    ]


@pytest.fixture(scope="module")
def server(module_path: Path, models: list[Path]) -> Iterator[int]:
    port = free_port()
    flags = ["--grpc-port", str(port), "--max-body", str(LIMIT_BYTES)]
    with RunningServer(module_path / "server", models, flags) as running:
        yield port
    assert "Traceback" not in running.log()


@pytest.fixture
def caller(server: int) -> Iterator[Caller]:
    with Caller(server) as open_caller:
        yield open_caller


def refused(code: str, words: str, call: Any, *arguments: Any, **named: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **named)
    assert caught.value.code() is grpc.StatusCode[code], caught.value
    assert words in caught.value.details()


def test_descriptors_are_those_of_the_proto_files(tmp_path: Path) -> None:
    if not CLIENT_PYTHON.exists():
        pytest.skip("the environment of the clients is missing: make setup")
    build(tmp_path / "set", str(CLIENT_PYTHON))
    made, kept = (
        descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
        for path in (tmp_path / "set", DESCRIPTORS)
    )
    assert made == kept


def test_messages_are_not_in_the_default_pool() -> None:
    message("inference.ModelInferRequest")
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")


def test_raw_contents_are_answered_raw_and_typed_ones_typed(caller: Caller) -> None:
    expected = reference(onnx_models.dense(), {"x": ROWS})["y"]
    raw = caller.unary(INFER, raw_request("dense", "x", "FP32", ROWS, id="seven"))
    assert np.array_equal(tensor(raw, "<f4"), expected)
    assert (raw.model_name, raw.model_version, raw.id) == ("dense", "1", "seven")
    assert not raw.outputs[0].HasField("contents")
    request = infer_request("dense", "x", "FP32", ROWS.shape)
    request.inputs[0].contents.fp32_contents.extend(ROWS.ravel().tolist())
    typed = caller.unary(INFER, request)
    assert not typed.raw_output_contents
    answer = np.array(typed.outputs[0].contents.fp32_contents, np.float32)
    assert np.array_equal(answer.reshape(typed.outputs[0].shape), expected)


def test_several_inputs_come_in_any_order(caller: Caller) -> None:
    request = infer_request("two", "b", "INT64", [1, 2])
    request.inputs.add(name="a", datatype="FP32", shape=[1, 3])
    request.raw_input_contents.append(np.array([1, 2], np.int64).tobytes())
    request.raw_input_contents.append(np.array([1, 2, 3], np.float32).tobytes())
    assert tensor(caller.unary(INFER, request), "<f4") == [9.0]


@pytest.mark.parametrize(
    ("model", "datatype", "field", "values"),
    [
        ("ints", "INT8", "int_contents", [-128, 127]),
        ("bools", "BOOL", "bool_contents", [True, False]),
        ("texts", "BYTES", "bytes_contents", ["grüße".encode(), b""]),
    ],
)
def test_typed_contents_come_back(
    caller: Caller, model: str, datatype: str, field: str, values: list[Any]
) -> None:
    answer = caller.unary(INFER, typed_request(model, field, datatype, values))
    assert list(getattr(answer.outputs[0].contents, field)) == values
    assert answer.outputs[0].datatype == datatype


def test_no_model_is_the_first_one(caller: Caller) -> None:
    assert caller.unary(INFER, raw_request("", "x", "FP32", ROWS)).model_name == "dense"


def _bad_requests() -> dict[str, tuple[Any, str]]:
    both = raw_request("dense", "x", "FP32", ROWS)
    both.inputs[0].contents.fp32_contents.append(1)
    several = typed_request("ints", "int_contents", "INT8", [1, 2])
    several.inputs[0].contents.fp32_contents.append(1)
    too_many = raw_request("dense", "x", "FP32", ROWS)
    too_many.raw_input_contents.append(b"")
    twice = raw_request("dense", "x", "FP32", ROWS)
    twice.inputs.add().CopyFrom(twice.inputs[0])
    twice.raw_input_contents.append(ROWS.tobytes())
    output_twice = raw_request("dense", "x", "FP32", ROWS)
    output_twice.outputs.add(name="y")
    output_twice.outputs.add(name="y")
    no_value = raw_request("dense", "x", "FP32", ROWS)
    no_value.parameters["mine"].SetInParent()
    reserved = raw_request("dense", "x", "FP32", ROWS)
    reserved.parameters["triton_secret"].bool_param = True
    huge = infer_request("ints", "x", "INT8", [0, 1 << 62, 1 << 62])
    huge.raw_input_contents.append(b"")
    deep = infer_request("ints", "x", "INT8", [1] * 70)
    deep.raw_input_contents.append(b"\x01")
    raw = raw_request("dense", "x", "FP32", ROWS)
    short = infer_request("dense", "x", "FP32", [2, 8])
    short.raw_input_contents.append(b"\x00" * 63)
    return {
        "both": (both, "contents field must not be specified when using raw_input_contents"),
        "no data": (infer_request("dense", "x", "FP32", [1, 8]), "unable to find data"),
        "no inputs": (message("inference.ModelInferRequest")(model_name="dense"), "missing input"),
        "several fields": (several, "int_contents, fp32_contents"),
        "another field": (typed_request("ints", "fp32_contents", "INT8", [1]), "needs int_cont"),
        "typed FP16": (typed_request("halves", "fp32_contents", "FP16", [1]), "no typed contents"),
        "wide": (typed_request("ints", "int_contents", "INT8", [128, 0]), "INT8 does not"),
        "text": (typed_request("texts", "bytes_contents", "BYTES", [b"\xff", b""]), "not UTF-8"),
        "typed count": (typed_request("ints", "int_contents", "INT8", [1]), "expected [N, 2]"),
        "too many": (too_many, "1 inputs are announced, and 2 raw contents"),
        "twice": (twice, "input x is given twice"),
        "output twice": (output_twice, "given twice"),
        "no value": (no_value, "has no value"),
        "reserved": (reserved, "reserved"),
        "huge": (huge, "input x"),
        "deep": (deep, "input x"),
        "short": (short, "63 bytes, its shape needs 64"),
        "negative": (infer_request("dense", "x", "FP32", [-1, 8]), "sizes are from 0"),
        "datatype": (raw_request("dense", "x", "FP99", ROWS), "FP99"),
        "bool of 2": (
            raw_request("bools", "x", "BOOL", np.array([[0, 2]], np.uint8)),
            "BOOL other than 0 and 1",
        ),
        "damaged": (raw.SerializeToString()[:-5], "cannot be read"),
        "garbage": (b"\xff" * 20, "cannot be read"),
    }


@pytest.mark.parametrize("case", _bad_requests())
def test_bad_requests_are_invalid_arguments(caller: Caller, case: str) -> None:
    request, words = _bad_requests()[case]
    refused("INVALID_ARGUMENT", words, caller.unary, INFER, request)


def test_a_message_over_the_limit_is_refused(caller: Caller) -> None:
    rows = np.zeros((LIMIT_BYTES // 32 + 1, 8), np.float32)
    request = raw_request("dense", "x", "FP32", rows)
    refused("RESOURCE_EXHAUSTED", "larger than max", caller.unary, INFER, request)
    kept = raw_request("dense", "x", "FP32", rows[:-100])
    assert tensor(caller.unary(INFER, kept), "<f4").shape == (len(rows) - 100, 1)


def test_a_compressed_message_is_bounded_by_what_it_becomes(caller: Caller) -> None:
    call = caller.channel.unary_unary(f"/{INFER}")
    with pytest.raises(grpc.RpcError) as caught:
        call(bytes(64 * LIMIT_BYTES), LIMIT, compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_unknown_methods_are_unimplemented(caller: Caller) -> None:
    for path in (f"/{INFERENCE}/Nothing", "/nobody.Knows/This"):
        refused("UNIMPLEMENTED", "", caller.channel.unary_unary(path), b"", LIMIT)


def test_a_long_name_comes_back_short(caller: Caller) -> None:
    name = "ä" * 100_000
    refused(
        "NOT_FOUND",
        "model not found: ää",
        caller.unary,
        INFER,
        raw_request(name, "x", "FP32", ROWS),
    )


def test_a_call_without_a_message_ends(caller: Caller) -> None:
    call = caller.channel.stream_unary(f"/{INFER}")
    refused("UNIMPLEMENTED", "no message", call, iter(()), LIMIT)


def test_control_needs_to_be_allowed(caller: Caller) -> None:
    refused("UNAVAILABLE", "not allowed",
            caller.unary, f"{INFERENCE}/RepositoryModelLoad", model_name="dense")  # fmt: skip
    refused("INVALID_ARGUMENT", "model_name is empty",
            caller.unary, f"{INFERENCE}/RepositoryModelUnload")  # fmt: skip


def test_streams_answer_each_message(caller: Caller) -> None:
    asked = [
        raw_request("lookup", "i", "INT64", np.array([3]), id="first"),
        raw_request("lookup", "i", "INT64", np.array([99]), id="second"),
        b"\xff",
        raw_request("lookup", "i", "INT64", np.array([4]), id="last"),
    ]
    answers = list(caller.stream(STREAM, asked))
    assert [answer.error_message == "" for answer in answers] == [True, False, False, True]
    assert [answer.infer_response.id for answer in answers] == ["first", "second", "", "last"]
    assert tensor(answers[3].infer_response, "<f4") == [16.0]
    refused("INVALID_ARGUMENT", "cannot be read",
            list, caller.stream(STREAM, asked[2:], ("triton_grpc_error", "true")))  # fmt: skip


class TestHealth:
    def test_check(self, caller: Caller) -> None:
        for name in ("", INFERENCE, HEALTH, "dense", "two"):
            assert caller.unary(f"{HEALTH}/Check", service=name).status == 1
        refused("NOT_FOUND", "absent", caller.unary, f"{HEALTH}/Check", service="absent")

    def test_list(self, caller: Caller) -> None:
        statuses = caller.unary(f"{HEALTH}/List").statuses
        assert {"", INFERENCE, HEALTH, "dense"} <= set(statuses)
        assert {status.status for status in statuses.values()} == {1}

    def test_watch_tells_changes_and_stays_open(
        self, serve: Serve, models: list[Path], module_path: Path
    ) -> None:
        port = free_port()
        flags = ["--model-control", "--model-store", module_path, "--grpc-port", str(port)]
        serve([models[0]], flags)
        kind = message("grpc.health.v1.HealthCheckResponse")
        with Caller(port) as caller:
            asked = message("grpc.health.v1.HealthCheckRequest")(service="lookup")
            watch = caller.channel.unary_stream(f"/{HEALTH}/Watch")(asked.SerializeToString())
            told = (kind.FromString(body).status for body in watch)
            assert next(told) == 3  # SERVICE_UNKNOWN
            caller.unary(f"{INFERENCE}/RepositoryModelLoad", model_name="lookup")
            assert next(told) == 1
            caller.unary(f"{INFERENCE}/RepositoryModelUnload", model_name="lookup")
            assert next(told) == 2
            assert caller.unary(f"{HEALTH}/Check", service="lookup").status == 2
            watch.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
class TestReflection:
    def ask(self, caller: Caller, version: str, **asked: Any) -> Any:
        name = f"grpc.reflection.{version}"
        request = message(f"{name}.ServerReflectionRequest")(host="here", **asked)
        (answer,) = caller.stream(f"{name}.ServerReflection/ServerReflectionInfo", [request])
        assert answer.original_request == request
        return answer

    def test_every_service_can_be_described(self, caller: Caller, version: str) -> None:
        answer = self.ask(caller, version, list_services="*")
        names = [service.name for service in answer.list_services_response.service]
        assert {INFERENCE, HEALTH, f"grpc.reflection.{version}.ServerReflection"} <= set(names)
        for name in names:
            files = self.ask(caller, version, file_containing_symbol=name)
            rebuilt = descriptor_pool.DescriptorPool()
            serialized = files.file_descriptor_response.file_descriptor_proto
            for file in reversed(serialized):  # a file stands before those that it imports
                rebuilt.AddSerializedFile(file)
            methods = [method.name for method in rebuilt.FindServiceByName(name).methods]
            assert methods == [m.name for m in pool().FindServiceByName(name).methods]

    def test_files_messages_and_what_there_is_not(self, caller: Caller, version: str) -> None:
        for asked in (
            {"file_by_filename": "inference.proto"},
            {"file_containing_symbol": "inference.ModelInferRequest.InferInputTensor"},
        ):
            (file,) = self.ask(
                caller, version, **asked
            ).file_descriptor_response.file_descriptor_proto
            assert b"ModelInferRequest" in file
        for missing in (
            {"file_by_filename": "absent.proto"},
            {"file_containing_symbol": "absent.Message"},
            {"all_extension_numbers_of_type": "absent.Message"},
            {"file_containing_extension": {"containing_type": "a.B", "extension_number": 1}},
        ):
            assert self.ask(caller, version, **missing).error_response.error_code == 5
        assert self.ask(caller, version).error_response.error_code == 3


def _rpc_routes() -> list[Route]:
    options = ServeOptions()
    return [route for a in adapters_of("rpc") for route in a.load().routes(options)]


def test_every_route_needs_the_key_when_there_is_one(
    launch: Serve, models: list[Path], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    port = free_port()
    flags = ["--api-key-file", keys, "--guard-health", "--grpc-port", str(port)]
    running = launch([models[0]], flags)
    running.wait_for("readiness", lambda: "listening" in running.log())
    with Caller(port) as stranger, Caller(port, KEY) as friend:
        for route in _rpc_routes():
            call = stranger.channel.stream_stream(route.example)
            refused("UNAUTHENTICATED", "no valid API key", list, call(iter([b""]), LIMIT))
        assert friend.unary(f"{INFERENCE}/ServerLive").live
        assert friend.unary(INFER, raw_request("dense", "x", "FP32", ROWS)).model_name == "dense"
        assert KEY not in running.log()


def test_health_needs_no_key_unless_it_is_guarded(
    serve: Serve, models: list[Path], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    port = free_port()
    serve([models[0]], ["--api-key-file", keys, "--grpc-port", str(port)])
    with Caller(port) as stranger:
        assert stranger.unary(f"{INFERENCE}/ServerReady").ready
        assert stranger.unary(f"{HEALTH}/Check").status == 1
        refused("UNAUTHENTICATED", "", stranger.unary, f"{INFERENCE}/ServerMetadata")


def test_strangers_keep_nobody_from_streaming(
    serve: Serve, models: list[Path], tmp_path: Path
) -> None:
    """A stream holds a thread, of which there are 64, also one that never sends a message."""
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    port = free_port()
    serve([models[0]], ["--api-key-file", keys, "--grpc-port", str(port)])
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        never.wait(LIMIT)
        yield b""

    with Caller(port) as stranger, Caller(port, KEY) as friend:
        try:
            for name in (STREAM, f"{HEALTH}/Watch"):
                calls = [stranger.channel.stream_stream(f"/{name}")(silent()) for _ in range(80)]
                refusals = [call for call in calls if call.done() or not _open(call)]
                assert len(refusals) >= 48, name
                (answer,) = friend.stream(STREAM, [raw_request("dense", "x", "FP32", ROWS)])
                assert answer.infer_response.model_name == "dense"
        finally:
            never.set()


def _open(call: Any) -> bool:
    """Whether a call is still open after a while."""
    done = threading.Event()
    call.add_callback(done.set)
    return not done.wait(0.05)


class TestSlowModels:
    """A model that runs on threads: it must hold neither health nor other calls."""

    STEPS = 30_000

    @pytest.fixture
    def port(self, serve: Serve, tmp_path: Path) -> int:
        package = build_package(
            tmp_path / "slow", "slow", onnx_models.laborious(), {"n": np.array([1])}
        )
        port = free_port()
        self.running = serve(
            [package.path], ["--grpc-port", str(port), "--max-queue", "2", "--threads", "1"]
        )
        return port

    def request(self, steps: int) -> Any:
        return raw_request("slow", "n", "INT64", np.array([steps]))

    def test_health_answers_meanwhile_and_too_many_are_refused(self, port: int) -> None:
        def ask(_: int) -> str:
            with Caller(port) as own:
                try:
                    answer = own.unary(INFER, self.request(self.STEPS))
                except grpc.RpcError as error:
                    return error.code().name
                return str(tensor(answer, "<f4")[0])

        with ThreadPoolExecutor(12) as threads, Caller(port) as caller:
            answers = [threads.submit(ask, number) for number in range(12)]
            while not any(answer.done() for answer in answers):
                # Refusals come at once, so this asks while the model runs.
                assert caller.unary(f"{HEALTH}/Check", service="slow").status == 1
                assert caller.unary(f"{INFERENCE}/ServerLive").live
            texts = [answer.result() for answer in answers]
        done = texts.count(str(float(self.STEPS + 2000)))
        assert texts.count("UNAVAILABLE") == 12 - done
        assert 1 <= done < 12

    def test_a_deadline_ends_a_call(self, port: int) -> None:
        with Caller(port) as caller:
            refused("DEADLINE_EXCEEDED", "", caller.unary, INFER, self.request(10**6), 0.2)
            # The one that waited was given up; the server goes on.
            assert caller.unary(f"{INFERENCE}/ServerLive").live
        assert "Traceback" not in self.running.log()

    def test_a_stream_shares_the_queue(self, port: int) -> None:
        with Caller(port) as caller:
            asked = (self.request(steps) for steps in (1, 2, 3))
            answers = [tensor(a.infer_response, "<f4")[0] for a in caller.stream(STREAM, asked)]
        assert answers == [2001, 2002, 2003]


def test_streams_beyond_the_limit_are_refused_and_unary_calls_are_not(server: int) -> None:
    released = threading.Event()

    def patient() -> Iterator[bytes]:
        yield raw_request("lookup", "i", "INT64", np.array([3])).SerializeToString()
        released.wait(LIMIT)

    with Caller(server) as caller:
        opened = []
        for _ in range(64):
            call = caller.channel.stream_stream(f"/{STREAM}")(patient(), LIMIT)
            next(call)  # it has a thread
            opened.append(call)
        refused("RESOURCE_EXHAUSTED", "", list, caller.stream(STREAM, []))
        assert caller.unary(f"{HEALTH}/Check").status == 1
        assert caller.unary(INFER, raw_request("dense", "x", "FP32", ROWS)).model_name == "dense"
        released.set()
        for call in opened:
            assert list(call) == []


def _accepts(port: int) -> bool:
    with Caller(port) as late:
        try:
            late.unary(f"{INFERENCE}/ServerLive")
        except grpc.RpcError:
            return False
        return True


def test_running_calls_are_answered_before_the_server_ends(
    launch: Serve, models: list[Path]
) -> None:
    port = free_port()
    running = launch([models[0]], ["--grpc-port", str(port)])
    running.wait_ready()
    with Caller(port) as caller:
        said = threading.Event()

        def messages() -> Iterator[bytes]:
            yield raw_request("dense", "x", "FP32", ROWS).SerializeToString()
            said.wait(LIMIT)
            yield raw_request("dense", "x", "FP32", ROWS).SerializeToString()

        answers = caller.channel.stream_stream(f"/{STREAM}")(messages(), LIMIT)
        first = next(answers)
        running.process.terminate()
        running.wait_for("end of listening", lambda: not _accepts(port))
        said.set()
        assert next(answers) == first
        assert list(answers) == []
    assert running.wait_exit() == 0


def test_a_port_that_is_taken_ends_the_server(
    server: int, launch: Serve, models: list[Path]
) -> None:
    running = launch([models[0]], ["--grpc-port", str(server)])
    assert running.wait_exit() == 2
    assert "cannot listen on" in running.log()
    assert "Traceback" not in running.log()


def test_several_workers_share_the_port(serve: Serve, models: list[Path]) -> None:
    port = free_port()
    running = serve([models[0]], ["--grpc-port", str(port), "--workers", "2"])
    for _ in range(8):
        with Caller(port) as caller:
            assert caller.unary(INFER, raw_request("dense", "x", "FP32", ROWS)).outputs
    assert "Traceback" not in running.log()
