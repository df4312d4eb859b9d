"""Requests that run together: everybody gets their own answer, whatever the others do."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.core.errors import EngineError, UnavailableError
from modelport.core.tensors import Array, Tensors
from modelport.serve.batching import Batcher, LatencyModel
from modelport.serve.metrics import ModelCounters

from . import onnx_models
from .packages import build_package, reference
from .running import LIMIT, RunningServer, ask

CLIENTS = 16
REQUESTS = 40


class FakeModel:
    """Doubles ``x``; remembers the batches; fails on a negative number.

    Parameters
    ----------
    gate : threading.Event, optional
        Executions wait for it.
    """

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.batches: list[list[float]] = []
        self.executed: list[int] = []
        self.entered = threading.Semaphore(0)
        self._gate = gate

    def run(self, inputs: Tensors) -> dict[str, Array]:
        rows = inputs["x"]
        self.batches.append(rows[:, 0].tolist())
        self.entered.release()
        if self._gate is not None:
            assert self._gate.wait(LIMIT)
        if (rows < 0).any():
            raise EngineError("negative")
        return {"y": rows * 2}

    def batcher(
        self,
        *,
        max_rows: int = 8,
        executor: ThreadPoolExecutor | None = None,
        threads: int = 1,
        same_shapes: bool = True,
        max_queue: int = 100,
    ) -> Batcher:
        return Batcher(
            self.run,
            max_rows=max_rows,
            executor=executor,
            threads=threads,
            same_shapes=same_shapes,
            max_queue=max_queue,
            timeout=0,
            counters=Recorder(self.executed),
            thread_counters=Recorder(self.executed),
        )


class Recorder(ModelCounters):
    """Counters that also say the rows of every execution."""

    def __init__(self, executed: list[int]) -> None:
        super().__init__(memoryview(bytearray(8 * ModelCounters.SIZE)).cast("d"))
        self._executed = executed

    def executed(self, rows: int, requests: int, seconds: float) -> None:
        super().executed(rows, requests, seconds)
        self._executed.append(rows)


def row(*values: float) -> dict[str, Array]:
    return {"x": np.array(values, np.float32)[:, None]}


async def infer(batcher: Batcher, inputs: dict[str, Array]) -> dict[str, Array]:
    """As a request does it."""
    return batcher.run(inputs) if batcher.immediate else await batcher.submit(inputs)


def answers(results: Sequence[Any]) -> list[Any]:
    """Plain answers; errors as they are."""
    return [r if isinstance(r, BaseException) else r["y"][:, 0].tolist() for r in results]


async def together(*calls: Awaitable[Any]) -> list[Any]:
    return answers(await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), LIMIT))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), LIMIT))  # type: ignore[arg-type]


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_requests_of_one_turn_share_an_execution() -> None:
    model = FakeModel()

    async def scenario() -> None:
        batcher = model.batcher()
        got = await together(*[infer(batcher, row(i)) for i in range(5)])
        assert got == [[0], [2], [4], [6], [8]]
        assert model.batches == [[0, 1, 2, 3, 4]]
        assert model.executed == [5]
        assert batcher.waiting == 0
        assert await together(infer(batcher, row(7))) == [[14]]
        assert model.batches == [[0, 1, 2, 3, 4], [7]]

    run(scenario)


def test_a_batch_has_at_most_its_rows() -> None:
    model = FakeModel()

    async def scenario() -> None:
        batcher = model.batcher(max_rows=4)
        requests = [row(1), row(2, 3), row(4, 5), row(6), row(*range(10, 16)), row(7), row()]
        got = await together(*[infer(batcher, request) for request in requests])
        assert got == [(request["x"][:, 0] * 2).tolist() for request in requests]
        # Alone a request may be larger than what may be shared.
        assert model.batches == [[1, 2, 3], [4, 5, 6], [10, 11, 12, 13, 14, 15], [7]]
        assert sum(model.executed) == 13

    run(scenario)


def test_one_row_at_a_time_is_no_sharing() -> None:
    model = FakeModel()

    async def scenario() -> None:
        batcher = model.batcher(max_rows=1)
        assert await together(*[infer(batcher, row(i, 9)) for i in range(3)]) == [
            [0, 18],
            [2, 18],
            [4, 18],
        ]
        assert model.batches == [[0, 9], [1, 9], [2, 9]]

    run(scenario)


def test_only_equal_shapes_share() -> None:
    model = FakeModel()

    async def scenario() -> None:
        batcher = model.batcher(same_shapes=False)
        narrow = [{"x": np.full((1, 1), i, np.float32)} for i in (1, 2)]
        wide = [{"x": np.full((1, 3), i, np.float32)} for i in (3, 4)]
        calls = [infer(batcher, inputs) for inputs in (*narrow, *wide, narrow[0])]
        results = await asyncio.gather(*calls)
        assert [r["y"].tolist() for r in results] == [
            [[2]], [[4]], [[6, 6, 6]], [[8, 8, 8]], [[2]]
        ]  # fmt: skip
        assert model.batches == [[1, 2], [3, 4], [1]]

    run(scenario)


def test_a_failing_request_does_not_fail_its_neighbours() -> None:
    model = FakeModel()

    async def scenario() -> None:
        batcher = model.batcher()
        got = await together(*[infer(batcher, row(i)) for i in (1, -1, 2, -2)])
        assert [got[0], got[2]] == [[2], [4]]
        assert all(isinstance(error, EngineError) for error in (got[1], got[3]))
        assert model.batches == [[1, -1, 2, -2], [1], [-1], [2], [-2]]
        assert model.executed == [1, 1]

    run(scenario)


def test_a_defect_is_told_to_those_who_wait(executor: ThreadPoolExecutor) -> None:
    def defective(inputs: Tensors) -> dict[str, Array]:
        raise ZeroDivisionError

    async def scenario() -> None:
        for pool in (None, executor):
            batcher = Batcher(
                defective,
                max_rows=8,
                executor=pool,
                threads=1,
                same_shapes=True,
                max_queue=9,
                timeout=0,
                counters=Recorder([]),
                thread_counters=Recorder([]),
            )
            got = await together(*[infer(batcher, row(i)) for i in range(3)])
            assert [type(error) for error in got] == [ZeroDivisionError] * 3

    run(scenario)


@pytest.mark.parametrize("max_rows", [1, 8])
def test_a_failing_request_alone(max_rows: int) -> None:
    model = FakeModel()

    async def scenario() -> None:
        batcher = model.batcher(max_rows=max_rows)
        (error,) = await together(infer(batcher, row(-1)))
        assert isinstance(error, EngineError)
        assert await together(infer(batcher, row(3))) == [[6]]

    run(scenario)


def test_threads_take_what_has_gathered(executor: ThreadPoolExecutor) -> None:
    """While the thread is busy requests wait; then as many as pay go together."""
    gate = threading.Event()
    model = FakeModel(gate)

    async def scenario() -> None:
        batcher = model.batcher(max_rows=3, executor=executor)
        calls = [asyncio.ensure_future(infer(batcher, row(i))) for i in range(6)]
        await asyncio.to_thread(model.entered.acquire)
        assert model.batches == [[0]]
        assert batcher.waiting == 5
        gate.set()
        assert await together(*calls) == [[0], [2], [4], [6], [8], [10]]
        assert model.batches == [[0], [1, 2, 3], [4, 5]]

    run(scenario)


def test_as_many_executions_as_threads(executor: ThreadPoolExecutor) -> None:
    gate = threading.Event()
    model = FakeModel(gate)

    async def scenario() -> None:
        batcher = model.batcher(max_rows=1, executor=executor, threads=2)
        calls = [asyncio.ensure_future(infer(batcher, row(i))) for i in range(4)]
        for _ in range(2):
            await asyncio.to_thread(model.entered.acquire)
        assert batcher.waiting == 2
        assert not model.entered.acquire(blocking=False)
        gate.set()
        assert await together(*calls) == [[0], [2], [4], [6]]

    run(scenario)


def test_a_full_queue_refuses(executor: ThreadPoolExecutor) -> None:
    gate = threading.Event()
    model = FakeModel(gate)

    async def scenario() -> None:
        batcher = model.batcher(executor=executor, max_queue=2)
        calls = [asyncio.ensure_future(infer(batcher, row(i))) for i in range(3)]
        await asyncio.to_thread(model.entered.acquire)
        with pytest.raises(UnavailableError, match="2 requests are waiting already"):
            batcher.submit(row(9))
        gate.set()
        assert await together(*calls) == [[0], [2], [4]]
        assert await together(infer(batcher, row(9))) == [[18]]

    run(scenario)


def test_a_failing_request_on_threads(executor: ThreadPoolExecutor) -> None:
    gate = threading.Event()
    model = FakeModel(gate)

    async def scenario() -> None:
        batcher = model.batcher(executor=executor)
        calls = [asyncio.ensure_future(infer(batcher, row(i))) for i in (0, 1, -1, 2)]
        await asyncio.to_thread(model.entered.acquire)
        gate.set()
        got = await together(*calls)
        assert [got[0], got[1], got[3]] == [[0], [2], [4]]
        assert isinstance(got[2], EngineError)

    run(scenario)


@pytest.mark.parametrize("cancelled", [[0], [1, 2], [4], [0, 1, 2, 3, 4]])
def test_clients_that_left_are_left_out(cancelled: list[int], executor: ThreadPoolExecutor) -> None:
    gate = threading.Event()
    model = FakeModel(gate)

    async def scenario() -> None:
        batcher = model.batcher(executor=executor)
        first = asyncio.ensure_future(infer(batcher, row(100)))
        await asyncio.to_thread(model.entered.acquire)
        calls = [asyncio.ensure_future(infer(batcher, row(i))) for i in range(5)]
        await asyncio.sleep(0)
        for number in cancelled:
            calls[number].cancel()
        await asyncio.sleep(0)
        gate.set()
        assert await together(first) == [[200]]
        for number, result in enumerate(await together(*calls)):
            if number in cancelled:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result == [2 * number]
        stayed = [float(number) for number in range(5) if number not in cancelled]
        assert model.batches[1:] == ([stayed] if stayed else [])
        assert await together(infer(batcher, row(8))) == [[16]]

    run(scenario)


def test_a_client_that_leaves_during_the_execution(executor: ThreadPoolExecutor) -> None:
    gate = threading.Event()
    model = FakeModel(gate)

    async def scenario() -> None:
        batcher = model.batcher(executor=executor)
        call = asyncio.ensure_future(infer(batcher, row(1)))
        await asyncio.to_thread(model.entered.acquire)
        call.cancel()
        gate.set()
        assert await together(infer(batcher, row(2))) == [[4]]

    run(scenario)


@pytest.mark.parametrize(
    ("a", "b", "limit", "expected"),
    [
        (1e-6, 9.9e-6, 64, 64),  # 198 rows until the fixed part has shrunk to 5 %
        (1e-6, 9.9e-6, 1000, 198),
        (1e-6, 0.5e-6, 64, 10),
        (1e-6, 0, 64, 1),  # nothing to save
        (1e-9, 1e-6, 10_000, 10_000),
        (50e-6, 100e-6, 64, 18),  # the loop is not held longer than a millisecond
        (1e-3, 10e-3, 64, 64),  # on threads, where that does not matter
        (10e-3, 1e-3, 64, 2),
        (1.0, 0.0, 64, 1),
        (1e-6, 10e-6, 1, 1),
        (1e-6, 10e-6, 0, 1),
    ],
)
def test_rows_that_pay(a: float, b: float, limit: int, expected: int) -> None:
    assert LatencyModel(a, b).rows_that_pay(limit) == expected


def test_only_models_faster_than_a_hop_run_on_the_loop() -> None:
    assert LatencyModel(10e-6, 100e-6).inline
    assert not LatencyModel(10e-6, 300e-6).inline


def test_measuring_runs_one_row_and_several() -> None:
    sizes: list[int] = []

    def record(inputs: Tensors) -> dict[str, Array]:
        sizes.append(len(inputs["x"]))
        return {}

    measured = LatencyModel.measure(record, row(1))
    assert measured.a > 0
    assert measured.b >= 0
    assert set(sizes) == {1, 8}


ROWS = np.random.default_rng(2).normal(size=(CLIENTS * REQUESTS, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    def package(name: str, model: bytes, *, row_independent: bool = True, **golden: Any) -> Path:
        inputs = {key: np.asarray(value) for key, value in golden.items()}
        return build_package(
            module_path / name, name, model, inputs, row_independent=row_independent
        ).path

    models = [
        package("dense", onnx_models.dense(), x=ROWS[:8]),
        package("centred", onnx_models.centred(), row_independent=False, x=ROWS[:4, :2]),
        package("lookup", onnx_models.lookup(), i=np.arange(10)),
        package("text", onnx_models.identity("string", ("N",)), x=np.array(["a"], object)),
        package("ragged", onnx_models.identity("float32", ("N", "M")), x=ROWS[:4]),
        package("laborious", onnx_models.laborious(), n=[0]),
        # It has no batch dimension that could be split, whatever its manifest says.
        package("summary", onnx_models.summary(), row_independent=True, x=ROWS[:4, :2]),
    ]
    flags = ["--threads", "1", "--max-queue", "1000"]
    with RunningServer(module_path / "server", models, flags) as running:
        yield running


Job = Callable[[http.client.HTTPConnection, int, int], None]


def many_clients(server: RunningServer, job: Job) -> None:
    """Run `job` for every client and request number; every client has its connection."""
    failures: list[BaseException] = []
    start = threading.Barrier(CLIENTS)

    def client(number: int) -> None:
        connection = server.connect()
        try:
            connection.connect()
            start.wait(LIMIT)
            for request in range(REQUESTS):
                job(connection, number, request)
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=[i], daemon=True) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures, failures[0]


def predict(connection: http.client.HTTPConnection, model: str, rows: Any) -> Any:
    body = json.dumps({"instances": rows}).encode()
    answer = ask(connection, "POST", f"/v1/models/{model}:predict", body)
    assert answer.status == 200, answer.body
    return answer.json()["predictions"]


def test_everybody_gets_their_own_answer(server: RunningServer) -> None:
    expected = reference(onnx_models.dense(), {"x": ROWS})["y"]

    def job(connection: http.client.HTTPConnection, client: int, request: int) -> None:
        # Between one row and three, so that the boundaries move.
        first = client * REQUESTS + request
        last = min(first + 1 + request % 3, len(ROWS))
        got = predict(connection, "dense", ROWS[first:last].tolist())
        np.testing.assert_allclose(got, expected[first:last], rtol=1e-4, atol=1e-5)

    many_clients(server, job)


def test_strings_and_open_shapes_too(server: RunningServer) -> None:
    def job(connection: http.client.HTTPConnection, client: int, request: int) -> None:
        text = [f"{client}/{request}"] * (1 + request % 2)
        assert predict(connection, "text", text) == text
        rows = [[float(client)] * (1 + client % 3)]
        assert predict(connection, "ragged", rows) == rows

    many_clients(server, job)


def test_rows_that_depend_on_others_never_share(server: RunningServer) -> None:
    def job(connection: http.client.HTTPConnection, client: int, request: int) -> None:
        rows = ROWS[client * REQUESTS + request :][: 1 + request % 4, :2]
        expected = reference_centred(rows)
        np.testing.assert_allclose(
            predict(connection, "centred", rows.tolist()), expected, atol=1e-6
        )

    many_clients(server, job)


def reference_centred(rows: Array) -> Array:
    return rows - rows.mean(axis=0, keepdims=True)


def test_models_without_a_batch_never_share(server: RunningServer) -> None:
    def job(connection: http.client.HTTPConnection, client: int, request: int) -> None:
        rows = [[float(client), float(request)]]
        body = json.dumps({"inputs": rows}).encode()
        answer = ask(connection, "POST", "/v1/models/summary:predict", body)
        assert answer.json()["outputs"] == {"rows": rows, "mean": (client + request) / 2}

    many_clients(server, job)


def test_failing_neighbours(server: RunningServer) -> None:
    def job(connection: http.client.HTTPConnection, client: int, request: int) -> None:
        if client % 4 == 0:
            body = json.dumps({"instances": [3, 10 + client]}).encode()
            answer = ask(connection, "POST", "/v1/models/lookup:predict", body)
            assert answer.status == 500
            assert f"idx={10 + client} " in answer.json()["error"]
        else:
            index = (client + request) % 10
            assert predict(connection, "lookup", [index]) == [index**2]

    many_clients(server, job)


def test_clients_that_close_disturb_nobody(server: RunningServer) -> None:
    expected = reference(onnx_models.dense(), {"x": ROWS})["y"]

    def job(connection: http.client.HTTPConnection, client: int, request: int) -> None:
        if client % 2:
            body = json.dumps({"instances": ROWS[:3].tolist()}).encode()
            connection.request("POST", "/v1/models/dense:predict", body)
            connection.close()
        else:
            first = client * REQUESTS + request
            got = predict(connection, "dense", ROWS[first : first + 1].tolist())
            np.testing.assert_allclose(got, expected[first : first + 1], rtol=1e-4, atol=1e-5)

    many_clients(server, job)
    server.wait_for("an idle server", lambda: in_flight(server) == 0)


def in_flight(server: RunningServer) -> float:
    lines = server.get("/metrics").body.decode().splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith("modelport_requests_in_flight{")
    )


def test_slow_requests_do_not_hold_up_the_others(server: RunningServer) -> None:
    """A slow model runs on threads: the loop answers for the fast one meanwhile."""
    answered = threading.Event()

    def slow() -> None:
        answer = server.post("/v1/models/laborious:predict", {"inputs": [500_000]})
        assert answer.json() == {"outputs": [502_000.0]}
        answered.set()

    thread = threading.Thread(target=slow, daemon=True)
    thread.start()
    server.wait_for("a slow request", lambda: in_flight(server) == 1)
    connection = server.connect()
    for _ in range(20):
        assert np.shape(predict(connection, "dense", ROWS[:2].tolist())) == (2, 1)
    connection.close()
    assert answered.wait(LIMIT)
    thread.join(LIMIT)


def test_a_full_queue_is_answered_with_503(module_path: Path) -> None:
    """One runs, one waits, and the third is told to come back."""
    path = module_path / "laborious"
    flags = ["--threads", "1", "--max-queue", "1"]
    answers: list[Any] = []

    with RunningServer(module_path / "full", [path], flags) as server:

        def ask_slowly(steps: int) -> threading.Thread:
            def request() -> None:
                document = {"inputs": [steps]}
                answers.append(server.post("/v1/models/laborious:predict", document))

            thread = threading.Thread(target=request, daemon=True)
            thread.start()
            return thread

        running = ask_slowly(1_000_000)
        server.wait_for("a running request", lambda: in_flight(server) == 1)
        waiting = ask_slowly(0)
        server.wait_for("a waiting request", lambda: in_flight(server) == 2)
        refused = server.post("/v1/models/laborious:predict", {"inputs": [0]})
        assert refused.status == 503
        assert "waiting already" in refused.json()["error"]
        document = {"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [0]}]}
        assert server.post("/v2/models/laborious/infer", document).status == 503
        # The server is busy, not broken.
        assert server.get("/v2/health/ready").status == 200
        for thread in (running, waiting):
            thread.join(LIMIT)
        assert sorted(answer.json()["outputs"][0] for answer in answers) == [2000.0, 1002000.0]
        assert server.post("/v1/models/laborious:predict", {"inputs": [0]}).status == 200
