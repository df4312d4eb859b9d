"""MLflow's scoring server, on a real server and with its real client."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import run_client

from modelport import __version__
from modelport.core.compare import TOLERANCES
from modelport.core.digest import sha256_bytes
from modelport.core.manifest import FileEntry, Manifest
from modelport.core.package import write_package
from modelport.core.signature import Signature

from . import onnx_models
from .packages import MODEL_FILE, build_package, signature_of
from .running import Answer, RunningServer
from .scoring_cases import CSV, JSON, PARQUET, parquet

ROWS = [[1.5, 3.0, 0.1], [2.0, 4.0, 1e-7]]


def named_package(folder: Path, name: str, model: bytes, *columns: str) -> Path:
    """A package whose one input has names along its last axis."""
    told = signature_of(model)
    named = Signature(tuple(replace(spec, columns=columns) for spec in told.inputs), told.outputs)
    files = {MODEL_FILE: model, "README.md": b"# a test\n", "baseline.json": b"{}\n"}
    manifest = Manifest(
        name=name,
        engine="onnxruntime",
        model_file=MODEL_FILE,
        files={path: FileEntry(sha256_bytes(data), len(data)) for path, data in files.items()},
        signature=named,
        task="unknown",
        tolerance=TOLERANCES["float32"],
        row_independent=True,
        parity={},
        provenance={"framework": "onnx"},
    )
    return write_package(folder / name, manifest, files).path


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    three = onnx_models.identity("float64", ("N", 3))
    first = named_package(module_path, "named", three, "a", "b", "c")
    classes = {"x": np.ones((2, 3), np.float32)}
    second = build_package(
        module_path / "classifier", "classifier", onnx_models.classifier(), classes
    ).path
    with RunningServer(module_path / "server", [first, second]) as running:
        yield running
        assert "Traceback" not in running.log()
        assert "defect" not in running.log()


def ask(server: RunningServer, body: Any, content_type: str = JSON, model: str = "") -> Answer:
    headers = {"Content-Type": content_type}
    if model:
        headers["X-Amzn-SageMaker-Custom-Attributes"] = f"tfs-model-name={model}"
    return server.post("/invocations", body, headers)


def test_the_real_client(server: RunningServer) -> None:
    assert run_client("mlflow_client", server.port).count("ok: ") == 12


def test_health_and_version(server: RunningServer) -> None:
    for path in ("/ping", "/health"):
        answer = server.get(path)
        assert (answer.status, answer.json()) == (200, {"status": "Healthy"})
    answer = server.get("/version")
    assert (answer.status, answer.body.decode()) == (200, __version__)
    for path in ("/health", "/version"):
        answer = server.post(path, {})
        assert (answer.status, answer.headers["allow"]) == (405, "GET")
        assert answer.json()["error"] == "Method Not Allowed"


@pytest.mark.parametrize(
    ("document", "predictions"),
    [
        ({"dataframe_split": {"columns": ["a", "b", "c"], "data": ROWS}}, ROWS),
        ({"dataframe_split": {"index": [7, 8], "columns": ["a", "b", "c"], "data": ROWS}}, ROWS),
        ({"dataframe_split": {"columns": ["c", "b", "a"], "data": ROWS}}, [r[::-1] for r in ROWS]),
        ({"dataframe_records": [{"c": 3, "a": 1, "b": 2}]}, [[1.0, 2.0, 3.0]]),
        ({"instances": ROWS}, ROWS),
        ({"instances": [{"a": 1, "b": 2, "c": 3}]}, [[1.0, 2.0, 3.0]]),
        ({"inputs": ROWS}, ROWS),
        ({"inputs": {"x": ROWS}}, ROWS),
        ({"inputs": {"a": [1], "b": [2], "c": [3]}}, [[1.0, 2.0, 3.0]]),
        ({"inputs": ROWS, "params": {"a": 1}}, ROWS),
        ({"inputs": ROWS, "params": None, "other": 1}, ROWS),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_json(server: RunningServer, document: Any, predictions: Any) -> None:
    answer = ask(server, document)
    assert (answer.status, answer.headers["content-type"]) == (200, JSON)
    assert answer.json() == {"predictions": predictions}


def test_several_outputs(server: RunningServer) -> None:
    """Records for rows, and an object of lists for the columnar form."""
    rows = [[1.0, 3.0, 2.0], [9.0, 0.0, 0.0]]
    split = {"dataframe_split": {"data": rows}}
    by_row = ask(server, split, model="classifier").json()["predictions"]
    assert [row["label"] for row in by_row] == [1, 0]
    columns = ask(server, {"inputs": rows}, model="classifier").json()["predictions"]
    assert columns["label"] == [1, 0]
    assert columns["scores"] == [row["scores"] for row in by_row]


def test_nan_and_infinity(server: RunningServer) -> None:
    body = b'{"dataframe_split": {"columns": ["a", "b", "c"], "data": [[NaN, -Infinity, null]]}}'
    answer = ask(server, body)
    assert answer.body == b'{"predictions":[[NaN,-Infinity,NaN]]}'
    assert math.isnan(answer.json()["predictions"][0][0])


def test_tables_in_other_formats(server: RunningServer) -> None:
    columns = {"c": [0.1, 1e-7], "b": [3, 4], "a": [1.5, 2.0]}
    assert ask(server, parquet(**columns), PARQUET).json() == {"predictions": ROWS}
    assert ask(server, b"c,b,a\r\n0.1,3,1.5\r\n1e-7,4,2\r\n", CSV).json() == {"predictions": ROWS}


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        ({}, JSON, 400, "exactly one of"),
        ({"instances": ROWS, "inputs": ROWS}, JSON, 400, "exactly one of"),
        ({"messages": []}, JSON, 400, "exactly one of"),
        ({"inputs": ROWS, "params": 1}, JSON, 400, "params"),
        ({"inputs": ROWS, "signature_name": "other"}, JSON, 400, "signature_name"),
        ("text", JSON, 400, "JSON object"),
        (1, JSON, 400, "JSON object"),
        (b"{", JSON, 400, "not JSON"),
        ({"dataframe_records": [{"a": 1, "b": 2}]}, JSON, 400, "columns are missing: c"),
        ({"dataframe_records": [{"a": "1", "b": 2, "c": 3}]}, JSON, 400, "float64"),
        ({"dataframe_records": [{"a": True, "b": 2, "c": 3}]}, JSON, 400, "float64"),
        (b"a,b\n1,2\n", CSV, 400, "columns are missing: c"),
        (ROWS, "application/json; charset=utf-16", 415, "UTF-8"),
        (ROWS, "application/json; format=pandas-split", 415, "format"),
        (ROWS, "application/xml", 415, "application/xml"),
        (b"PAR1", PARQUET, 400, "Parquet"),
    ],
)
def test_errors(
    server: RunningServer, body: Any, content_type: str, status: int, words: str
) -> None:
    answer = ask(server, body, content_type)
    assert (answer.status, answer.headers["content-type"]) == (status, JSON)
    document = answer.json()
    assert document.keys() == {"error_code", "message", "error"}
    assert words in document["message"]


def test_openapi(server: RunningServer) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    assert set(paths["/health"]["get"]["responses"]) >= {"200", "503"}
    assert "text/plain" in paths["/version"]["get"]["responses"]["200"]["content"]
    body = paths["/invocations"]["post"]["requestBody"]["content"]
    assert {JSON, CSV, PARQUET, "application/jsonlines"} <= set(body)
