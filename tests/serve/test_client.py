"""The client of ``modelport predict`` against the real server, and against what is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.api import predict
from modelport.core.errors import (
    EngineError,
    InputError,
    ModelportError,
    NotFoundError,
    SignatureError,
    UnauthenticatedError,
    UnavailableError,
)
from modelport.core.rows import Rows
from modelport.serve.client import predict_remotely

from . import onnx_models
from .packages import build_package, reference
from .running import RunningServer, free_port

ROWS = np.random.default_rng(5).normal(size=(5, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    def package(name: str, model: bytes, folder: str = "", **golden: Any) -> Path:
        inputs = {key: np.asarray(value) for key, value in golden.items()}
        return build_package(module_path / (folder or name), name, model, inputs).path

    models = [
        package("dense", onnx_models.dense(0), x=ROWS),
        package("dense", onnx_models.dense(1), "newer", x=ROWS),
        package("two", onnx_models.sum_of_two(), a=ROWS[:, :3], b=np.arange(10).reshape(5, 2)),
        package("classifier", onnx_models.classifier(), x=ROWS[:, :3]),
        package("text", onnx_models.identity("string", ("N",)), x=np.array(["a"], object)),
        package("wide", onnx_models.identity("float64"), x=np.ones((1, 2))),
        package("half", onnx_models.identity("float16"), x=np.ones((1, 2), np.float16)),
        package("flags", onnx_models.identity("bool"), x=np.ones((1, 2), bool)),
        package("lookup", onnx_models.lookup(), i=np.arange(10)),
    ]
    with RunningServer(module_path / "server", models) as running:
        yield running


def url(server: RunningServer, place: str) -> str:
    return f"http://127.0.0.1:{server.port}/{place}"


@pytest.mark.parametrize(
    ("place", "seed"), [("dense", 1), ("dense/versions/1", 0), ("dense/versions/2/", 1)]
)
def test_floats(server: RunningServer, place: str, seed: int) -> None:
    got = predict_remotely(url(server, place), Rows({"": ROWS}))
    expected = reference(onnx_models.dense(seed), {"x": ROWS})
    assert got.keys() == {"y"}
    np.testing.assert_allclose(got["y"], expected["y"], rtol=1e-5)
    assert got["y"].dtype == np.float32


def test_rows_are_cast_to_what_the_server_tells(server: RunningServer) -> None:
    got = predict_remotely(url(server, "dense"), Rows({"x": ROWS.astype(np.float64)}))
    expected = reference(onnx_models.dense(1), {"x": ROWS})
    np.testing.assert_allclose(got["y"], expected["y"], rtol=1e-5)


def test_several_inputs_and_outputs(server: RunningServer) -> None:
    columns = {"b": np.arange(10).reshape(5, 2), "a": ROWS[:, :3], "unused": np.zeros(5)}
    got = predict_remotely(url(server, "two"), Rows(columns))
    expected = reference(onnx_models.sum_of_two(), {"a": columns["a"], "b": columns["b"]})
    np.testing.assert_allclose(got["total"], expected["total"], rtol=1e-5)
    got = predict_remotely(url(server, "classifier"), Rows({"": ROWS[:, :3]}))
    expected = reference(onnx_models.classifier(), {"x": ROWS[:, :3]})
    assert got["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(got["scores"], expected["scores"], rtol=1e-5)


def test_strings(server: RunningServer) -> None:
    text = np.array(["plain", "grüße", "", "日本語\0"], object)
    got = predict_remotely(url(server, "text"), Rows({"x": text}))
    assert got["y"].tolist() == text.tolist()


def test_values_come_back_bit_by_bit(server: RunningServer) -> None:
    wide = np.array([[np.nan, -np.inf], [-0.0, 5e-324]])
    got = predict_remotely(url(server, "wide"), Rows({"x": wide}))["y"]
    assert got.tobytes() == wide.tobytes()
    half = np.array([[np.inf, 6e-8]], np.float16)
    assert predict_remotely(url(server, "half"), Rows({"x": half}))["y"].tobytes() == half.tobytes()
    flags = np.array([[True, False]])
    assert predict_remotely(url(server, "flags"), Rows({"x": flags}))["y"].tolist() == [
        [True, False]
    ]


def test_unknown_models(server: RunningServer) -> None:
    with pytest.raises(NotFoundError) as caught:
        predict_remotely(url(server, "dence"), Rows({"": ROWS}))
    assert "dense" in caught.value.hint
    with pytest.raises(NotFoundError):
        predict_remotely(url(server, "dense/versions/9"), Rows({"": ROWS}))


def test_rows_that_do_not_fit(server: RunningServer) -> None:
    with pytest.raises(SignatureError, match=r"shape \[5, 3\], expected \[N, 8\]"):
        predict_remotely(url(server, "dense"), Rows({"": ROWS[:, :3]}))


def test_a_model_that_fails(server: RunningServer) -> None:
    with pytest.raises(EngineError, match="out of data bounds"):
        predict_remotely(url(server, "lookup"), Rows({"i": np.array([99])}))


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://127.0.0.1:1/", "http:///dense"])
def test_addresses_without_a_model_or_host(address: str) -> None:
    with pytest.raises(InputError, match="names no model"):
        predict_remotely(address, Rows({"": ROWS}))


@pytest.mark.parametrize("port", ["port", "99999", "-1"])
def test_addresses_with_a_wrong_port(port: str) -> None:
    with pytest.raises(InputError):
        predict_remotely(f"http://127.0.0.1:{port}/dense", Rows({"": ROWS}))


def test_nobody_there() -> None:
    address = f"http://127.0.0.1:{free_port()}/dense"
    with pytest.raises(UnavailableError, match="no answer from http://127"):
        predict_remotely(address, Rows({"": ROWS}))


@contextmanager
def another_server(status: int, body: bytes, header: str | None = None) -> Iterator[str]:
    """The address of a server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if header is not None:
                self.send_header("Inference-Header-Content-Length", header)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/dense"
        finally:
            server.shutdown()
            thread.join(60)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>hello</html>"),
        (200, b""),
        (200, b"[]"),
        (200, b"{}"),
        (200, b"null"),
        (200, b'{"inputs": {}, "outputs": []}'),
        (200, b'{"inputs": [], "outputs": []}'),
        (200, b'{"inputs": [{}], "outputs": [{}]}'),
        (200, b'{"inputs": [{"name": "x"}], "outputs": [{"name": "y"}]}'),
        (
            200,
            b'{"inputs": [{"name": "x", "shape": [-1], "datatype": "BF16"}],'
            b' "outputs": [{"name": "y", "shape": [-1], "datatype": "BF16"}]}',
        ),
        (200, b"\xff\xfe"),
        (404, b"<html>not here</html>"),
        (404, b'{"detail": "Not Found"}'),
        (404, b"[]"),
        (500, b'"oops"'),
        (502, b"Bad Gateway"),
    ],
)
def test_servers_of_another_kind(status: int, body: bytes) -> None:
    with another_server(status, body) as address, pytest.raises(ModelportError):
        predict_remotely(address, Rows({"": ROWS}))


@pytest.mark.parametrize("header", ["x", "-1", "999999"])
def test_a_wrong_header(header: str) -> None:
    with another_server(200, b"{}", header) as address, pytest.raises(ModelportError):
        predict_remotely(address, Rows({"": ROWS}))


def test_a_guarded_server_is_shown_the_key(
    server: RunningServer, module_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = module_path / "keys"
    keys.write_text("a-key-of-enough-characters\n", encoding="utf-8")
    with RunningServer(
        module_path / "guarded", [module_path / "dense"], ["--api-key-file", keys]
    ) as guarded:
        address = url(guarded, "dense")
        with pytest.raises(UnauthenticatedError, match="401"):
            predict(address, ROWS)
        monkeypatch.setenv("MODELPORT_API_KEY", "a-wrong-key-of-that-length")
        with pytest.raises(UnauthenticatedError) as error:
            predict(address, ROWS)
        assert "a-wrong-key" not in str(error.value)
        monkeypatch.setenv("MODELPORT_API_KEY", "a-key-of-enough-characters")
        expected = predict_remotely(url(server, "dense/versions/1"), Rows({"": ROWS}))
        np.testing.assert_array_equal(predict(address, ROWS)["y"], expected["y"])
