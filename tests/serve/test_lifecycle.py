"""From the start to the end of a server: it proves itself, survives, and leaves in order."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.core.digest import sha256_bytes
from modelport.core.package import CHECKSUM, MANIFEST
from modelport.registry.stage import Registry
from modelport.serve.base import ModelSpec
from modelport.serve.metrics import Metrics, model_labels
from modelport.serve.table import ModelTable
from modelport.stores.local import LocalStore

from . import onnx_models
from .conftest import Serve
from .packages import MODEL_FILE, build_package, reference
from .running import LIMIT, Answer, RunningServer, ask

ROWS = np.random.default_rng(3).normal(size=(4, 8)).astype(np.float32)
#: Steps of the laborious model that take from a second to several.
LONG = 400_000


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return build_package(tmp_path / "dense", "dense", onnx_models.dense(), {"x": ROWS}).path


@pytest.fixture(scope="module")
def laborious(module_path: Path) -> Path:
    golden = {"n": np.array([0])}
    return build_package(module_path / "slow", "slow", onnx_models.laborious(), golden).path


@pytest.fixture(scope="module")
def slow_to_load(module_path: Path) -> Path:
    """Its golden record takes a while to be answered."""
    golden = {"n": np.array([LONG])}
    return build_package(module_path / "late", "late", onnx_models.laborious(), golden).path


def expect_exit(server: RunningServer, code: int, *messages: str) -> None:
    """The server must end by itself with `code`, and say each of `messages`."""
    assert server.wait_exit() == code, server.log()
    log = server.log()
    assert log.startswith("error: ") or "\nerror: " in log
    assert "Traceback" not in log
    for message in messages:
        assert message in log


def steps(server: RunningServer, number: int) -> Answer:
    return server.post("/v1/models/slow:predict", {"inputs": [number]})


def metric(server: RunningServer, name: str, labels: str) -> float:
    for line in server.get("/metrics").body.decode().splitlines():
        if line.startswith(f"{name}{{{labels}"):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_wrong_golden_records(slow_to_load: Path, launch: Serve, tmp_path: Path) -> None:
    """It refuses with code 3, names the output, and was not ready for a moment."""
    good = build_package(tmp_path / "good", "good", onnx_models.dense(), {"x": ROWS}).path
    wrong = build_package(
        tmp_path / "wrong",
        "wrong",
        onnx_models.classifier(),
        {"x": ROWS[:, :3]},
        wrong_output="scores",
    ).path
    server = launch([good, slow_to_load, wrong])
    statuses: set[int] = set()
    while server.process.poll() is None and 200 not in statuses:
        with contextlib.suppress(OSError, http.client.HTTPException):
            statuses.add(server.get("/v2/health/ready").status)
        time.sleep(0.005)  # every connection leaves a port in TIME-WAIT
    assert statuses <= {503}
    expect_exit(server, 3, "golden records are not answered", "scores", str(wrong))


def test_ready_only_after_everything_is_proven(
    slow_to_load: Path, dense: Path, launch: Serve
) -> None:
    server = launch([dense, slow_to_load])
    seen: list[int] = []

    def look() -> bool:
        seen.append(server.get("/v2/health/ready").status)
        if seen == [503]:
            assert server.get("/v2/health/live").status == 200
            assert server.get("/v2/models/late/ready").status == 503
            refused = server.post("/v1/models/late:predict", {"inputs": [0]})
            assert refused.status == 503
            assert "not ready: loading" in refused.json()["error"]
            status = server.get("/v1/models/late").json()["model_version_status"]
            assert status[0]["state"] == "LOADING"
            assert metric(server, "modelport_model_ready", 'model="late"') == 0
        return seen[-1] == 200

    server.wait_for("readiness", look)
    assert seen == [503] * (len(seen) - 1) + [200]
    assert len(seen) > 1
    assert server.post("/v1/models/late:predict", {"inputs": [0]}).status == 200
    assert metric(server, "modelport_model_ready", 'model="late"') == 1
    server.wait_for("the last line", lambda: "listening on http://127.0.0.1:" in server.log())
    assert "ready: dense version 1: 4 golden records answered correctly" in server.log()


def flip_a_byte(path: Path) -> str:
    content = bytearray((path / MODEL_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (path / MODEL_FILE).write_bytes(content)
    return MODEL_FILE


def cut(path: Path) -> str:
    content = (path / "golden.npz").read_bytes()
    (path / "golden.npz").write_bytes(content[:-1])
    return "golden.npz"


def remove(path: Path) -> str:
    (path / "baseline.json").unlink()
    return "baseline.json"


def add(path: Path) -> str:
    (path / "model" / "notes.txt").write_text("by hand")
    return "model/notes.txt"


def edit_manifest(path: Path, old: bytes, new: bytes) -> None:
    """Change the manifest, and its checksum with it."""
    content = (path / MANIFEST).read_bytes().replace(old, new)
    (path / MANIFEST).write_bytes(content)
    (path / CHECKSUM).write_text(f"{sha256_bytes(content)}  {MANIFEST}\n")


def change_the_manifest(path: Path) -> str:
    content = (path / MANIFEST).read_bytes()
    (path / MANIFEST).write_bytes(content.replace(b'"task":"unknown"', b'"task":"known"'))
    return CHECKSUM


def spell_the_manifest_otherwise(path: Path) -> str:
    edit_manifest(path, b'"row_independent":true', b'"row_independent":1')
    return MANIFEST


def cut_the_manifest(path: Path) -> str:
    content = (path / MANIFEST).read_bytes()
    (path / MANIFEST).write_bytes(content[:-10])
    return CHECKSUM


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        cut,
        remove,
        add,
        change_the_manifest,
        spell_the_manifest_otherwise,
        cut_the_manifest,
    ],
)
def test_damaged_packages(dense: Path, launch: Serve, damage: Callable[[Path], str]) -> None:
    named = damage(dense)
    expect_exit(launch([dense]), 3, named)


def test_a_package_that_names_no_known_engine(dense: Path, launch: Serve) -> None:
    edit_manifest(dense, b'"onnxruntime"', b'"steamengine"')
    expect_exit(launch([dense]), 2, "engine not found: steamengine; there is: onnxruntime")


def test_unknown_paths(dense: Path, launch: Serve) -> None:
    missing = dense.parent / "dence"
    expect_exit(launch([missing]), 2, f"package not found: {missing}", "dense", "hint: ")
    expect_exit(launch([dense.parent / "no.onnx"]), 2, "model file not found", "no.onnx")
    (dense.parent / "empty").mkdir()
    expect_exit(launch([dense, dense.parent / "empty"]), 2, "package not found")


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Two versions of ``dense``; ``champion`` is the first."""
    opened = Registry(LocalStore(tmp_path / "registry"))
    for seed in range(2):
        folder = tmp_path / f"pushed-{seed}"
        opened.push(build_package(folder, "dense", onnx_models.dense(seed), {"x": ROWS}))
    opened.promote("dense", 1, "champion")
    return tmp_path / "registry"


