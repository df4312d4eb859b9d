"""PyTorch modules: trained on real digits, converted, and asked again on every row."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from modelport.convert.stage import convert
from modelport.core.artifact import Artifact
from modelport.core.errors import (
    InputError,
    ParityError,
    SignatureError,
    UnsupportedError,
)
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source

from . import torch_models as models
from .conftest import MODEL_FILE, runner


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return models.digits()[0]


@pytest.fixture(scope="module")
def images(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.reshape(-1, 1, 8, 8)


@pytest.fixture(scope="module")
def tokens(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    pixels = pixels[:240]
    lengths = torch.arange(len(pixels))[:, None] % 40 + 25
    mask = (torch.arange(64)[None] < lengths).long()
    return {"ids": (pixels * 16).long() * mask, "mask": mask}


def quietly(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def convert_module(module: Any, rows: Rows | np.ndarray | None, **options: Any) -> Artifact:
    if isinstance(rows, np.ndarray):
        rows = Rows({"": rows}, "sample")
    return convert(AuditedSource(Source.of(module), "object"), rows, **options)


def answers_of(module: nn.Module, *inputs: torch.Tensor) -> list[np.ndarray]:
    """PyTorch's own answers in evaluation mode."""
    module = copy.deepcopy(module).eval()
    with torch.no_grad():
        result = module(*inputs)
    leaves = torch.utils._pytree.tree_leaves(result)
    return [leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def check_same(
    artifact: Artifact, inputs: dict[str, torch.Tensor], expected: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """ONNX Runtime itself gives PyTorch's answers, in batches of any size."""
    run = runner(artifact)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    for batch in (0, 1, 7):
        few = {n: a[:29] if batch else a for n, a in arrays.items()}
        actual = run(few, batch)
        for found, wanted in zip(actual.values(), expected, strict=True):
            wanted = wanted[:29] if batch else wanted
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
            if found.ndim == 2 and found.shape[1] == 10:
                np.testing.assert_array_equal(found.argmax(1), wanted.argmax(1))
    return run(arrays)


def shapes(artifact: Artifact) -> dict[str, tuple[int | str, ...]]:
    signature = artifact.signature
    return {spec.name: spec.shape for spec in (*signature.inputs, *signature.outputs)}


def kept(artifact: Artifact) -> str:
    (name,) = [a["name"] for a in artifact.parity["attempts"] if a["outcome"] == "kept"]
    return name


def test_a_dense_network(pixels: torch.Tensor) -> None:
    module = models.trained(models.Dense(), pixels)
    artifact = convert_module(module, pixels.numpy())
    check_same(artifact, {"pixels": pixels}, answers_of(module, pixels))
    assert shapes(artifact) == {"pixels": ("N", 64), "output": ("N", 10)}
    assert artifact.row_independent
    assert artifact.parity["label_flips"] == 0
    assert kept(artifact).startswith("torch.onnx dynamo")
    assert module.training, "the user's module is left as it was"
    labels = models.digits()[1].numpy()
    found = runner(artifact)({"pixels": pixels.numpy()})["output"].argmax(1)
    assert (found == labels).mean() > 0.9


def test_a_convolutional_network_takes_any_image_size(images: torch.Tensor) -> None:
    module = models.trained(models.Convolutional(), images, epochs=10)
    artifact = convert_module(module, images[:200].numpy())
    check_same(artifact, {"image": images}, answers_of(module, images))
    assert shapes(artifact) == {
        "image": ("N", 1, "H", "W"), "logits": ("N", 10), "features": ("N", 8)
    }  # fmt: skip
    larger = torch.nn.functional.interpolate(images[:20], (13, 22))
    check_same(artifact, {"image": larger}, answers_of(module, larger))
    # ONNX Runtime's MaxPool skips NaN: the served model must not answer it.
    assert artifact.signature.inputs[0].refuses == ("nan", "infinity")
    assert any("MaxPool" in note for note in artifact.parity["notes"])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_networks_read_any_length(kind: type[nn.RNNBase], images: torch.Tensor) -> None:
    lines = images[:, 0]
    module = models.trained(models.Recurrent(kind), lines, epochs=5)
    artifact = convert_module(module, lines[:100].numpy())
    check_same(artifact, {"lines": lines}, answers_of(module, lines))
    assert shapes(artifact)["lines"] == ("N", "L", 8)
    longer = torch.cat([lines, lines[:, :5]], dim=1)
    check_same(artifact, {"lines": longer}, answers_of(module, longer))
    # One node for any length, not one for each step.
    graph = onnx.load_model_from_string(artifact.files[MODEL_FILE]).graph
    assert [n.op_type for n in graph.node].count(kind.__name__) == 2


def test_a_transformer_on_token_ids(tokens: dict[str, torch.Tensor]) -> None:
    module = models.trained(models.Attentive(), tokens["ids"], tokens["mask"], epochs=3)
    sample = Rows({name: tensor[:32].numpy() for name, tensor in tokens.items()}, "sample")
    artifact = convert_module(module, sample)
    check_same(artifact, tokens, answers_of(module, *tokens.values()))
    assert shapes(artifact) == {"ids": ("N", "L"), "mask": ("N", "L"), "output": ("N", 10)}
    assert [spec.dtype for spec in artifact.signature.inputs] == ["int64", "int64"]
    shorter = {name: tensor[:, :9] for name, tensor in tokens.items()}
    check_same(artifact, shorter, answers_of(module, *shorter.values()))
    probes = {probe["name"]: probe for probe in artifact.parity["probes"]}
    assert probes["first and last of a table of 17 in ids"]["passed"]
    assert probes["L of 32, the sample has 64"]["passed"]
    # Longer than the table of positions: refused by both.
    assert probes["L of 97, the sample has 64"]["refused"] == 4


def test_several_inputs_and_nested_outputs(pixels: torch.Tensor) -> None:
    module = models.ManyEnds()
    upper, lower = pixels[:, :32], pixels[:, 32:]
    rows = Rows({"lower": lower.numpy(), "upper": upper.numpy()}, "sample")
    artifact = convert_module(module, rows)
    inputs = {"upper": upper, "lower": lower}
    check_same(artifact, inputs, answers_of(module, upper, lower))
    assert list(shapes(artifact)) == ["upper", "lower", "logits", "pieces_0", "pieces_1"]
    # An optional input is one as soon as the sample has it.
    scale = torch.linspace(0, 1, len(pixels))
    artifact = convert_module(module, Rows({**rows.columns, "scale": scale.numpy()}, "sample"))
    check_same(artifact, {**inputs, "scale": scale}, answers_of(module, upper, lower, scale))


def test_a_generator(pixels: torch.Tensor) -> None:
    module = models.trained_generator()
    noise = torch.randn(50, 12, generator=torch.Generator().manual_seed(1))
    artifact = convert_module(module, noise.numpy())
    check_same(artifact, {"noise": noise}, answers_of(module, noise))
    assert shapes(artifact) == {"noise": ("N", 12), "output": ("N", 1, 8, 8)}


def test_columns_of_a_table_become_one_input() -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    generator = np.random.default_rng(0)
    columns = {name: generator.normal(size=20) for name in ("age", "height", "weight")}
    artifact = convert_module(module, Rows(columns, "table.csv"))
    (spec,) = artifact.signature.inputs
    assert (spec.name, spec.shape, spec.columns) == ("input", ("N", 3), tuple(columns))
    matrix = torch.tensor(np.stack(list(columns.values()), axis=-1), dtype=torch.float32)
    check_same(artifact, {"input": matrix}, answers_of(module, matrix))


def test_pixels_of_bytes_stay_bytes(pixels: torch.Tensor) -> None:
    class FromBytes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.float() / 16)

    module, data = FromBytes(), (pixels * 16).to(torch.uint8)
    artifact = convert_module(module, data.numpy())
    assert artifact.signature.inputs[0].dtype == "uint8"
    check_same(artifact, {"x": data}, answers_of(module, data))


def test_float64_stays_float64(pixels: torch.Tensor) -> None:
    module = nn.Sequential(nn.Linear(64, 3)).double()
    artifact = convert_module(module, pixels[:50].double().numpy())
    assert {spec.dtype for spec in artifact.signature.inputs + artifact.signature.outputs} == {
        "float64"
    }
    check_same(artifact, {"input": pixels.double()}, answers_of(module, pixels.double()))


def test_half_precision_is_widened_and_said(pixels: torch.Tensor) -> None:
    module = nn.Sequential(nn.Linear(64, 3)).to(torch.bfloat16)
    artifact = convert_module(module, pixels[:50].numpy())
    check_same(artifact, {"input": pixels}, answers_of(module.float(), pixels))
    assert any("widened" in note for note in artifact.provenance["notes"])


def test_one_row_is_enough_for_a_dynamic_batch(images: torch.Tensor) -> None:
    module = models.Convolutional()
    artifact = convert_module(module, images[:1].numpy())
    check_same(artifact, {"image": images}, answers_of(module, images))


def test_branches_on_values_are_not_frozen_quietly(pixels: torch.Tensor) -> None:
    module = models.Branching()
    rows = torch.cat([pixels[:20, :8] + 1, -pixels[:20, :8] - 1])
    with pytest.raises(ParityError, match=r"differ|no export"):
        convert_module(module, rows.numpy())


def test_answers_by_chance_are_refused(pixels: torch.Tensor) -> None:
    with pytest.raises(UnsupportedError, match=r"from call to call.*random") as caught:
        convert_module(models.AlwaysDropping(), pixels[:20, :8].numpy())
    assert "training=self.training" in caught.value.hint


def test_a_state_between_calls_is_refused(pixels: torch.Tensor) -> None:
    with pytest.raises(UnsupportedError, match=r"each call changes the model: calls"):
        convert_module(models.Counting(), pixels[:20, :8].numpy())


def test_a_sample_is_needed(pixels: torch.Tensor) -> None:
    with pytest.raises(UnsupportedError, match="needs sample rows") as caught:
        convert_module(models.Dense(), None)
    assert "--sample" in caught.value.hint


def test_rows_that_do_not_fit_say_why(pixels: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"refuses the rows \(pixels \[1797, 63\]\).*1797x63|2x63"):
        convert_module(models.Dense(), pixels[:, :63].numpy())
    with pytest.raises(SignatureError, match="missing: mask; forward takes ids, mask"):
        convert_module(models.Attentive(), Rows({"ids": pixels.long().numpy()}, "x"))
    with pytest.raises(SignatureError, match="needs numbers"):
        convert_module(models.Dense(), Rows({"pixels": np.asarray(["a", "b"], object)}, "x"))


def test_a_model_that_returns_something_else() -> None:
    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> object:
            return {1, 2}

    with pytest.raises(UnsupportedError, match="returns a set"):
        convert_module(Strange(), np.ones((3, 2)))


def test_an_output_called_like_an_input_gets_another_name() -> None:
    class Echo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(4, 4)

        def forward(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"state": self.cell(state), "before": state}

    rows = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    module = Echo()
    artifact = convert_module(module, rows.numpy())
    assert list(shapes(artifact)) == ["state", "state_out", "before"]
    check_same(artifact, {"state": rows}, answers_of(module, rows))


def exported(module: nn.Module, *inputs: torch.Tensor, **options: Any) -> bytes:
    buffer = io.BytesIO()
    program = quietly(torch.export.export, module.eval(), inputs, **options)
    quietly(torch.export.save, program, buffer)
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path: Any) -> Iterator[Callable[..., AuditedSource]]:
    from modelport.scan.stage import audit

    def make(content: bytes, name: str, **options: Any) -> AuditedSource:
        path = tmp_path / name
        path.write_bytes(content)
        return audit(Source.of(path, **options))

    return make


