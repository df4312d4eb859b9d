"""skops files: honest ones pass, and neither their types nor their archives can do harm."""

import contextlib
import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from skops.io.exceptions import UnsupportedTypeException

from modelport.core.errors import InputError, LimitError, ModelportError, UnsafeError
from modelport.core.source import Source
from modelport.scan.archives import zip_archive
from modelport.scan.scanners import skops as scanner
from modelport.scan.stage import audit, scan

from . import honest

MODEL = LogisticRegression().fit([[0.0], [1.0], [2.0]], [0, 1, 1])
DUMP = skops.io.dumps(MODEL)
# What skops itself cannot write.
UNWRITABLE = {"Birch", "a dictionary around a model", "containers", "element types"}
# What it rebuilds by calling parts of pandas.
REFUSED = {"frames"}


def in_memory(content: bytes) -> Source:
    return Source(name="model.skops", path=Path("model.skops"), content=content)


def edited(change: Callable[[dict[str, Any]], Any], extra: dict[str, bytes] | None = None) -> bytes:
    """The honest file with its schema changed, and members added."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(DUMP)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "schema.json":
                schema = json.loads(content)
                content = json.dumps(change(schema) or schema).encode()
            new.writestr(name, content)
        for name, content in (extra or {}).items():
            new.writestr(name, content)
    return file.getvalue()


def with_node(node: dict[str, Any], protocol: int | None = None) -> bytes:
    """The honest file with one attribute replaced."""

    def change(schema: dict[str, Any]) -> None:
        schema["content"]["content"]["coef_"] = {"__id__": 12345, **node}
        if protocol is not None:
            schema["protocol"] = protocol

    return edited(change)


def json_node(value: Any) -> dict[str, Any]:
    return {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(value),
        "is_json": True,
    }


def tuple_node(*items: Any) -> dict[str, Any]:
    return {
        "__class__": "tuple",
        "__module__": "builtins",
        "__loader__": "TupleNode",
        "content": [json_node(item) for item in items],
    }


def node(loader: str, full: str, **more: Any) -> dict[str, Any]:
    module, _, name = full.rpartition(".")
    return {"__class__": name, "__module__": module, "__loader__": loader, **more}


HOSTILE: dict[str, bytes] = {
    "os.system, called": with_node(
        node("ConstructorFromReduceNode", "os.system", content=tuple_node("true"))
    ),
    "subprocess.Popen, called": with_node(
        node("ConstructorFromReduceNode", "subprocess.Popen", content=tuple_node("true"))
    ),
    "builtins.eval, called": with_node(
        node("ConstructorFromReduceNode", "builtins.eval", content=tuple_node("1"))
    ),
    "os.system, a function": with_node(node("FunctionNode", "os.system")),
    "os.system, a type": with_node(node("TypeNode", "os.system")),
    "an object of os": with_node(node("ObjectNode", "os.Evil")),
    "an object of __main__": with_node(node("ObjectNode", "__main__.Model")),
    "methodcaller": with_node(
        node("OperatorFuncNode", "operator.methodcaller", attrs=tuple_node("fit"))
    ),
    "sklearn.datasets": with_node(node("FunctionNode", "sklearn.datasets.fetch_openml")),
    "Parallel": with_node(
        node("ConstructorFromReduceNode", "sklearn.pipeline.Parallel", content=tuple_node(2))
    ),
    "joblib.load": with_node(
        node("ConstructorFromReduceNode", "joblib.load", content=tuple_node("x"))
    ),
    "numpy.load": with_node(
        node("ConstructorFromReduceNode", "numpy.load", content=tuple_node("x"))
    ),
    "a pickle's reconstructor": with_node(
        node(
            "ConstructorFromReduceNode",
            "numpy._core.multiarray.scalar",
            content=tuple_node("x", "y"),
        )
    ),
    "scipy.stats": with_node(node("ObjectNode", "scipy.stats._continuous_distns.norm_gen")),
}
SLIPS = ["/etc/passwd", "../x.npy", "a/../../x.npy", "..\\x.npy", "C:\\x.npy", "x.pkl", "a/b.npy"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_types_are_refused_by_name(name):
    with pytest.raises(UnsafeError) as caught:
        audit(in_memory(HOSTILE[name]))
    assert "schema.json" in caught.value.message
    assert "--trust" in caught.value.hint


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_claiming_an_older_protocol_does_not_help(protocol):
    old = {"function": "system", "module_path": "os"}
    content = with_node(node("FunctionNode", "os.system", content=old), protocol)
    with pytest.raises((UnsafeError, InputError)):
        audit(in_memory(content))


@pytest.mark.parametrize("member", SLIPS)
def test_members_that_leave_the_archive_are_refused(member):
    with pytest.raises(
        UnsafeError,
        match=r"not a member that skops|an absolute path|leaves the archive|not a plain name",
    ):
        audit(in_memory(edited(lambda schema: None, {member: b"x"})))


def test_symbolic_links_and_doubles_are_refused():
    file = io.BytesIO(DUMP)
    link = zipfile.ZipInfo("123.npy")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("schema.json", "{}")
    report = scan(in_memory(file.getvalue()))
    assert {finding.why for finding in report.findings} == {
        "a symbolic link",
        "there are two members of this name",
    }


def test_archives_that_grow_are_not_unpacked(monkeypatch):
    monkeypatch.setattr(zip_archive, "FREE_SIZE", 1 << 20)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "{}")
        archive.writestr("1.npy", b"\0" * (8 << 20))
    with pytest.raises(LimitError, match="grows to more than"):
        audit(in_memory(file.getvalue()), trust=True)


def test_members_that_are_read_again_and_again_are_bounded(monkeypatch):
    monkeypatch.setattr(scanner, "FREE_SIZE", 1 << 10)
    many = [node("NdArrayNode", "numpy.ndarray", type="numpy", file="7.npy") for _ in range(50)]
    for number, part in enumerate(many):
        part["__id__"] = number + 1000
    listed = node("ListNode", "builtins.list", content=many, __id__=5)
    content = edited(lambda schema: {**listed, "protocol": 2}, {"7.npy": b"x" * 1000})
    with pytest.raises(LimitError, match="members are read"):
        audit(in_memory(content))


def test_deep_schemas_are_bounded():
    outer = json.dumps({**node("ListNode", "builtins.list"), "__id__": 1, "content": ["@"]})
    before, after = outer.split('"@"')
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        deep = before * 5000 + json.dumps(json_node(1)) + after * 5000
        archive.writestr("schema.json", deep[:-1] + ', "protocol": 2}')
    with pytest.raises(LimitError, match="nested too deep"):
        audit(in_memory(file.getvalue()), trust=True)


@pytest.mark.parametrize("name", honest.ESTIMATORS)
def test_every_estimator_that_skops_writes_passes(name):
    check_passes(name, honest.fitted(name))


@pytest.mark.parametrize("name", sorted(honest.MODELS.keys() - REFUSED))
def test_what_people_save_passes(name):
    check_passes(name, honest.model(name))


def check_passes(name: str, thing: object) -> None:
    try:
        content = skops.io.dumps(thing)
    except (UnsupportedTypeException, TypeError):
        assert name in UNWRITABLE
        return
    audited = audit(in_memory(content))
    assert (audited.format, audited.trusted) == ("skops", ())


def test_what_passes_loads():
    content = skops.io.dumps(honest.model("categories in gradient boosting"))
    names = scan(in_memory(content)).globals
    assert "functools.partial" in names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = skops.io.loads(content, trusted=list(names))
    assert type(loaded).__name__ == "HistGradientBoostingClassifier"


def test_trust_lets_types_through_and_records_them():
    audited = audit(in_memory(HOSTILE["os.system, a function"]), trust=True)
    assert audited.format == "skops"
    assert audited.trusted == ("os.system",)


def test_truncated_file_is_damaged_even_if_trusted():
    for end in range(4, len(DUMP), max(1, len(DUMP) // 50)):
        with pytest.raises(InputError):
            audit(in_memory(DUMP[:end]), trust=True)


DAMAGED = {
    "no protocol": edited(lambda schema: {"content": 1}),
    "a list": edited(lambda schema: [1, 2]),
    "an unknown loader": with_node(node("EvilNode", "numpy.ndarray")),
    "a missing member": with_node(
        node("NdArrayNode", "numpy.ndarray", type="numpy", file="no.npy")
    ),
    "a future protocol": edited(lambda schema: {**schema, "protocol": 99}),
    "a reference to nothing": with_node(node("CachedNode", "x.y")),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_schema_is_an_input_error(name):
    with pytest.raises(InputError, match="damaged or truncated"):
        audit(in_memory(DAMAGED[name]), trust=True)


def test_encrypted_archive_is_an_input_error():
    content = bytearray(DUMP)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(mark)
        while start >= 0:
            content[start + offset] |= 1
            start = content.find(mark, start + 1)
    with pytest.raises(InputError):
        audit(in_memory(bytes(content)), trust=True)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(DUMP) - 1), st.integers(0, 255)), min_size=1, max_size=5)
)
def test_mutated_files_never_crash(changes):
    changed = bytearray(DUMP)
    for at, byte in changes:
        changed[at] = byte
    with contextlib.suppress(ModelportError):
        scanner.SkopsScanner().scan(in_memory(bytes(changed)))


def test_arrays_with_pickled_objects_are_not_loaded(canary):
    """An .npy member with a pickle inside is stopped by skops itself, which allows none."""
    file = io.BytesIO()
    np.save(file, np.array([object], dtype=object), allow_pickle=True)
    reference = node("NdArrayNode", "numpy.ndarray", type="numpy", file="7.npy", __id__=77)
    content = edited(
        lambda schema: schema["content"]["content"].update(coef_=reference),
        {"7.npy": file.getvalue()},
    )
    audited = audit(in_memory(content))
    with pytest.raises(ValueError, match="allow_pickle"):
        skops.io.loads(audited.source.content)
