"""Models that stay in PyTorch: packed, loaded from bytes and from files, and nothing unpickled."""

from __future__ import annotations

import io
import json
import pickle
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convert import torch_models as models
from torch import nn

from modelport.convert.stage import convert
from modelport.core.artifact import Artifact
from modelport.core.errors import EngineError, InputError, UnsafeError
from modelport.core.program_archive import check_program_archive
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source
from modelport.engines.base import EngineOptions
from modelport.engines.torch import TorchEngine

Change = Callable[[str, bytes], bytes | None]


def native(module: Any, rows: Rows) -> Artifact:
    return convert(AuditedSource(Source.of(module), "object"), rows, native=True)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return models.digits()[0]


@pytest.fixture(scope="module")
def program(pixels: torch.Tensor) -> Artifact:
    torch.manual_seed(0)
    images = pixels.reshape(-1, 1, 8, 8)[:40]
    return native(models.Convolutional().eval(), Rows({"": images.numpy()}, "sample"))


def content_of(artifact: Artifact) -> bytes:
    return artifact.files[artifact.model_file]


def changed(content: bytes, change: Change, extra: dict[str, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name, data in (extra or {}).items():
            new.writestr(name, data)
    return buffer.getvalue()


def test_a_program(program: Artifact, pixels: torch.Tensor, tmp_path: Path) -> None:
    assert (program.engine, program.model_file) == ("torch", "model/model.pt2")
    torch.manual_seed(0)
    module = models.Convolutional().eval()
    path = tmp_path / "model.pt2"
    path.write_bytes(content_of(program))
    for file in (path, content_of(program)):
        model = TorchEngine().load(file, EngineOptions(threads=1))
        assert model.signature.to_json()["outputs"] == program.signature.to_json()["outputs"]
        assert [spec.shape for spec in model.signature.inputs] == [("N", 1, "H", "W")]
        for count, size in ((1, 8), (50, 8), (3, 11)):
            images = torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1))
            array = images.numpy()
            array.flags.writeable = False
            answers = model.run({"image": array})
            with torch.no_grad():
                expected = module(images)
            assert list(answers) == list(expected)
            for name, tensor in expected.items():
                np.testing.assert_allclose(answers[name], tensor.numpy(), rtol=1e-5, atol=1e-6)


def test_the_report_says_what_it_costs(program: Artifact) -> None:
    (note,) = [note for note in program.parity["notes"] if "runs in PyTorch when served" in note]
    assert int(note.split(" takes ")[1].split(" MB")[0]) > 100
    assert program.parity["label_flips"] == 0


def test_recurrent_networks_become_scripts(pixels: torch.Tensor) -> None:
    torch.manual_seed(0)
    module = models.Recurrent().eval()
    lines = pixels.reshape(-1, 8, 8)
    artifact = native(module, Rows({"": lines[:40].numpy()}, "sample"))
    assert artifact.model_file == "model/model.torchscript"
    model = TorchEngine().load(content_of(artifact), EngineOptions())
    longer = torch.cat([lines, lines], dim=1)[:30]
    with torch.no_grad():
        expected = module(longer).numpy()
    found = model.run({"lines": longer.numpy()})["output"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_same_model_gives_the_same_bytes_without_traces(pixels: torch.Tensor) -> None:
    for module, rows in (
        (models.Dense(), pixels[:20]),
        (models.Recurrent(nn.GRU), pixels[:20].reshape(-1, 8, 8)),
    ):
        sample = Rows({"": rows.numpy()}, "sample")
        content = content_of(native(module, sample))
        assert content == content_of(native(module, sample))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            everything = b"".join(archive.read(name) for name in archive.namelist())
        for trace in (b"torch_models.py", b"site-packages", b"/home", b"stack_trace"):
            assert trace not in everything
        assert rows[:3].numpy().tobytes() not in everything, "the user's rows stay at home"


def test_many_threads_at_once(program: Artifact) -> None:
    model = TorchEngine().load(content_of(program), EngineOptions())
    images = np.random.default_rng(0).random((8, 1, 8, 8), dtype=np.float32)
    wanted = model.run({"image": images})["logits"]
    wrong: list[float] = []

    def ask() -> None:
        for _ in range(20):
            found = model.run({"image": images})["logits"]
            wrong.append(float(np.abs(found - wanted).max()))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 80
    assert max(wrong) < 1e-6


def test_errors_name_the_cause(program: Artifact) -> None:
    model = TorchEngine().load(content_of(program), EngineOptions())
    with pytest.raises(EngineError, match="PyTorch failed"):
        model.run({"image": np.zeros((2, 3, 8, 8), np.float32)})
    for damaged in (b"", b"PK\x03\x04", content_of(program)[:500]):
        with pytest.raises(EngineError):
            TorchEngine().load(damaged, EngineOptions())


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code in the file was run')",))


def with_program(change: Callable[[dict[str, Any]], None]) -> Change:
    def edit(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        plain = json.loads(data)
        change(plain)
        return json.dumps(plain).encode()

    return edit


def call_system(plain: dict[str, Any]) -> None:
    plain["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"


def evaluate_in_size(plain: dict[str, Any]) -> None:
    text = json.dumps(plain).replace("Symbol(", "__import__('os').system('x') or Symbol(", 1)
    plain.clear()
    plain.update(json.loads(text))


def evaluate_in_range(plain: dict[str, Any]) -> None:
    plain["range_constraints"]["eval('1')"] = {"min_val": 1, "max_val": 2}


def pickled_weight(name: str, data: bytes) -> bytes:
    if name.endswith("weight_0"):
        return pickle.dumps(Bomb())
    if name.endswith("model_weights_config.json"):
        return data.replace(b'"use_pickle": false', b'"use_pickle": true')
    return data


def same(name: str, data: bytes) -> bytes:
    return data


HOSTILE: dict[str, tuple[Change, dict[str, bytes]]] = {
    "function": (with_program(call_system), {}),
    "size": (with_program(evaluate_in_size), {}),
    "range": (with_program(evaluate_in_range), {}),
    "pickle": (pickled_weight, {}),
    "library": (same, {"archive/data/aotinductor/model/model.so": b"\x7fELF"}),
    "object": (same, {"archive/data/constants/custom_obj_0": pickle.dumps(Bomb())}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_program_that_would_run_code_is_not_loaded(kind: str, program: Artifact) -> None:
    change, extra = HOSTILE[kind]
    hostile = changed(content_of(program), change, extra)
    assert hostile != content_of(program)
    with pytest.raises(UnsafeError):
        check_program_archive(hostile)
    with pytest.raises(EngineError, match="must not load"):
        TorchEngine().load(hostile, EngineOptions())


def test_example_inputs_are_not_unpickled_without_restriction(program: Artifact) -> None:
    buffer = io.BytesIO()
    torch.save((Bomb(),), buffer)

    def swap(name: str, data: bytes) -> bytes:
        return buffer.getvalue() if name.endswith("sample_inputs/model.pt") else data

    hostile = changed(content_of(program), swap)
    with pytest.raises(EngineError):
        TorchEngine().load(hostile, EngineOptions())


def test_honest_programs_pass(program: Artifact) -> None:
    check_program_archive(content_of(program))
    with pytest.raises(InputError, match="not written by torch"):
        check_program_archive(changed(content_of(program), lambda n, d: None, {"x/y": b""}))