def test_an_exported_program(images: torch.Tensor, source: Callable[..., AuditedSource]) -> None:
    module = models.Convolutional()
    dynamic = {"image": {0: torch.export.Dim("rows"), 2: torch.export.Dim.DYNAMIC}}
    content = exported(module, images[:4], dynamic_shapes=dynamic)
    artifact = convert(source(content, "model.pt2"), Rows({"": images[:100].numpy()}, "s"))
    check_same(artifact, {"image": images}, answers_of(module, images))
    assert shapes(artifact)["image"] == ("N", 1, "H", 8)
    assert artifact.provenance["format"] == "pt2"


def test_an_exported_program_brings_its_own_rows(
    pixels: torch.Tensor, source: Callable[..., AuditedSource]
) -> None:
    module = models.Dense()
    content = exported(module, pixels[:4], dynamic_shapes={"pixels": {0: torch.export.Dim("n")}})
    artifact = convert(source(content, "model.pt2"), None)
    assert artifact.parity["rows_are"] == "made up"
    check_same(artifact, {"pixels": pixels}, answers_of(module, pixels))


def test_a_program_with_a_fixed_number_of_rows(
    pixels: torch.Tensor, source: Callable[..., AuditedSource]
) -> None:
    module = models.Dense()
    audited = source(exported(module, pixels[:4]), "model.pt2")
    artifact = convert(audited, Rows({"": pixels[:60].numpy()}, "s"))
    # Its graph works for any number: that was tried, and the answers are the same.
    assert shapes(artifact)["pixels"] == ("N", 64)
    assert any("exported for 4 rows" in note for note in artifact.provenance["notes"])
    check_same(artifact, {"pixels": pixels}, answers_of(module, pixels))