@pytest.mark.parametrize(
    ("reference_text", "known"),
    [("dence", "dense"), ("dense@champio", "champion"), ("dense@7", "2"), ("dense@", "name@alias")],
)
def test_unknown_names(registry: Path, launch: Serve, reference_text: str, known: str) -> None:
    server = launch([reference_text], ["--registry", registry])
    expect_exit(server, 2, known)


def test_an_empty_registry(launch: Serve) -> None:
    expect_exit(launch(["dense"]), 2, "not found: dense; there is none")


def test_a_version_given_twice(registry: Path, launch: Serve) -> None:
    server = launch(["dense@1", "dense@champion"], ["--registry", registry])
    expect_exit(server, 2, "version 1 is given twice")


def test_a_port_in_use(dense: Path, launch: Serve, serve: Serve) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        server = launch([dense], ["--port", port])
        expect_exit(server, 2, f"cannot listen on 127.0.0.1:{port}", "hint: ", "--port")
    # Its own kind listens with SO_REUSEPORT, and must not share by accident.
    running = serve([dense])
    second = launch([dense], ["--port", str(running.port), "--workers", "2"])
    expect_exit(second, 2, f"cannot listen on 127.0.0.1:{running.port}")
    assert running.get("/v2/health/ready").status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.com"])
def test_other_machines_need_consent(dense: Path, launch: Serve, host: str) -> None:
    expect_exit(launch([dense], ["--host", host]), 2, host, "--allow-anonymous")


