"""Weights in files: found wherever training loops put them, matched with the factory's model."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_safetensors
from torch import nn

from modelport.convert.frameworks.torch import TorchFramework
from modelport.core.errors import (
    InputError,
    ModelportError,
    NotFoundError,
    UnsafeError,
    UnsupportedError,
)
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source
from modelport.scan.stage import audit

from . import torch_models as models

FACTORY = f"{models.__name__}:Dense"


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(1)
    return models.Dense().eval()


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(thing: Any, name: str = "model.pt", **options: Any) -> Path:
        path = tmp_path / name
        torch.save(thing, path, **options)
        return path

    return write


def load(path: Path, factory: str = FACTORY, **trust: Any) -> Any:
    return TorchFramework().load(audit(Source.of(path, factory=factory), **trust))


def check(source: Any, module: nn.Module) -> None:
    pixels = models.digits()[0][:50]
    with torch.no_grad():
        expected = module(pixels).numpy()
    found = source.predict(Rows({"pixels": pixels.numpy()}))["output"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def prefixed(module: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def test_a_plain_state_dict(module: nn.Module, save: Callable[..., Path]) -> None:
    source = load(save(module.state_dict()))
    check(source, module)
    assert source.notes == ()


def test_the_format_before_zip(module: nn.Module, save: Callable[..., Path]) -> None:
    path = save(module.state_dict(), "model.pth", _use_new_zipfile_serialization=False)
    check(load(path), module)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "my_weights"])
def test_nested_in_a_checkpoint(key: str, module: nn.Module, save: Callable[..., Path]) -> None:
    checkpoint = {"epoch": 3, "optimizer": {"state": {}}, key: module.state_dict()}
    check(load(save(checkpoint, "last.ckpt")), module)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "model.module.", "enc."])
def test_prefixes_of_wrappers(prefix: str, module: nn.Module, save: Callable[..., Path]) -> None:
    weights = {**prefixed(module, prefix), "criterion.weight": torch.ones(3)}
    source = load(save({"state_dict": weights, "epoch": 1}))
    check(source, module)
    (note,) = source.notes
    assert f"{prefix!r}, which was dropped" in note
    assert "1 tensors outside it were left out: criterion.weight" in note


def test_a_prefix_that_only_the_model_has(module: nn.Module, save: Callable[..., Path]) -> None:
    weights = {n.removeprefix("layers."): t for n, t in module.state_dict().items()}
    source = load(save(weights))
    check(source, module)
    assert source.notes == ("'layers.' was put before the names in the file",)


def test_averaged_weights_are_not_taken_for_the_model(
    module: nn.Module, save: Callable[..., Path]
) -> None:
    averaged = {name: tensor + 1 for name, tensor in module.state_dict().items()}
    source = load(save({"state_dict_ema": averaged, "state_dict": module.state_dict()}))
    check(source, module)
    assert source.notes == (
        "the weights under 'state_dict' were used; there are also: state_dict_ema",
    )


def test_safetensors(module: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save_safetensors(module.state_dict()))
    check(load(path), module)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError):
        load(path)


def test_old_files_have_no_counter_of_steps(module: nn.Module, save: Callable[..., Path]) -> None:
    weights = {n: t for n, t in module.state_dict().items() if "num_batches" not in n}
    check(load(save(weights)), module)


def test_without_a_factory_the_hint_says_what_there_is(
    module: nn.Module, save: Callable[..., Path]
) -> None:
    with pytest.raises(UnsupportedError, match=r"9 tensors \(layers\.0\.weight") as caught:
        load(save(module.state_dict()), factory="")
    assert "--factory module:Name" in caught.value.hint


def test_weights_that_do_not_fit(module: nn.Module, save: Callable[..., Path]) -> None:
    weights = dict(module.state_dict())
    weights["layers.4.weight"] = torch.ones(3, 32)
    weights["extra"] = weights.pop("layers.0.bias")
    with pytest.raises(InputError) as caught:
        load(save(weights))
    assert caught.value.message == (
        "the weights do not fit the factory's model: "
        "1 tensors of the model are not in the file: layers.0.bias; "
        "1 tensors of the file are not in the model: extra; "
        "1 tensors have another shape: layers.4.weight [3, 32], the model has [10, 32]"
    )


def test_a_file_without_weights(save: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="no weights, but a dict with epoch, loss"):
        load(save({"epoch": 1, "loss": torch.tensor(0.5)}))


@pytest.mark.parametrize(
    ("factory", "kind", "message"),
    [
        ("nonsense", InputError, "not a factory"),
        ("no_such_module_here:Net", NotFoundError, "module of the factory not found"),
        (f"{models.__name__}:Dens", NotFoundError, "attribute of .* not found: Dens; .*Dense"),
        (f"{models.__name__}:NOT_CALLABLE", InputError, "is a int, and cannot be called"),
        (f"{models.__name__}:not_a_module", InputError, "made a int, not a torch.nn.Module"),
        (f"{models.__name__}:Needy", InputError, "failed: TypeError: .*'width'"),
    ],
)
def test_factories_that_cannot_be_used(
    factory: str,
    kind: type[ModelportError],
    message: str,
    module: nn.Module,
    save: Callable[..., Path],
) -> None:
    with pytest.raises(kind, match=message):
        load(save(module.state_dict()), factory=factory)


def test_a_factory_beside_the_file(
    module: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two checkpoints, each with a file of the same name beside it."""
    for width in (32, 16):
        folder = tmp_path / str(width)
        folder.mkdir()
        code = (
            "from torch import nn\nprint('importing')\n\n"
            f"def build():\n    return nn.Sequential(nn.Linear(64, {width}))\n"
        )
        (folder / "my_network.py").write_text(code)
        torch.save({"0.weight": torch.ones(width, 64), "0.bias": torch.zeros(width)},
                   folder / "weights.pt")  # fmt: skip
        source = load(folder / "weights.pt", factory="my_network:build")
        answers = source.predict(Rows({"": np.ones((2, 64), np.float32)}))
        assert answers["output"].tolist() == [[64.0] * width] * 2
    assert capsys.readouterr().out == "", "stdout is for data"


