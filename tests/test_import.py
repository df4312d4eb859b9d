"""Importing modelport is free, and a server loads only what it serves with."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("numpy", "onnxruntime", "onnx", "sklearn", "pandas", "pyarrow", "granian", "simdjson")


def modules_after(statement: str) -> set[str]:
    script = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    assert not modules_after("import modelport") & set(HEAVY)


def test_the_verbs_load_only_what_they_need() -> None:
    assert not modules_after("import modelport.api") & (set(HEAVY) - {"numpy"})


def test_the_server_loads_no_training_library() -> None:
    loaded = modules_after(
        "from modelport.adapters import adapters_of\n"
        "import modelport.serve.stage\n"
        "for kind in ('protocol', 'transport', 'engine'):\n"
        "    for adapter in adapters_of(kind):\n"
        "        if not adapter.extra: adapter.load()"
    )
    assert not loaded & {"onnx", "sklearn", "pandas", "pyarrow", "joblib", "skops"}


def test_a_server_without_grpc_and_uploads_loads_neither() -> None:
    loaded = modules_after(
        "from modelport.adapters import adapters_of\n"
        "import modelport.serve.stage\n"
        "for adapter in adapters_of('protocol'): adapter.load()"
    )
    assert not loaded & {"grpc", "google.protobuf", "python_multipart"}


def test_the_command_line_is_there_before_anything_that_takes_long() -> None:
    # Ctrl-C ends what the verbs import without a traceback.
    assert not modules_after("import modelport.cli.main") & set(HEAVY)
