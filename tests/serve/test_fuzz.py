"""Random and damaged requests: there is always an answer, and never a failure of the server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .bad_bodies import HEADER, OIP, PADDING, TFSERVING, assert_refused, path_of, write_packages
from .running import RunningServer, ask

Connection = http.client.HTTPConnection


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    with RunningServer(module_path / "server", write_packages(module_path)) as running:
        yield running
        assert "Traceback" not in running.log()
        assert "defect" not in running.log()


@pytest.fixture(scope="module")
def connection(server: RunningServer) -> Iterator[Connection]:
    connection = server.connect()
    yield connection
    connection.close()


MODELS = st.sampled_from(["pair", "finite", "cube", "whole", "flags", "text", "two"])
PATHS = st.builds(path_of, st.sampled_from(["tfserving", "oip"]), MODELS)
FUZZ = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=5)
    | st.sampled_from(["x", "a", "b", "y", "FP32", "INT64", "BYTES", "BOOL"])
    | st.sampled_from([10**30, 10**400, -(2**63), 2**63, 2**64])
)
KEYS = st.sampled_from(
    [
        *("instances", "inputs", "outputs", "signature_name", "id", "parameters", "b64"),
        *("name", "shape", "datatype", "data", "binary_data_size", "binary_data_output"),
        *("x", "a", "b"),
    ]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(["instances", "inputs", "outputs", "id", "parameters", "signature_name"]),
    VALUES,
    max_size=4,
)
INPUTS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["x", "a", "b"]) | LEAVES,
            "shape": st.lists(st.integers(0, 3) | LEAVES, max_size=4) | LEAVES,
            "datatype": st.sampled_from(["FP32", "INT64", "BYTES", "BOOL"]) | LEAVES,
            "data": VALUES | st.lists(st.integers(-3, 3), max_size=6),
            "parameters": VALUES | st.fixed_dictionaries({"binary_data_size": st.integers(-1, 99)}),
        },
    ),
    max_size=3,
)


def _byte(value: int) -> bytes:
    return bytes([value])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good body with some bytes changed, taken out or put in."""
    every = [bad.body for bad in (*TFSERVING.values(), *OIP.values()) if len(bad.body) < 400]
    body = bytearray(draw(st.sampled_from([*every, b'{"instances": [[1.5, 2], [3, 4]]}'])))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, max(0, len(body) - 1)))
        body[position : position + draw(st.integers(0, 3))] = draw(
            st.binary(max_size=3) | st.sampled_from(b'[]{},:"\\0123456789-.eE ntfNI').map(_byte)
        )
    return bytes(body)


def survive(connection: Connection, path: str, body: bytes, headers: dict[str, str]) -> None:
    """Whatever the body is, there is an answer, and it is no failure of the server."""
    for padding in (b"", PADDING):
        answer = ask(connection, "POST", path, padding + body, headers)
        assert answer.status < 500, answer.body
        if answer.status != 200:
            assert_refused(answer)


@FUZZ
@given(path=PATHS, document=DOCUMENTS | st.fixed_dictionaries({"inputs": INPUTS}))
def test_random_documents(connection: Connection, path: str, document: Any) -> None:
    survive(connection, path, json.dumps(document).encode(), {})


@FUZZ
@given(path=PATHS, body=damaged())
def test_damaged_bodies(connection: Connection, path: str, body: bytes) -> None:
    survive(connection, path, body, {})


@FUZZ
@given(path=PATHS, body=st.binary(max_size=200))
def test_random_bytes(connection: Connection, path: str, body: bytes) -> None:
    survive(connection, path, body, {})


@FUZZ
@given(
    path=st.builds(path_of, st.just("oip"), MODELS),
    head=st.fixed_dictionaries({"inputs": INPUTS}).map(lambda d: json.dumps(d).encode()),
    buffers=st.binary(max_size=40),
    shift=st.integers(-3, 3),
)
def test_random_binary_requests(
    connection: Connection, path: str, head: bytes, buffers: bytes, shift: int
) -> None:
    for length in (len(head) + shift, len(head), 0):
        answer = ask(connection, "POST", path, head + buffers, {HEADER: str(length)})
        assert answer.status in (200, 400), answer.body
        if answer.status == 400:
            assert_refused(answer)