def test_a_program_exported_in_training_mode_is_refused(pixels: torch.Tensor) -> None:
    program = quietly(torch.export.export, models.Dense().train(), (pixels[:4],))
    with pytest.raises(UnsupportedError, match="each call changes the") as caught:
        convert_module(program, pixels[:4].numpy())
    assert "eval()" in caught.value.hint


@pytest.mark.parametrize("way", ["script", "trace"])
def test_torchscript(way: str, images: torch.Tensor, source: Callable[..., AuditedSource]) -> None:
    module = models.trained(models.Convolutional(), images, epochs=3)
    buffer = io.BytesIO()
    if way == "script":
        scripted = quietly(torch.jit.script, module)
    else:
        scripted = quietly(torch.jit.trace, module.eval(), images[:3], strict=False)
    quietly(torch.jit.save, scripted, buffer)
    audited = source(buffer.getvalue(), "model.pt")
    assert audited.format == "torchscript"
    artifact = convert(audited, Rows({"": images[:100].numpy()}, "s"))
    check_same(artifact, {"image": images}, answers_of(module, images))
    notes = artifact.provenance["notes"]
    assert any("saved in training mode" in note for note in notes) == (way == "script")


def test_a_plain_number_in_a_script_is_frozen(pixels: torch.Tensor) -> None:
    class Powers(nn.Module):
        def forward(self, x: torch.Tensor, power: int) -> torch.Tensor:
            result = x
            for _ in range(power - 1):
                result = result * x
            return result

    scripted = quietly(torch.jit.script, Powers())
    rows = Rows({"x": pixels[:20].numpy(), "power": np.full(20, 3)}, "s")
    artifact = convert_module(scripted, rows)
    assert "power is frozen at 3" in artifact.parity["notes"]
    check_same(artifact, {"x": pixels}, [pixels.numpy() ** 3])
    with pytest.raises(SignatureError, match="only one value"):
        convert_module(scripted, Rows({**rows.columns, "power": np.arange(20)}, "s"))


@pytest.mark.parametrize("kind", [models.Dense, models.Recurrent])
def test_the_same_source_gives_the_same_bytes_and_no_traces(
    kind: type[nn.Module], pixels: torch.Tensor
) -> None:
    torch.manual_seed(0)
    module = kind()
    rows = pixels[:16] if kind is models.Dense else pixels[:16].reshape(-1, 8, 8)
    rows = Rows({"": rows.numpy()}, "sample")
    one, other = convert_module(module, rows), convert_module(copy.deepcopy(module), rows)
    assert one.files == other.files
    content = one.files[MODEL_FILE]
    for trace in (b"site-packages", b"torch_models", b"stack_trace", b"/home", b".py"):
        assert trace not in content


@dataclass
class TooLarge:
    """Just enough of a program to be refused for its size."""

    size = 3 * 2**30
    recurrent = scripted = False


def test_weights_beyond_two_gigabytes_are_refused() -> None:
    from modelport.convert.frameworks.torch.export import attempts_for

    with pytest.raises(UnsupportedError, match=r"3\.0 GiB"):
        attempts_for([], TooLarge())
