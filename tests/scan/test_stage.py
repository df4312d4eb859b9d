"""The stage: which scanner, and what is said when there is none."""

import gzip
import io
import json
import pickle
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from modelport.adapters import Adapter, adapters_of
from modelport.core.errors import InputError, MissingPackageError, UnsafeError, UnsupportedError
from modelport.core.source import Source
from modelport.scan import stage
from modelport.scan.stage import audit, scan


def zip_of(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return file.getvalue()


def test_live_objects_have_nothing_to_scan():
    audited = audit(Source.of(LogisticRegression()))
    assert (audited.format, audited.trusted) == ("object", ())
    assert scan(audited.source).to_json()["findings"] == []


@pytest.mark.parametrize("name", ["model.pkl", "model.onnx", "model.bin", "model", "model.skops"])
def test_content_decides_not_the_ending(name, source):
    assert audit(source(pickle.dumps([1]), name)).format == "pickle"
    with pytest.raises(UnsafeError):
        audit(source(b"cos\nsystem\n(S'true'\ntR.", name))


@pytest.mark.parametrize("name", ["model.pkl", "model.onnx", "model.skops", "model"])
def test_empty_file(name, source):
    with pytest.raises(InputError, match="the file is empty"):
        audit(source(b"", name), trust=True)


def test_folder(tmp_path):
    with pytest.raises(UnsupportedError, match="a folder cannot be read") as caught:
        audit(Source.of(tmp_path))
    assert "skops files" in caught.value.hint


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * 4


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("saved_model.pb"))
    return file.getvalue()


UNKNOWN = {
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
    "a PyTorch file": zip_of(model__data_dot_pkl=b"\x80\x02.", model__version=b"3"),
    "a Keras model": zip_of(config_dot_json=b"{}", model_dot_weights_dot_h5=b""),
    "a PyTorch exported program": zip_of(model__archive_format=b"pt2"),
    "NumPy arrays": zip_of(a_dot_npy=npy()),
    "a NumPy array": npy(),
    "a zip archive": zip_of(readme=b"hello"),
    "a damaged zip archive": zip_of(readme=b"hello")[:40],
    "a gzip file": gzip.compress(tar()),
    "a tar archive": tar(),
    "a safetensors file": safetensors(),
    "a TensorFlow Lite model": b"\x1c\0\0\0TFL3" + b"\0" * 20,
    "a LightGBM text model": b"tree\nversion=v4\nnum_class=1\n",
    "a JSON document": b'{"learner": {"version": [2, 0, 0]}}',
    "a Parquet table": b"PAR1" + b"\0" * 20,
    "an XML document": b"<?xml version='1.0'?><PMML/>",
    "a script": b"#!/bin/sh\necho hello\n",
}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", ["model.pkl", "model.bin", "model.onnx"])
@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_formats_are_named(kind, name, trust, source):
    with pytest.raises(UnsupportedError, match=f"it looks like {kind}") as caught:
        audit(source(UNKNOWN[kind], name), trust=trust)
    assert "supported: " in caught.value.hint
    for adapter in adapters_of("scanner"):
        assert adapter.summary in caught.value.hint


def test_unknown_bytes(source):
    with pytest.raises(UnsupportedError, match="unknown format"):
        audit(source(b"\xff\xfe\xfd" * 9, "model.bin"))


@pytest.mark.parametrize(
    ("name", "says"),
    [("model.pkl", "damaged or truncated"), ("model.onnx", "not an ONNX file")],
)
def test_right_ending_and_wrong_content(name, says, source):
    with pytest.raises(InputError, match=says):
        audit(source(b"\xff\xfe\xfd" * 9, name), trust=True)


def test_other_scanners_need_not_be_installed(monkeypatch, source):
    """A slim server has neither skops nor joblib, and checks pickles and ONNX all the same."""
    absent = Adapter("scanner", "absent", "modelport.absent:Scanner", "x", ("no_such_package",))
    monkeypatch.setattr(stage, "adapters_of", lambda kind: [absent, *adapters_of(kind)[:1]])
    assert audit(source(pickle.dumps([1]), "model.bin")).format == "pickle"


def test_the_scanner_for_the_ending_must_be_installed(monkeypatch, source):
    absent = Adapter(
        "scanner",
        "absent",
        "no_such_package.x:Scanner",
        "x",
        ("no_such_package",),
        "extra",
        (".x",),
    )
    monkeypatch.setattr(stage, "adapters_of", lambda kind: [*adapters_of(kind)[:1], absent])
    with pytest.raises(MissingPackageError, match="no_such_package"):
        audit(source(b"PK\x03\x04", "model.x"))


def test_scanning_a_pickle_or_onnx_imports_no_framework(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N"]) for n in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:]
    )
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(LogisticRegression()))
    program = (
        "import sys\n"
        "from modelport.core.source import Source\n"
        "from modelport.scan.stage import audit\n"
        "for path in sys.argv[1:]: audit(Source.of(path))\n"
        "heavy = {'sklearn', 'joblib', 'onnx', 'skops', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    files = [str(tmp_path / name) for name in ("model.onnx", "model.pkl")]
    subprocess.run([sys.executable, "-c", program, *files], check=True)
