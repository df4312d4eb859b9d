"""joblib files: the arrays between the instructions, and the compression around everything."""

import io
import lzma
import pickle
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib.numpy_pickle import NumpyUnpickler

from modelport.core.allowed_globals import is_allowed, python3_name
from modelport.core.errors import (
    InputError,
    LimitError,
    ModelportError,
    UnsafeError,
    UnsupportedError,
)
from modelport.core.source import Source
from modelport.scan.pickles import compression
from modelport.scan.scanners.pickle import PickleScanner
from modelport.scan.stage import audit, scan

from . import honest, hostile

FILES = [name for name, (suffix, _) in hostile.CASES.items() if suffix == ".joblib"]
BOMBS = [name for name in FILES if name.endswith("bomb")]
COMPRESSIONS = [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 1), ("xz", 1)]


class Restricted(NumpyUnpickler):
    """The second line of defence, as loaders have it, noting what it was asked for."""

    def __init__(self, content: io.BytesIO) -> None:
        super().__init__("", content, ensure_native_byte_order=True)
        self.asked: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> object:
        self.asked.add((module, name))
        if not is_allowed(module, name):
            raise UnsafeError(f"{module}.{name}")
        return super().find_class(module, name)


def in_memory(content: bytes) -> Source:
    return Source(name="model.joblib", path=Path("model.joblib"), content=content)


@pytest.mark.parametrize("name", [name for name in FILES if name not in BOMBS])
def test_hostile_file_is_refused_and_runs_nothing(name, source, canary):
    with pytest.raises(UnsafeError):
        audit(source(hostile.CASES[name][1](canary), "model.joblib"))
    assert not canary.exists()


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_not_unpacked(name, trust, monkeypatch, source, canary):
    monkeypatch.setattr(compression, "FREE_SIZE", hostile.FREE_SIZE)
    with pytest.raises(LimitError, match="grows to more than"):
        audit(source(hostile.CASES[name][1](canary), "model.joblib"), trust=trust)


def test_what_is_small_may_grow_as_it_likes(source):
    content = honest.dump(np.zeros(1 << 20), compress=("xz", 1))
    assert len(content) < 10_000
    assert audit(source(content)).format == "joblib"


def test_a_header_cannot_ask_for_all_memory(source):
    packed = bytearray(lzma.compress(pickle.dumps(1), lzma.FORMAT_ALONE))
    packed[1:5] = b"\0\xff\xff\xff"  # the dictionary's size
    assert compression.compression_of(bytes(packed)) == "lzma"
    with pytest.raises(InputError):
        audit(source(bytes(packed), "model.joblib"))


@pytest.mark.parametrize("name", honest.ESTIMATORS)
def test_every_estimator_passes(name):
    estimator = honest.fitted(name)
    for compress in COMPRESSIONS:
        check_passes(honest.dump(estimator, compress=compress))


@pytest.mark.parametrize("name", honest.MODELS)
def test_what_people_save_passes_and_loads(name):
    thing = honest.model(name)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        content = honest.dump(thing, protocol=protocol)
        check_passes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Restricted(io.BytesIO(content)).load()
    for compress in COMPRESSIONS[1:]:
        check_passes(honest.dump(thing, compress=compress))


def check_passes(content: bytes) -> None:
    source = in_memory(content)
    audited = audit(source)
    arrays = "joblib.numpy_pickle.NumpyArrayWrapper" in scan(source).globals
    packed = compression.compression_of(content) != ""
    assert audited.format == ("joblib" if arrays or packed else "pickle")
    assert audited.trusted == ()
    assert PickleScanner().recognises(Source("model", Path("model"), content=content))


def test_files_of_joblib_before_alignment_pass(source):
    """Until 1.1, joblib wrote no padding before arrays."""
    state = hostile.wrapper_state()
    content = (
        hostile.PROTO2 + hostile.build(hostile.new(hostile.WRAPPER), state) + hostile.EIGHT + b"."
    )
    audited = audit(source(content))
    assert audited.format == "joblib"
    assert joblib.load(io.BytesIO(content)).tolist() == [0.0]


def test_file_names_of_disk_files_pass(tmp_path):
    path = tmp_path / "model.joblib"
    joblib.dump(honest.model("pipeline on a frame"), path)
    assert audit(Source.of(path)).format == "joblib"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\x04\x22\x4d\x18rest", "lz4"), (b"ZF0x12", "joblib before 0.10")],
)
def test_formats_that_cannot_be_read_are_explained(content, says, source):
    for name in ("model.joblib", "model"):
        with pytest.raises(UnsupportedError, match=says) as caught:
            audit(source(content, name), trust=True)
        assert "dump" in caught.value.hint


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_truncated_honest_file_is_damaged_even_if_trusted(compress):
    content = honest.dump(honest.model("three classes"), compress=compress)
    for end in [*range(1, 40), *range(40, len(content), len(content) // 40), len(content) - 1]:
        for trust in (False, True):
            with pytest.raises(InputError):
                audit(in_memory(content[:end]), trust=trust)


def test_message_for_a_damaged_stream_is_about_the_stream(source):
    content = honest.dump(honest.model("objects"), compress=("gzip", 3))
    for name in ("model.joblib", "model"):
        with pytest.raises(InputError, match="gzip stream is truncated"):
            audit(source(content[:12], name))
    with pytest.raises(InputError, match="not a gzip stream"):
        audit(source(content[:-8] + b"\0" * 8, "model.joblib"))


def test_array_that_ends_early_is_damaged(source):
    content = honest.dump(np.arange(1000.0))
    with pytest.raises(InputError, match="bytes are announced"):
        audit(source(content[:500], "model.joblib"), trust=True)


_SEED = [
    honest.dump(thing, protocol=protocol)
    for thing in (
        {"a": np.arange(5.0), "b": np.array(["x", None], dtype=object), "c": [1, "y"]},
        honest.fitted("StandardScaler"),
        honest.fitted("OneHotEncoder"),
    )
    for protocol in (2, 4, 5)
] + [honest.dump(honest.fitted("StandardScaler"), compress=c) for c in COMPRESSIONS[1:]]


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(_SEED),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_mutated_files_never_crash(content, changes, inserted):
    changed = bytearray(content)
    for at, byte in changes:
        changed[at % len(changed)] = byte
        changed[at % len(changed) : 0] = bytes([byte]) * inserted
    check_verdict(bytes(changed))


def check_verdict(content: bytes) -> None:
    source = in_memory(content)
    try:
        report = PickleScanner().scan(source)
    except ModelportError:
        return
    if not report.findings:
        check_read_alike(content, report.globals)


def check_read_alike(content: bytes, seen: tuple[str, ...]) -> None:
    """What passes, joblib must read as the scan did, asking for no name that it has not seen."""
    kind = compression.compression_of(content)
    if kind:
        content = compression.decompress(content, kind, where="").content
    stream = io.BytesIO(content)
    loader = Restricted(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loader.load()
        except UnsafeError:
            raise
        except Exception:  # what a library says to nonsense in its state is not our concern
            return
    for module, name in loader.asked:
        assert {f"{module}.{name}", ".".join(python3_name(module, name))} & set(seen)
    rest = content[stream.tell() :]
    assert not rest or audit(in_memory(rest)).trusted == ()
