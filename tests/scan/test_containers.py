"""MLflow folders, TorchServe archives and plain archives around honest models."""

import contextlib
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from modelport import api
from modelport.core.errors import (
    InputError,
    LimitError,
    ModelportError,
    NotFoundError,
    UnsupportedError,
)
from modelport.core.source import Source
from modelport.scan.archives import zip_archive
from modelport.scan.archives.mlmodel import read_flavors
from modelport.scan.stage import audit

from .hostile_files import MLMODEL, layer, manifest, mlmodel, saved, scripted, tarred, zipped

X, Y = load_iris(return_X_y=True)
CLASSIFIER = LogisticRegression(max_iter=1000).fit(X, Y)
PICKLE = pickle.dumps(CLASSIFIER)


def write(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def mlflow_files() -> dict[str, bytes]:
    """What MLflow 3.17 writes for a scikit-learn model, to the letter."""
    description = MLMODEL.format(flavor="sklearn", key="pickled_model", data="model.pkl")
    signature = (
        "signature:\n"
        '  inputs: \'[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1,\n'
        "    4]}}]'\n"
        "  params: null\n"
        "utc_time_created: '2026-11-21 07:27:40.782919'\n"
    )
    return {
        "MLmodel": (description + signature).encode(),
        "conda.yaml": b"channels:\n- conda-forge\nname: mlflow-env\n",
        "python_env.yaml": b"python: 3.11.7\n",
        "requirements.txt": b"mlflow==3.17.2\nscikit-learn==1.9.1\n",
        "input_example.json": b"[[5.1, 3.5, 1.4, 0.2]]",
        "model.pkl": PICKLE,
    }


def check_answers(package, folder: Path) -> None:
    session = onnxruntime.InferenceSession(package.model_path)
    (labels, *_) = session.run(None, {session.get_inputs()[0].name: X.astype(np.float32)})
    np.testing.assert_array_equal(labels, CLASSIFIER.predict(X))


@pytest.mark.parametrize("how", ["folder", "zip", "zip of the folder", "tar", "tar.gz"])
def test_mlflow_models_are_packed(how, tmp_path):
    files = mlflow_files()
    inside = {f"run/model/{name}": content for name, content in files.items()}
    if how == "folder":
        path = write(tmp_path / "model", files)
    else:
        path = tmp_path / f"model.{how.split()[0]}"
        made = {
            "zip": lambda: zipped(files, method=zipfile.ZIP_DEFLATED),
            "zip of the folder": lambda: zipped(inside),
            "tar": lambda: tarred(inside),
            "tar.gz": lambda: tarred(inside, "w:gz"),
        }
        path.write_bytes(made[how]())
    package = api.pack(path, "iris", sample=X, out=tmp_path / "packed")
    provenance = package.manifest.provenance
    outer = [] if how == "folder" else ["archive"]
    assert provenance["containers"] == [*outer, "mlflow"]
    assert provenance["format"] == "pickle"
    assert provenance["source"].endswith("!model.pkl")
    check_answers(package, tmp_path)


FLAVORS = {
    "pytorch": ("model_data", "data", "data/model.pth", lambda: saved(layer()), "torch"),
    "sklearn": ("pickled_model", "model.pkl", "model.pkl", lambda: PICKLE, "pickle"),
    "onnx": ("data", "model.onnx", "model.onnx", lambda: relu().SerializeToString(), "onnx"),
}


def relu(location: str = "") -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in "xy"]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    if location:
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


@pytest.mark.parametrize("flavor", FLAVORS)
def test_flavors_lead_to_their_files(flavor, tmp_path):
    key, data, file, build, expected = FLAVORS[flavor]
    files = {"MLmodel": mlmodel(flavor, key, data), file: build(), "data/other.txt": b"x"}
    audited = audit(Source.of(write(tmp_path / "m", files)))
    assert (audited.containers, audited.format) == (("mlflow",), expected)
    assert audited.source.name == f"m!{file}"
    assert audited.source.content == files[file]
    assert audited.source.files == {}


