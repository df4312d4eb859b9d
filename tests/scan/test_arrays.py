"""NumPy's files: honest arrays pass the scan, and are no models."""

import io
from pathlib import Path

import numpy as np
import pytest

from modelport import api
from modelport.core.errors import InputError, UnsafeError, UnsupportedError
from modelport.core.source import Source
from modelport.scan.stage import audit, scan

ARRAYS = {
    "floats": np.ones((3, 4)),
    "one": np.array(1.0),
    "empty": np.zeros((0, 3)),
    "fortran": np.asfortranarray(np.ones((3, 2), np.float32)),
    "big-endian": np.ones(3, ">i4"),
    "texts": np.array(["a", "bcd"]),
    "bytes": np.array([b"a"]),
    "times": np.array(["2026-01-01"], "M8[D]"),
    "records": np.zeros(2, [("a", "i4"), ("b", "f8", (2,))]),
    "aligned": np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "unicode names": np.zeros(2, [("\u03b1", "i4")]),
    "many fields": np.zeros(1, [(f"field{n}" * 20, "i4") for n in range(600)]),
}


def in_memory(content: bytes, name: str = "x.npy") -> Source:
    return Source(name=name, path=Path(name), content=content)


def array_file(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Stored array in format:UserWarning")
@pytest.mark.parametrize("kind", ARRAYS)
def test_honest_arrays_pass(kind):
    report = scan(in_memory(array_file(ARRAYS[kind])))
    assert (report.format, report.findings, report.damage) == ("numpy", (), "")


@pytest.mark.filterwarnings("ignore:Stored array in format:UserWarning")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_honest_archives_pass(save):
    file = io.BytesIO()
    save(file, x=np.ones(3), X=np.ones(2), **{"deep/er": np.zeros(1)}, **ARRAYS)
    report = scan(in_memory(file.getvalue(), "x.npz"))
    assert (report.format, report.findings) == ("numpy", ())


def test_objects_are_refused_and_their_names_are_told():
    file = io.BytesIO()
    np.save(file, np.array([np.float64, "a"], dtype=object), allow_pickle=True)
    with pytest.raises(UnsafeError, match=r"the objects in x\.npy"):
        audit(in_memory(file.getvalue()))
    assert "numpy.float64" in scan(in_memory(file.getvalue())).globals


@pytest.mark.parametrize("kind", ["floats", "records", "texts"])
def test_truncated_arrays_are_damaged_even_if_trusted(kind):
    content = array_file(ARRAYS[kind])
    for end in range(7, len(content), 5):
        with pytest.raises(InputError):
            audit(in_memory(content[:end]), trust=True)


def test_an_array_is_no_model(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    with pytest.raises(UnsupportedError, match=r"no framework adapter knows this source: x\.npy"):
        api.pack(tmp_path / "x.npy", "x")