def test_code_in_the_file_is_not_run(save: Callable[..., Path]) -> None:
    path = save(models.Dense())
    with pytest.raises(UnsafeError, match="torch_models"):
        load(path)
    # Allowed by name, exactly that is built, and it works without a factory.
    allowed = load(path, factory="", allow=[f"{models.__name__}.Dense"])
    assert allowed.predict(Rows({"": np.ones((3, 64), np.float32)}))["output"].shape == (3, 10)


def test_a_whole_module_of_pytorchs_own_layers(save: Callable[..., Path]) -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    check(load(save(whole), factory=""), whole)


def test_damaged_files(module: nn.Module, tmp_path: Path, save: Callable[..., Path]) -> None:
    program = io.BytesIO()
    script = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, (torch.ones(2, 64),)), program)
        torch.jit.save(torch.jit.script(module), script)
    contents = {
        "model.pt2": program.getvalue(),
        "model.jit": script.getvalue(),
        "weights.pt": save(module.state_dict()).read_bytes(),
    }
    for name, content in contents.items():
        for cut in (10, len(content) // 2, len(content) - 30):
            path = tmp_path / name
            path.write_bytes(content[:cut])
            with pytest.raises(ModelportError):
                load(path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code in the file was run')",))


@pytest.mark.parametrize("record", ["data/sample_inputs/model.pt", "data/constants/custom_obj_0"])
def test_pickles_in_a_program_are_not_run(record: str, module: nn.Module) -> None:
    """Even if the scan had let the file pass: PyTorch itself would unpickle them."""
    content, bomb = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, (torch.ones(2, 64),)), content)
    torch.save((Bomb(),), bomb)
    hostile = io.BytesIO()
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(hostile, "w") as new:
        for name in old.namelist():
            if not name.endswith(record):
                new.writestr(name, old.read(name))
        new.writestr(f"archive/{record}", bomb.getvalue())
    source = Source("model.pt2", path=Path("model.pt2"), content=hostile.getvalue())
    with pytest.raises(UnsafeError):
        TorchFramework().load(AuditedSource(source, "pt2"))
