"""Open Inference V2 over gRPC: one question, its check, and load from a process of its own.

As a program, pinned like wrk: ``python grpc_load.py HOST:PORT BODY CONNECTIONS SECONDS``, with the
request's message in the file BODY.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import grpc

SCHEME: Final = "grpc://"
_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
_TIMEOUT: Final = 60.0


def encode(name: str, tensor: str, row: Any) -> bytes:
    """The ``ModelInferRequest`` that asks the model `name` for one row, raw."""
    from modelport.serve.protos import message

    request = message("inference.ModelInferRequest")(model_name=name)
    request.inputs.add(name=tensor, datatype="FP32", shape=row.shape)
    request.raw_input_contents.append(row.astype("<f4").tobytes())
    body: bytes = request.SerializeToString()
    return body


def decode(body: bytes) -> Any:
    """The one output of a ``ModelInferResponse``."""
    import numpy as np

    from modelport.serve.protos import message

    answer = message("inference.ModelInferResponse").FromString(body)
    values = np.frombuffer(answer.raw_output_contents[0], dtype="<f4")
    return values.reshape(list(answer.outputs[0].shape))


def ask(url: str, body: bytes, timeout: float) -> bytes:
    """One answer.

    Raises
    ------
    ConnectionError
        When there is none, with the status.
    """
    with grpc.insecure_channel(url.removeprefix(SCHEME), _own_connection()) as channel:
        try:
            answer: bytes = channel.unary_unary(_METHOD)(body, timeout)
        except grpc.RpcError as error:
            raise ConnectionError(f"{url}: {error.code()}: {error.details()}") from error
    return answer


def load(url: str, body: Path, connections: int, seconds: float, core: int) -> dict[str, Any]:
    """Run the program below on a core; the same keys as wrk's script."""
    done = subprocess.run(
        [
            *("taskset", "--cpu-list", str(core), sys.executable, __file__),
            *(url.removeprefix(SCHEME), str(body), str(connections), str(seconds)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds + _TIMEOUT,
    )
    if done.returncode:
        raise ConnectionError(f"{url}: the load generator failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _own_connection() -> list[tuple[str, int]]:
    # Otherwise all channels of a process to one address share a connection.
    return [("grpc.use_local_subchannel_pool", 1)]


def _main(address: str, body: bytes, connections: int, seconds: float) -> None:
    """Ask on every connection again and again; any failure ends it all with a traceback."""
    latencies: list[list[float]] = [[] for _ in range(connections)]
    failures: list[grpc.RpcError] = []
    channels = [grpc.insecure_channel(address, _own_connection()) for _ in latencies]
    calls = [channel.unary_unary(_METHOD) for channel in channels]
    for call in calls:
        call(body, _TIMEOUT)
    started = time.perf_counter()

    def run(call: Any, own: list[float]) -> None:
        before = time.perf_counter()
        while before - started < seconds and not failures:
            try:
                call(body, _TIMEOUT)
            except grpc.RpcError as error:
                failures.append(error)
                return
            after = time.perf_counter()
            own.append(after - before)
            before = after

    threads = [
        threading.Thread(target=run, args=pair) for pair in zip(calls, latencies, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    if failures:
        raise failures[0]
    every = sorted(latency for own in latencies for latency in own)
    print(
        json.dumps(
            {
                # The first question of every connection is work of the server, too.
                "requests": len(every) + connections,
                "microseconds": took * 1e6,
                "p50": every[len(every) // 2] * 1e6,
                "p99": every[len(every) * 99 // 100] * 1e6,
                "status": 0,
                "socket": 0,
            }
        )
    )


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), float(sys.argv[4]))
