"""The pickle scanner: every hostile file is refused, every honest one passes, nothing runs."""

import io
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.core.allowed_globals import is_allowed, python3_name
from modelport.core.errors import InputError, ModelportError, UnsafeError
from modelport.core.source import Source
from modelport.scan.pickles import log as scan_log
from modelport.scan.scanners.pickle import PickleScanner
from modelport.scan.stage import audit, scan

from . import honest, hostile

PICKLES = [name for name, (suffix, _) in hostile.CASES.items() if suffix == ".pkl"]


class Restricted(pickle.Unpickler):
    """The second line of defence, as loaders have it, noting what it was asked for."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.asked: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> object:
        self.asked.add((module, name))
        if not is_allowed(module, name):
            raise UnsafeError(f"{module}.{name}")
        return super().find_class(module, name)


def in_memory(content: bytes, name: str = "model.pkl") -> Source:
    return Source(name=name, path=Path(name), content=content)


@pytest.mark.parametrize("name", PICKLES)
def test_hostile_pickle_is_refused_and_runs_nothing(name, source, canary):
    suffix, builder = hostile.CASES[name]
    with pytest.raises(UnsafeError) as caught:
        audit(source(builder(canary), f"model{suffix}"))
    assert not canary.exists()
    assert "byte" in caught.value.message
    assert "--trust" in caught.value.hint


def test_corpus_is_large_enough():
    assert len(PICKLES) >= 40
    assert len({name.partition(" ")[0] for name in hostile.CASES}) >= 40


def test_canaries_sing_when_a_hostile_file_is_loaded(tmp_path):
    """Without this, a canary that is missing would prove nothing."""
    for number, name in enumerate(sorted(hostile.LIVE)):
        suffix, builder = hostile.CASES[name]
        (tmp_path / f"{number}{suffix}").write_bytes(builder(tmp_path / f"{number}.canary"))
    loader = (
        "import contextlib, joblib, pathlib, pickle, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    with contextlib.suppress(Exception):\n"
        "        if path.suffix == '.joblib': joblib.load(path)\n"
        "        if path.suffix == '.pkl': pickle.loads(path.read_bytes())\n"
    )
    subprocess.run([sys.executable, "-c", loader, str(tmp_path)], check=True)
    silent = [
        name
        for number, name in enumerate(sorted(hostile.LIVE))
        if not (tmp_path / f"{number}.canary").exists()
    ]
    assert silent == []
    assert len(hostile.LIVE) >= 40


@pytest.mark.parametrize("name", honest.ESTIMATORS)
def test_every_estimator_passes_and_loads(name):
    estimator = honest.fitted(name)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        check_passes(pickle.dumps(estimator, protocol))


@pytest.mark.parametrize("name", honest.MODELS)
def test_what_people_save_passes_and_loads(name):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        check_passes(pickle.dumps(honest.model(name), protocol))


def check_passes(content: bytes) -> None:
    audited = audit(in_memory(content))
    assert (audited.format, audited.trusted) == ("pickle", ())
    assert PickleScanner().recognises(in_memory(content, "model"))
    loader = Restricted(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader.load()
    if content[:2] >= b"\x80\x03":  # older pickles have Python 2's names
        assert set(map(".".join, loader.asked)) == set(scan(in_memory(content)).globals)


@pytest.mark.parametrize("announced", hostile.OVERSIZED)
def test_announced_sizes_reserve_nothing(announced, source):
    content = hostile.PROTO4 + hostile.OVERSIZED[announced] + b"."
    with pytest.raises(InputError, match="damaged or truncated at byte"):
        audit(source(content), trust=True)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_truncated_honest_file_is_damaged_even_if_trusted(protocol, source):
    content = pickle.dumps(honest.fitted("RandomForestClassifier"), protocol)
    for end in [*range(1, 60), *range(60, len(content), 997), len(content) - 1]:
        for trust in (False, True):
            with pytest.raises(InputError):
                audit(in_memory(content[:end]), trust=trust)


def test_trust_lets_names_through_and_records_them(source):
    content = pickle.dumps([hostile.run_system(Path("/nowhere")), {"x": 1}])
    audited = audit(source(content), trust=True)
    assert audited.format == "pickle"
    assert audited.trusted == ("posix.system",)
    assert audited.source.content == content


def test_trust_does_not_repair(source, canary):
    content = hostile.CASES["call before the file breaks off"][1](canary)
    with pytest.raises(UnsafeError):
        audit(source(content))
    with pytest.raises(InputError, match="damaged or truncated"):
        audit(source(content), trust=True)


def test_message_names_every_global_and_its_place(source):
    content = b"\x80\x04" + b"".join(
        hostile.call(hostile.glob(module, "evil")) for module in ("aa", "bb", "cc")
    )
    with pytest.raises(UnsafeError) as caught:
        audit(source(content + b"."))
    assert caught.value.message.startswith("it is not safe to load model.pkl: aa.evil (byte 2:")
    assert "bb.evil (byte 14:" in caught.value.message
    assert "cc.evil (byte 26:" in caught.value.message


def test_report_is_plain(source):
    report = scan(source(b"cos\nsystem\n."))
    assert report.to_json() == {
        "format": "pickle",
        "globals": ["os.system"],
        "findings": [
            {
                "kind": "global",
                "what": "os.system",
                "where": "byte 0",
                "why": "runs programs, or changes files",
            }
        ],
        "damage": "",
        "external_files": [],
        "details": {},
        "inside": None,
        "notes": [],
    }


def test_instructions_are_bounded(monkeypatch, source):
    monkeypatch.setattr(scan_log, "MOST_STEPS", 10_000)
    with pytest.raises(UnsafeError, match="more than 10000 instructions"):
        audit(source(b"\x80\x04" + b"N0" * 10_000 + b"N."))
    with pytest.raises(UnsafeError, match="more than 10000 instructions"):
        audit(source(b"N." * 1000))


def test_several_honest_pickles_in_one_file_pass(source):
    assert audit(source(pickle.dumps(1) + pickle.dumps([2]))).trusted == ()


# Whatever bytes come: refused with one of our errors, or accepted; never run, never anything else.

_SEED = [
    pickle.dumps({"a": [1, 2.5, "x", b"y", None, True, {3}, (4,)], "b": 10**30}, protocol)
    for protocol in range(6)
] + [
    pickle.dumps(honest.fitted(name), protocol)
    for name in ("StandardScaler", "OneHotEncoder", "LabelEncoder")
    for protocol in (0, 2, 4, 5)
]
_HOSTILE = [
    hostile.glob("os", "system"),
    b"\x8c\x02os\x8c\x06system\x93",
    b"(S'true'\nios\nsystem\n",
    b"c__builtin__\neval\n",
    b"S'true'\n\x85R",
    b"\x82\x01",
    b"Px\n",
    b"b",
    b"o",
    b"\x81",
    b"\x92",
    b"}b",
    b"h\x00",
    b"2",
    b".",
]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_never_crash(content):
    for prefix in (b"", b"\x80\x04", b"\x80\x04\x95\x10\0\0\0\0\0\0\0"):
        check_verdict(prefix + content)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(_SEED)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["byte", "cut", "insert", "hostile", "copy"]))
        if kind == "byte" and content:
            content[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 20))]
        elif kind == "insert":
            content[at:at] = draw(st.binary(max_size=8))
        elif kind == "hostile":
            content[at:at] = draw(st.sampled_from(_HOSTILE))
        else:
            start = draw(st.integers(0, max(0, len(content) - 1)))
            content[at:at] = content[start : start + draw(st.integers(1, 30))]
    return bytes(content)


@settings(max_examples=600, deadline=None)
@given(mutated())
def test_mutated_pickles_never_crash_and_what_passes_imports_only_what_was_seen(content):
    check_verdict(content)


def check_verdict(content: bytes) -> None:
    source = in_memory(content)
    try:
        report = PickleScanner().scan(source)
    except ModelportError:
        return
    assert report.findings or not report.damage
    if report.findings or report.format != "pickle":
        return
    # What passes is loaded by the C unpickler, which must find nothing that the scan did not.
    loader = Restricted(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loader.load()
        except UnsafeError:
            raise
        except Exception:  # what a library says to nonsense in its state is not our concern
            pass
    for module, name in loader.asked:
        seen = {f"{module}.{name}", ".".join(python3_name(module, name))}
        assert not seen.isdisjoint(report.globals)


def test_a_second_opinion_never_objects_to_what_passes():
    """Nothing that picklescan knows to be dangerous is accepted."""
    picklescan = pytest.importorskip("picklescan.scanner")
    missed = []
    for name, (_, builder) in hostile.CASES.items():
        content = builder(Path("/nowhere/canary"))
        result = picklescan.scan_pickle_bytes(io.BytesIO(content), name)
        if result.issues_count == 0:
            missed.append(name)
            continue
        with pytest.raises(UnsafeError):
            audit(in_memory(content))
    assert missed  # it does not see through joblib's arrays, which is why there is ours
