"""Models that come and go while others are served."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from modelport.core.errors import (
    ConflictError,
    ExhaustedError,
    ModelportError,
    NotFoundError,
    ParityError,
    UnavailableError,
)
from modelport.core.options import ServeOptions
from modelport.serve.base import ModelSpec, Request, Response
from modelport.serve.discover import find_in_store
from modelport.serve.guard import Guard
from modelport.serve.metrics import metrics_of
from modelport.serve.models import LoadingOptions, State
from modelport.serve.stage import app_of
from modelport.serve.table import ModelTable

from .onnx_models import dense, sum_of_two
from .packages import build_package, reference

ROWS = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a", "b")):
        build_package(tmp_path / name, name, dense(seed), {"x": ROWS})
    build_package(tmp_path / "wrong", "wrong", dense(), {"x": ROWS}, wrong_output="y")
    return tmp_path


def table_of(store: Path, *names: str, control: bool = True) -> ModelTable:
    specs = [ModelSpec(name, 1, str(store / name)) for name in names]
    find = find_in_store(str(store)) if control else None
    table = ModelTable(specs, metrics_of(specs, 1), LoadingOptions(), find)
    table.load_all()
    return table


def test_load_and_unload(store: Path) -> None:
    table = table_of(store, "a")
    (model,) = table.load("b")
    assert table.names == ["a", "b"]
    assert model.proven == 3
    assert table.ready()
    assert b'modelport_model_ready{model="b",version="1"} 1' in table.metrics.render()
    table.unload("b")
    assert table.names == ["a", "b"]
    assert model.state is State.END
    assert table.ready(), "what is unloaded on purpose is not waited for"
    with pytest.raises(UnavailableError):
        table.get("b").ready()
    with pytest.raises(NotFoundError, match="loaded model"):
        table.unload("b")
    (again,) = table.load("b")
    assert again.state is State.AVAILABLE
    table.unload("b", forget=True)
    assert table.names == ["a"]
    assert b'model="b"' not in table.metrics.render()


def test_loading_twice(store: Path) -> None:
    table = table_of(store, "a")
    before = table.get("a")
    assert table.load("a") == [before], "what is loaded stays, and answers"
    with pytest.raises(ConflictError, match="loaded already"):
        table.load("a", again=False)


def test_what_cannot_be_proven_changes_nothing(store: Path) -> None:
    table = table_of(store, "a")
    generation = table.generation
    with pytest.raises(ParityError):
        table.load("wrong")
    assert table.names == ["a"]
    assert table.generation == generation
    assert table.ready()


def test_unknown_names(store: Path) -> None:
    table = table_of(store, "a")
    with pytest.raises(NotFoundError):
        table.load("nothing")
    with pytest.raises(NotFoundError, match="there is: a"):
        table.unload("nothing")


def test_nothing_is_kept_of_what_clients_only_name(store: Path) -> None:
    table = table_of(store, "a")
    for number in range(3):
        with pytest.raises(NotFoundError):
            table.unload(f"none-{number}")
        with pytest.raises(ParityError):
            table.load(f"other-{number}", "wrong")
    assert not table._busy
    assert b"other-" not in table.metrics.render()


def test_counters_of_models_loaded_at_once_are_their_own(store: Path) -> None:
    metrics = table_of(store, "a").metrics
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(metrics.add, [f'model="{number}"' for number in range(400)]))
    assert sorted(found) == list(range(2, 402))


def test_only_where_it_is_allowed(store: Path) -> None:
    table = table_of(store, "a", control=False)
    for change in (table.load, table.unload):
        with pytest.raises(UnavailableError, match="not allowed"):
            change("a")


def test_no_memory_is_told_before_it_is_taken(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelport.serve.table.free_memory", lambda: 1000)
    table = table_of(store, "a")
    with pytest.raises(ExhaustedError, match="not enough memory for model b"):
        table.load("b")
    assert table.names == ["a"]


def test_many_threads_load_and_unload_the_same(store: Path) -> None:
    """Each call ends as if it were alone: loaded once, or refused by name."""
    table = table_of(store, "a")

    def change(number: int) -> str:
        try:
            if number % 2:
                table.load("b", again=False)
            else:
                table.unload("b", forget=True)
        except (ConflictError, NotFoundError) as error:
            return type(error).__name__
        return "done"

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(change, range(64)))
    loads, unloads = ends[1::2].count("done"), ends[::2].count("done")
    assert loads - unloads == table.names.count("b")
    assert loads > 0


def app(table: ModelTable):  # type: ignore[no-untyped-def]
    return app_of(table, "protocol", ServeOptions(), Guard([]))


def infer(name: str) -> Request:
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[3,8],"data":%b}]}' % (
        str(ROWS.ravel().tolist()).encode()
    )
    return Request("POST", f"/v2/models/{name}/infer", {}, body)


def test_remembered_paths_are_forgotten_with_the_model(store: Path) -> None:
    table = table_of(store, "a")
    served = app(table)

    async def statuses(names: Sequence[str]) -> list[int]:
        return [(await served.handle(infer(name))).status for name in names]

    assert asyncio.run(statuses(["a", "b"])) == [200, 404]
    table.load("b")
    assert asyncio.run(statuses(["a", "b", "b"])) == [200, 200, 200]
    table.unload("b")
    assert asyncio.run(statuses(["b"])) == [503]
    table.load("b")
    assert asyncio.run(statuses(["b"])) == [200]
    table.unload("b", forget=True)
    assert asyncio.run(statuses(["a", "b"])) == [200, 404]


@pytest.mark.parametrize("max_batch", [1, 64])
def test_threads_and_the_loop_answer_alike(store: Path, max_batch: int) -> None:
    specs = [ModelSpec("a", 1, str(store / "a"))]
    table = ModelTable(specs, metrics_of(specs, 1), LoadingOptions(max_batch=max_batch))
    table.load_all()
    served = app(table)
    on_thread = served.answer(infer("a"))
    assert on_thread.status == 200

    async def on_loop() -> Response:
        return await served.handle(infer("a"))

    assert asyncio.run(on_loop()) == on_thread
    counted = table.metrics.render().decode()
    assert 'modelport_requests_total{model="a",version="1",code="200"} 2' in counted


def test_slow_models_are_batched_across_threads_and_the_loop(store: Path) -> None:
    """A thread joins the queue of the event loop, and its errors come back to it."""
    table = table_of(store, "a")
    model = table.get("a")
    batcher = model.batcher
    assert batcher is not None
    batcher._executor = ThreadPoolExecutor(1)  # as if it were slow
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        table.attach(loop)
        expected = reference(dense(0), {"x": ROWS})["y"]
        with ThreadPoolExecutor(4) as pool:
            outputs = list(pool.map(lambda _: batcher.run_on_thread({"x": ROWS}), range(8)))
        for output in outputs:
            np.testing.assert_array_equal(output["y"], expected)
        with pytest.raises(ModelportError):
            batcher.run_on_thread({"x": np.zeros((1, 3), np.float32)})
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_unloading_waits_for_requests_that_run(store: Path) -> None:
    table = table_of(store, "a", "b")
    model = table.get("b")
    model.thread_counters.started()
    done = threading.Event()

    def unload() -> None:
        table.unload("b")
        done.set()

    thread = threading.Thread(target=unload)
    thread.start()
    assert not done.wait(0.3)
    assert table.get("b").state is State.UNLOADING
    model.thread_counters.answered(200, 0.1)
    assert done.wait(30)
    thread.join()


def test_two_inputs_and_a_scalar_row_count(tmp_path: Path) -> None:
    build_package(
        tmp_path / "two",
        "two",
        sum_of_two(),
        {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 2), np.int64)},
    )
    table = table_of(tmp_path, "two")
    outputs = (
        table.get("two")
        .ready()[1]
        .run_on_thread({"a": np.ones((5, 3), np.float32), "b": np.ones((5, 2), np.int64)})
    )
    assert outputs["total"].shape == (5,)
    assert b'modelport_rows_total{model="two",version="1"} 5' in table.metrics.render()