def test_consent_to_other_machines(dense: Path, serve: Serve) -> None:
    server = serve([dense], ["--host", "0.0.0.0", "--allow-anonymous"])
    assert server.get("/v2/health/ready").status == 200


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--port", "0"),
        ("--port", "70000"),
        ("--workers", "-1"),
        ("--threads", "-1"),
        ("--max-body", "-1"),
        ("--max-batch", "0"),
        ("--max-queue", "-5"),
        ("--timeout", "nan"),
        ("--body-timeout", "-0.5"),
        ("--grace", "-1.0"),
        ("--compress-above", "-1"),
    ],
)
def test_options_out_of_range(dense: Path, launch: Serve, flag: str, value: str) -> None:
    expect_exit(launch([dense], [flag, value]), 2, f"{flag} is {value}")


def test_one_port_for_both_transports(dense: Path, launch: Serve) -> None:
    server = launch([dense], ["--port", "18321", "--grpc-port", "18321"])
    expect_exit(server, 2, "18321", "hint: ", "--grpc-port")


def test_an_address_of_another_machine(dense: Path, launch: Serve) -> None:
    # 192.0.2.0/24 is nobody's: RFC 5737.
    server = launch([dense], ["--host", "192.0.2.1", "--allow-anonymous"])
    expect_exit(server, 2, "cannot listen on 192.0.2.1", "--host")
    assert "another program" not in server.log()


def test_packages_of_one_name_are_versions(tmp_path: Path, serve: Serve) -> None:
    paths = [
        build_package(tmp_path / f"copy-{s}", "dense", onnx_models.dense(s), {"x": ROWS}).path
        for s in range(2)
    ]
    server = serve(paths)
    document = {"instances": ROWS.tolist()}
    answers = []
    for place, seed in (("dense", 1), ("dense/versions/1", 0), ("dense/versions/2", 1)):
        answer = server.post(f"/v1/models/{place}:predict", document).json()["predictions"]
        expected = reference(onnx_models.dense(seed), {"x": ROWS})["y"]
        np.testing.assert_allclose(answer, expected, rtol=1e-5)
        answers.append(answer)
    assert answers[0] == answers[2] != answers[1]


def test_models_of_the_registry_and_of_folders(
    registry: Path, laborious: Path, serve: Serve
) -> None:
    server = serve(["dense@champion", "dense@2", laborious], ["--registry", registry])
    assert server.get("/v2/models").json() == {"models": ["dense", "slow"]}
    assert server.get("/v2/models/dense").json()["versions"] == ["1", "2"]
    metadata = server.get("/v1/models/dense/labels/champion/metadata").json()
    assert metadata["model_spec"]["version"] == "1"
    server.wait_for("its line", lambda: "ready: dense version 1 (champion)" in server.log())