def test_the_safest_flavor_is_taken_and_the_others_are_noted(tmp_path):
    text = mlmodel("sklearn", "pickled_model", "model.pkl").decode()
    text = text.replace("flavors:\n", "flavors:\n  onnx:\n    data: model.onnx\n    code: code\n")
    files = {"MLmodel": text.encode(), "model.onnx": relu().SerializeToString()}
    audited = audit(Source.of(write(tmp_path / "m", files)))
    assert audited.format == "onnx"
    assert "of the MLflow flavors onnx is used, and sklearn is not" in audited.notes
    assert any("code/" in note for note in audited.notes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("flavors:\n  spark:\n    model_data: sparkml\n", "it has: spark"),
        ("flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n", "Python code"),
        ("flavors:\n  sklearn:\n    code: null\n", "does not say where"),
        ("flavors:\n  sklearn:\n    pickled_model: /model.pkl\n", "outside of its folder"),
        ("flavors:\n  sklearn:\n    pickled_model: no.pkl\n", "no.pkl is missing"),
        ("flavors: {}\n", "names no flavor"),
        ("", "names no flavor"),
        ("flavors:\n  onnx:\n    data: a\n  onnx:\n    data: b\n", "twice"),
        ("\xff", "names no flavor"),
    ],
)
def test_mlflow_folders_without_a_model(text, says, tmp_path):
    files = {"MLmodel": text.encode("latin1"), "model.pkl": PICKLE}
    with pytest.raises(InputError, match=rf"{says}|is not text"):
        audit(Source.of(write(tmp_path / "m", files)), trust=True)


def test_flavors_are_read_as_pyyaml_writes_them():
    text = (
        "artifact_path: model\n"
        "flavors:\n"
        "  tensorflow:\n"
        "    data: 'data''s'\n"
        "    options: {a: b}\n"
        '    keras_version: "3.15"\n'
        "    skops_trusted_types:\n"
        "    - a: b\n"
        "  python_function:\n"
        "    env:\n"
        "      conda: conda.yaml\n"
        "    data: x\n"
        "run_id: 1\n"
        "more:\n"
        "  data: y\n"
    )
    assert read_flavors(text.encode(), "x") == {
        "tensorflow": {
            "data": "data's",
            "options": "",
            "keras_version": "3.15",
            "skops_trusted_types": "",
        },
        "python_function": {"env": "", "data": "x"},
    }


# TorchServe


def mar(files: dict[str, bytes], **model: str) -> bytes:
    return zipped(
        {**files, "MAR-INF/MANIFEST.json": manifest(**model)}, method=zipfile.ZIP_DEFLATED
    )


def test_torchserve_archives_with_a_whole_model(source):
    files = {"model.pt": scripted(), "index_to_name.json": b"{}", "setup.cfg": b""}
    content = mar(files, serializedFile="model.pt", handler="image_classifier")
    audited = audit(source(content, "model.mar"))
    assert (audited.containers, audited.format) == (("mar",), "torchscript")
    assert audited.source.content == scripted()
    notes = " ".join(audited.notes)
    assert "image_classifier" in notes
    assert "index_to_name.json" in notes
    assert "setup.cfg" in notes


def test_torchserve_archives_whose_model_is_made_by_code(source):
    files = {"model.pt": saved(layer().state_dict()), "model.py": b"import nothing"}
    content = mar(files, serializedFile="model.pt", modelFile="model.py", handler="handler.py")
    given = source(content, "model.mar")
    with pytest.raises(UnsupportedError, match=r"made by model\.py") as caught:
        audit(given, trust=True)
    assert "--factory" in caught.value.hint
    audited = audit(Source.of(given.path, factory="mymodels:Net"))
    assert (audited.format, audited.source.factory) == ("torch", "mymodels:Net")
    assert any("handler.py" in note for note in audited.notes)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"model": 1}', b'{"model": {}}'])
def test_torchserve_archives_without_a_model(content, source):
    given = source(zipped({"MAR-INF/MANIFEST.json": content, "x.pt": b""}), "model.mar")
    with pytest.raises(InputError):
        audit(given, trust=True)


# Plain archives


@pytest.mark.parametrize("name", ["model.tar.gz", "model.tar", "model.tar.bz2", "model.tar.xz"])
def test_an_archive_of_one_model_file(name, source):
    mode = {"gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(name.rpartition(".")[2], "w")
    files = {"./model.pkl": PICKLE, "./code/inference.py": b"import os", "./README.md": b"hello"}
    audited = audit(source(tarred(files, mode), name))
    assert (audited.containers, audited.format) == (("archive",), "pickle")
    assert audited.source.name == f"{name}!model.pkl"
    assert audited.notes == (f"not used from {name}: README.md, code/inference.py",)


def test_archives_in_archives(source):
    content = zipped({"a/b.tar.gz": tarred({"c.zip": zipped({"m.pkl": PICKLE})}, "w:gz")})
    audited = audit(source(content, "model.zip"))
    assert audited.containers == ("archive", "archive", "archive")
    assert audited.source.name == "model.zip!a/b.tar.gz!c.zip!m.pkl"
    assert audited.source.content == PICKLE


def test_a_file_beside_the_model_stays_with_it(source):
    files = {
        "net/model.onnx": relu("weights.bin").SerializeToString(),
        "net/weights.bin": np.ones(2, np.float32).tobytes(),
        "net/labels.txt": b"a\nb\n",
        "__MACOSX/net/._model.onnx": b"\0\5\x16\7",
    }
    audited = audit(source(zipped(files), "model.zip"))
    assert audited.format == "onnx"
    assert audited.source.files == {"weights.bin": files["net/weights.bin"]}


def test_archives_without_one_model(source):
    with pytest.raises(InputError, match=r"holds 2 models: a\.pkl, b\.pkl") as caught:
        audit(source(zipped({"a.pkl": PICKLE, "b.pkl": PICKLE}), "models.zip"))
    assert "unpack it" in caught.value.hint
    with pytest.raises(NotFoundError, match="model in the archive"):
        audit(source(zipped({"a.txt": b"hello", "b.md": b"# hello"}), "texts.zip"))
    with pytest.raises(UnsupportedError, match="unknown format"):
        audit(source(zipped({"a.bin": b"\xff\xfe"}), "one.zip"))


def test_archives_that_grow_are_not_unpacked(monkeypatch, source):
    monkeypatch.setattr(zip_archive, "FREE_SIZE", 1 << 20)
    content = zipped({"model.pkl": b"\0" * (8 << 20)}, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(LimitError, match="grows to more than"):
        audit(source(content, "model.zip"), trust=True)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_truncated_archives_are_damaged_even_if_trusted(mode, source):
    content = tarred({"model.pkl": PICKLE, "x": b"y" * 3000}, mode)
    ends = range(512, 5632, 256) if mode == "w" else range(30, len(content), len(content) // 9)
    for end in ends:
        with pytest.raises(InputError):
            audit(source(content[:end], "model.tar.gz"), trust=True)


def test_torch_files_are_no_archives(source):
    """They are zip archives, and everything that can go wrong with those is looked for."""
    for content in (saved(torch.ones(1)), scripted()):
        assert audit(source(content, "model.zip")).containers == ()


def test_tar_without_magic_words(source):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("model.pkl")
        member.size = len(PICKLE)
        archive.addfile(member, io.BytesIO(PICKLE))
    content = bytearray(file.getvalue())
    content[257:265] = b"\0" * 8  # as before POSIX
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    assert audit(source(bytes(content), "old")).containers == ("archive",)


SEEDS = [
    zipped({"a/model.pkl": PICKLE, "a/readme.txt": b"hello"}),
    tarred({"a/model.pkl": PICKLE}),
    tarred({"a/model.pkl": PICKLE}, "w:gz"),
    mar({"model.pt": saved(layer().state_dict())}, serializedFile="model.pt"),
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_mutated_archives_never_crash(seed, changes):
    changed = bytearray(seed)
    for place, byte in changes:
        changed[int(place * len(changed))] = byte
    with contextlib.suppress(ModelportError):
        audit(Source("model.zip", Path("model.zip"), content=bytes(changed)))


@settings(max_examples=200, deadline=None)
@given(st.text("flavors: sklearn\n-'\"#!&{}", max_size=200))
def test_any_mlmodel_is_read_or_refused(text):
    with contextlib.suppress(ModelportError):
        read_flavors(f"flavors:\n  sklearn:\n{text}".encode(), "MLmodel")