def test_a_file_without_a_package(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "My Model.onnx"
    path.write_bytes(onnx_models.dense())
    server = serve([path])
    answer = server.post("/v1/models/my-model:predict", {"instances": ROWS.tolist()})
    expected = reference(onnx_models.dense(), {"x": ROWS})["y"]
    np.testing.assert_allclose(answer.json()["predictions"], expected, rtol=1e-5)
    assert "properties" in server.get("/v2/models/my-model").json()
    server.wait_for("the last line", lambda: "unproven: it has no golden records" in server.log())


def test_a_package_without_golden_records(tmp_path: Path, serve: Serve) -> None:
    path = build_package(tmp_path / "bare", "bare", onnx_models.dense(), None).path
    server = serve([path])
    assert server.post("/v1/models/bare:predict", {"instances": ROWS.tolist()}).status == 200


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_requests_are_answered_before_the_end(
    laborious: Path, serve: Serve, number: signal.Signals, workers: str
) -> None:
    server = serve([laborious], ["--workers", workers])
    answers: list[Any] = []
    request = threading.Thread(target=lambda: answers.append(steps(server, LONG)), daemon=True)
    request.start()
    in_flight = ("modelport_requests_in_flight", 'model="slow"')
    server.wait_for("a running request", lambda: metric(server, *in_flight) == 1)
    server.process.send_signal(number)
    wait_until_refused(server)
    assert not answers, "the request had ended before the connections were refused"
    request.join(LIMIT)
    assert (answers[0].status, answers[0].json()) == (200, {"outputs": [LONG + 2000.0]})
    assert server.wait_exit() == 0
    assert "Traceback" not in server.log()


def test_a_draining_worker_is_not_ready() -> None:
    metrics = Metrics(['model="",version=""', model_labels("m", 1)], workers=1)
    table = ModelTable([ModelSpec("m", 1, "nowhere")], metrics)
    (model,) = table.models
    assert not table.ready()
    metrics.model(1)[0].set_ready(True)
    assert table.ready()
    table.draining = True
    assert not table.ready()
    assert not table.model_ready(model)


def wait_until_refused(server: RunningServer) -> None:
    """Until nobody listens any more, while the process is still there."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            server.socket().close()
        except ConnectionRefusedError:
            return
        except OSError:
            pass
        time.sleep(0.02)  # a storm of connections would keep it busy
    raise AssertionError("it still listens")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_idle_server_ends_at_once(dense: Path, serve: Serve, workers: str) -> None:
    """Connections that are open and idle do not hold it up."""
    server = serve([dense], ["--workers", workers])
    connection = server.connect()
    assert ask(connection, "GET", "/v2/health/ready").status == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    connection.close()


def test_requests_that_outlast_the_grace_are_cut(laborious: Path, serve: Serve) -> None:
    server = serve([laborious], ["--grace", "0.1"])
    answers: list[Any] = []

    def request() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            answers.append(steps(server, LONG).status)

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    in_flight = ("modelport_requests_in_flight", 'model="slow"')
    server.wait_for("a running request", lambda: metric(server, *in_flight) == 1)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    thread.join(LIMIT)
    assert 200 not in answers


@pytest.fixture
def pair(dense: Path, serve: Serve) -> RunningServer:
    return serve([dense], ["--workers", "2"])


def workers_of(server: RunningServer) -> set[int]:
    pid = server.process.pid
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def sockets_of(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(descriptor).startswith("socket:")
    return found


@contextlib.contextmanager
def open_connections(server: RunningServer, count: int) -> Iterator[None]:
    """Connections that have each had an answer."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = server.connect()
            stack.callback(connection.close)
            body = b'{"instances": [[1, 2, 3, 4, 5, 6, 7, 8]]}'
            assert ask(connection, "POST", "/v1/models/dense:predict", body).status == 200
        yield


def answered(server: RunningServer) -> float:
    labels = 'model="dense",version="1",code="200"'
    return metric(server, "modelport_requests_total", labels)


def test_all_workers_answer_and_count_together(pair: RunningServer) -> None:
    before = {pid: sockets_of(pid) for pid in workers_of(pair)}
    assert len(before) == 2
    with open_connections(pair, 64):
        after = {pid: sockets_of(pid) for pid in workers_of(pair)}
    assert after.keys() == before.keys()
    assert all(after[pid] > before[pid] for pid in before)
    # Whichever worker is asked, it tells what all have done.
    assert {answered(pair) for _ in range(20)} == {64}


def test_a_worker_that_dies_is_replaced(pair: RunningServer) -> None:
    with open_connections(pair, 10):
        victim, survivor = sorted(workers_of(pair))
        os.kill(victim, signal.SIGKILL)
    pair.wait_for("a new worker", lambda: len(workers_of(pair) - {victim}) == 2)
    (new,) = workers_of(pair) - {victim, survivor}
    idle = sockets_of(new)

    def new_one_answers() -> bool:
        with open_connections(pair, 32):
            return sockets_of(new) > idle + 1

    pair.wait_for("the new worker's answers", new_one_answers)
    assert pair.get("/v2/health/ready").status == 200
    assert f"worker {0 if victim < survivor else 1} was ended by signal 9" in pair.log()
    with open_connections(pair, 32):
        assert len(workers_of(pair)) == 2
    assert answered(pair) >= 74


def test_the_end_of_all_workers(pair: RunningServer) -> None:
    workers = workers_of(pair)
    pair.process.send_signal(signal.SIGTERM)
    assert pair.wait_exit() == 0
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(ConnectionRefusedError):
        pair.socket()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only")
def test_workers_end_with_a_parent_that_was_killed(pair: RunningServer) -> None:
    pair.process.kill()
    pair.process.wait(LIMIT)
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", pair.port), LIMIT).close()
            time.sleep(0.02)
            continue
        return
    raise AssertionError("the port still answers")


def test_a_worker_that_refuses_ends_the_server(tmp_path: Path, launch: Serve) -> None:
    path = build_package(
        tmp_path / "wrong", "wrong", onnx_models.dense(), {"x": ROWS}, wrong_output="y"
    ).path
    server = launch([path], ["--workers", "2"])
    assert server.wait_exit() == 3
    assert "ended with code 3; stopping" in server.log()


def test_a_package_that_vanishes_stops_no_running_server(
    tmp_path: Path, dense: Path, serve: Serve
) -> None:
    server = serve([dense])
    shutil.rmtree(dense)
    assert server.post("/v1/models/dense:predict", {"instances": ROWS.tolist()}).status == 200
