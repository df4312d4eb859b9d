"""Hostile files, each made to run code, to read elsewhere, or to exhaust whoever reads it.

Every builder takes the path of a canary: a file that exists afterwards if code ran. `LIVE` names
the ones that really create it on this machine when they are loaded; a test proves that they do,
so that "no canary" means something.
"""

import bz2
import gzip
import io
import lzma
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper

Builder = Callable[[Path], bytes]

#: name → (suffix, builder)
CASES: dict[str, tuple[str, Builder]] = {}
LIVE: set[str] = set()
PROTO2, PROTO3, PROTO4, PROTO5 = (b"\x80" + bytes([n]) for n in (2, 3, 4, 5))


def case(name: str, suffix: str = ".pkl", *, live: bool = False) -> Callable[[Builder], Builder]:
    def register(builder: Builder) -> Builder:
        add(name, builder, suffix, live=live)
        return builder

    return register


def add(name: str, builder: Builder, suffix: str = ".pkl", *, live: bool = False) -> None:
    assert name not in CASES
    CASES[name] = (suffix, builder)
    if live:
        LIVE.add(name)


# The assembler: each helper gives the instructions that leave one value on the stack.


def glob(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def raw_bytes(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def tuple_of(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def list_of(*values: bytes) -> bytes:
    return b"](" + b"".join(values) + b"e"


def dict_of(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tuple_of(*arguments) + b"R"


def new(cls: bytes, *arguments: bytes) -> bytes:
    return cls + (tuple_of(*arguments) if arguments else b")") + b"\x81"


def build(instance: bytes, state: bytes) -> bytes:
    return instance + state + b"b"


NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"
ESTIMATOR = glob("sklearn.linear_model._logistic", "LogisticRegression")
NDARRAY = glob("numpy", "ndarray")
RECONSTRUCT = glob("numpy._core.multiarray", "_reconstruct")
SCALAR = glob("numpy._core.multiarray", "scalar")


def touch(canary: Path) -> str:
    return f"touch {canary}"


def code(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


def system(canary: Path) -> bytes:
    """Instructions that run a shell command."""
    return call(glob("os", "system"), text(touch(canary)))


class Reduced:
    def __init__(self, function: object, *arguments: object) -> None:
        self.answer = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.answer


def run_system(canary: Path) -> Reduced:
    import os

    return Reduced(os.system, touch(canary))


# Each protocol, as Python itself writes it.

for _protocol in range(6):
    add(
        f"os.system, protocol {_protocol}",
        lambda canary, p=_protocol: pickle.dumps(run_system(canary), p),
        live=True,
    )

# Each way to name and to call.


@case("INST", live=True)
def _inst(canary: Path) -> bytes:
    return b"(S'" + touch(canary).encode() + b"'\nios\nsystem\n."


@case("OBJ", live=True)
def _obj(canary: Path) -> bytes:
    return b"(" + glob("os", "system") + text(touch(canary)) + b"o."


@case("STACK_GLOBAL", live=True)
def _stack_global(canary: Path) -> bytes:
    return PROTO4 + call(text("os") + text("system") + b"\x93", text(touch(canary))) + b"."


@case("STACK_GLOBAL from the memo", live=True)
def _stack_global_memo(canary: Path) -> bytes:
    words = text("os") + b"\x94" + text("system") + b"\x9400"
    return PROTO4 + words + call(b"h\x00h\x01\x93", text(touch(canary))) + b"."


@case("STACK_GLOBAL from old strings", live=True)
def _stack_global_strings(canary: Path) -> bytes:
    return PROTO4 + call(b"S'o\\x73'\nVsyst\\u0065m\n\x93", text(touch(canary))) + b"."


@case("STACK_GLOBAL with a computed name")
def _stack_global_computed(canary: Path) -> bytes:
    name = call(glob("builtins", "bytes"))
    return PROTO4 + call(text("os") + name + b"\x93", text(touch(canary))) + b"."


@case("Python 2 names", live=True)
def _python2(canary: Path) -> bytes:
    return PROTO2 + call(glob("commands", "getoutput"), text(touch(canary))) + b"."


@case("Python 2 eval", live=True)
def _python2_eval(canary: Path) -> bytes:
    return PROTO2 + call(glob("__builtin__", "eval"), text(code(canary))) + b"."


@case("protocol changes on the way", live=True)
def _proto_flip(canary: Path) -> bytes:
    return PROTO4 + text("unused") + b"0" + _python2_eval(canary)


@case("getattr chain", live=True)
def _getattr_chain(canary: Path) -> bytes:
    module = call(glob("builtins", "__import__"), text("os"))
    function = call(glob("builtins", "getattr"), module, text("system"))
    return PROTO4 + call(function, text(touch(canary))) + b"."


@case("attrgetter chain", live=True)
def _attrgetter(canary: Path) -> bytes:
    getter = call(glob("operator", "attrgetter"), text("system"))
    module = call(glob("importlib", "import_module"), text("os"))
    return PROTO4 + call(call(getter, module), text(touch(canary))) + b"."


@case("methodcaller", live=True)
def _methodcaller(canary: Path) -> bytes:
    caller = call(glob("operator", "methodcaller"), text("system"), text(touch(canary)))
    return PROTO4 + call(caller, call(glob("importlib", "import_module"), text("os"))) + b"."


@case("map that is consumed", live=True)
def _map(canary: Path) -> bytes:
    mapped = call(glob("builtins", "map"), glob("os", "system"), list_of(text(touch(canary))))
    return PROTO4 + call(glob("builtins", "list"), mapped) + b"."


@case("partial of a refused function", live=True)
def _partial(canary: Path) -> bytes:
    partial = call(glob("functools", "partial"), glob("os", "system"), text(touch(canary)))
    return PROTO4 + call(partial) + b"."


@case("reduce")
def _functools_reduce(canary: Path) -> bytes:
    function = glob("functools", "reduce")
    return PROTO4 + call(function, glob("os", "system"), list_of(text(touch(canary)))) + b"."


@case("nested pickle", live=True)
def _nested_pickle(canary: Path) -> bytes:
    return PROTO4 + call(glob("pickle", "loads"), raw_bytes(_stack_global(canary))) + b"."


@case("nested _pickle", live=True)
def _nested_c_pickle(canary: Path) -> bytes:
    return PROTO4 + call(glob("_pickle", "loads"), raw_bytes(_stack_global(canary))) + b"."


@case("marshalled code", live=True)
def _marshal(canary: Path) -> bytes:
    import marshal

    body = marshal.dumps(compile(code(canary), "x", "exec"))
    namespace = call(glob("builtins", "globals"))
    function = call(
        glob("types", "FunctionType"), call(glob("marshal", "loads"), raw_bytes(body)), namespace
    )
    return PROTO4 + call(function) + b"."


@case("numpy.load with pickles", live=True)
def _numpy_load(canary: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([run_system(canary)], dtype=object), allow_pickle=True)
    stream = call(glob("io", "BytesIO"), raw_bytes(file.getvalue()))
    return PROTO4 + call(glob("numpy", "load"), stream, NONE, TRUE) + b"."


@case("NEWOBJ", live=True)
def _newobj(canary: Path) -> bytes:
    arguments = text(touch(canary)) + number(-1) + NONE + NONE + NONE + NONE + NONE + TRUE + TRUE
    return PROTO2 + call(glob("subprocess", "Popen"), arguments) + b"."


@case("NEWOBJ_EX")
def _newobj_ex(canary: Path) -> bytes:
    return PROTO4 + glob("subprocess", "Popen") + b")" + dict_of(args=text("x")) + b"\x92."


@case("NEWOBJ_EX of a model with keywords")
def _newobj_ex_model(canary: Path) -> bytes:
    return PROTO4 + ESTIMATOR + b")" + dict_of(C=number(1)) + b"\x92."


@case("BUILD of a class with __setstate__", live=True)
def _setstate(canary: Path) -> bytes:
    # The instance's own dictionary gains a __setstate__, which the second BUILD calls.
    instance = new(glob("types", "SimpleNamespace"))
    armed = build(instance, dict_of(__setstate__=glob("os", "system")))
    return PROTO4 + build(armed, text(touch(canary))) + b"."


@case("a model armed with __setstate__")
def _setstate_model(canary: Path) -> bytes:
    model = new(glob("sklearn.calibration", "_CalibratedClassifier"))
    armed = build(model, dict_of(__setstate__=glob("numpy", "mean")))
    return PROTO4 + build(armed, list_of()) + b"."


@case("second pickle after STOP")
def _second(canary: Path) -> bytes:
    return pickle.dumps({"a": 1}) + pickle.dumps(run_system(canary))


@case("third pickle after many")
def _third(canary: Path) -> bytes:
    return pickle.dumps(1) * 20 + pickle.dumps(run_system(canary))


@case("pickle after STOP inside the frame")
def _second_in_frame(canary: Path) -> bytes:
    inner = b"N." + system(canary) + b"."
    return PROTO4 + b"\x95" + struct.pack("<Q", len(inner)) + inner


@case("call before the file breaks off", live=True)
def _truncated(canary: Path) -> bytes:
    return PROTO4 + system(canary)


@case("call, then discarded", live=True)
def _popped(canary: Path) -> bytes:
    return PROTO4 + system(canary) + b"0" + b"N."


@case("call inside a key", live=True)
def _in_key(canary: Path) -> bytes:
    return PROTO4 + b"}(" + system(canary) + NONE + b"u."


@case("hidden in an honest model", live=True)
def _in_model(canary: Path) -> bytes:
    from sklearn.preprocessing import StandardScaler

    model = StandardScaler().fit([[0.0], [1.0]])
    model.note = run_system(canary)
    return pickle.dumps(model)


# One name each. Most of them are called; what counts is that the name is refused.

_TEXT = """
__builtin__.apply __builtin__.execfile __main__.Model __mp_main__.Model _io.open
_posixsubprocess.fork_exec _pickle.Unpickler _socket.socket asyncio.run
asyncio.unix_events._UnixSubprocessTransport._start bdb.Bdb bdb.Bdb.run builtins.__build_class__
builtins.breakpoint builtins.compile builtins.delattr builtins.dir builtins.eval builtins.exec
builtins.filter builtins.getattr builtins.globals builtins.hasattr builtins.help builtins.input
builtins.iter builtins.locals builtins.memoryview builtins.next builtins.open builtins.property
builtins.setattr builtins.staticmethod builtins.super builtins.type builtins.vars builtins.zip
cProfile.run cProfile.runctx cffi.FFI cloudpickle.cloudpickle._make_function
cloudpickle.cloudpickle._builtin_type code.InteractiveInterpreter code.interact
code.InteractiveInterpreter.runcode codecs.open concurrent.futures.ProcessPoolExecutor
copy.deepcopy copyreg.__newobj__ copyreg.add_extension ctypes.CDLL ctypes.cdll.LoadLibrary
ctypes.pythonapi.PyRun_SimpleString dill.loads distutils.file_util.write_file doctest.debug_script
ensurepip._run_pip fileinput.FileInput functools.cmp_to_key functools.singledispatch
gc.get_objects glob.glob http.client.HTTPSConnection idlelib.pyshell.ModifiedInterpreter
imaplib.IMAP4_stream importlib.import_module importlib.util.spec_from_file_location
inspect.getattr_static io.FileIO io.open io.open_code itertools.starmap joblib.Memory
joblib.Parallel joblib.load joblib.externals.loky.backend.spawn.prepare joblib.memory.Memory
joblib.numpy_pickle.load joblib.numpy_pickle.NDArrayWrapper joblib.numpy_pickle.ZNDArrayWrapper
joblib.numpy_pickle_compat.load_compatibility lib2to3.pgen2.grammar.Grammar.loads
linecache.getlines logging.FileHandler logging.config.listen marshal.loads mmap.mmap
multiprocessing.Process multiprocessing.util.spawnv_passfds nt.system ntpath.isfile
numpy.DataSource numpy.distutils.exec_command.exec_command numpy.f2py.compile
numpy.f2py.crackfortran.getlincoef numpy.fromfile numpy.fromregex numpy.genfromtxt numpy.loadtxt
numpy.lib.npyio.DataSource numpy.memmap numpy.ndarray.tofile numpy.save numpy.savetxt
numpy.testing._private.utils.runstring numpy.vectorize numpy._core._ufunc_reconstruct
numpy._core.multiarray.fromfile numpy.core.multiarray.fromfile numpy.apply_along_axis
operator.attrgetter operator.itemgetter operator.methodcaller os.execvp os.fork os.popen os.remove
os.spawnlp os.startfile pandas.eval pandas.io.common.get_handle pandas.io.pickle.read_pickle
pandas.read_csv pandas.read_pickle pathlib.Path.write_text pdb.run pickle.Unpickler pickle.load
pip.main pip._internal.main pkgutil.get_loader platform.popen posix.execv posix.system
posixpath.expandvars profile.Profile.runctx profile.run psutil.Popen pty.spawn py_compile.compile
pydoc.locate pydoc.pipepager random._os.system runpy.run_module runpy.run_path scipy.io.loadmat
scipy.stats._continuous_distns.uniform_gen scipy.stats._distn_infrastructure.rv_continuous_frozen
scipy.stats._distn_infrastructure.rv_frozen shelve.open shutil.copytree shutil.rmtree
signal.signal site.main sklearn.callback._scoring_monitor.ScoringMonitor
sklearn.datasets.fetch_openml sklearn.datasets._base.load_files sklearn.datasets._openml.GzipFile
sklearn.datasets.load_svmlight_file sklearn.ensemble._forest.Parallel
sklearn.externals.array_api_compat._internal.clone_module sklearn.metrics._scorer.make_scorer
sklearn.pipeline.Parallel sklearn.tree._export.StringIO sklearn.tree.tests.test_tree.Tree
sklearn.utils._mocking.CheckingClassifier sklearn.utils._repr_html.estimator.Path
sklearn.utils._testing.TempMemmap sklearn.utils._testing.check_output
sklearn.utils.parallel.Parallel sklearn.utils.parallel._FuncWrapper skops.io.load smtplib.SMTP
socket.create_connection socket.socket socketserver.TCPServer sqlite3.connect
ssl.get_server_certificate subprocess.Popen subprocess.call subprocess.check_output
subprocess.getoutput sys.exit sys.modules sys.setprofile sys.settrace tarfile.open
tempfile.NamedTemporaryFile test.support.script_helper.assert_python_ok threading.Thread
timeit.Timer timeit.timeit tkinter.Tk torch._utils._rebuild_tensor_v2 torch.hub.load
torch.jit.load torch.load torch.serialization.load torch.storage._load_from_bytes trace.Trace
trace.Trace.run types.CodeType types.FunctionType types.ModuleType unittest.main
urllib.request.urlopen uuid._get_command_stdout venv.create weakref.finalize webbrowser.open
winreg.OpenKey xmlrpc.client.ServerProxy zipfile.ZipFile zipimport.zipimporter
"""
NAMES = _TEXT.split()
for _full in NAMES:
    _module, _, _name = _full.rpartition(".")
    add(
        f"name {_full}",
        lambda canary, m=_module, n=_name: PROTO4 + call(glob(m, n), text(code(canary))) + b".",
    )

# Names that reach through a good module, or are no names.

ODD_NAMES = [
    ("sklearn.utils", "os.system"),
    ("sklearn.utils", "_os.system"),
    ("sklearn.tree._tree", "Tree.__init__"),
    ("sklearn.linear_model._logistic", "LogisticRegression.__init__.__globals__"),
    ("sklearn.linear_model._logistic", "LogisticRegression\x00"),
    ("sklearn.linear_model._logistic.os", "system"),
    ("sklearn.linear_model..os", "System"),
    ("sklearn.linear_model", "__loader__"),
    ("sklearn.linear_model._logistic", "os"),
    ("sklearn.base", "os"),
    ("sklearn", "os"),
    ("sklearn.linear_model/../../os", "System"),
    ("numpy", "os.system"),
    ("numpy", "ndarray.tofile"),
    ("numpy.random._pickle", "__builtins__"),
    ("builtins", "__dict__"),
    ("", "system"),
    ("os", ""),
    ("\u0455klearn.linear_model", "Ridge"),
]
for _module, _name in ODD_NAMES:
    add(
        f"odd name {_module!r} {_name!r}",
        lambda canary, m=_module, n=_name: (
            PROTO4 + call(text(m) + text(n) + b"\x93", text(touch(canary))) + b"."
        ),
    )

# Allowed names, used as no honest file uses them.


def f8(code_: str = "f8") -> bytes:
    """A complete element type."""
    order = "|" if code_.startswith("O") else "<"
    flags = 63 if code_.startswith("O") else 0
    return build(dtype(code_), dtype_state(order, flags))


def dtype(code_: str) -> bytes:
    return call(glob("numpy", "dtype"), text(code_), FALSE, TRUE)


def dtype_state(order: str, flags: int, names: bytes = NONE, fields: bytes = NONE) -> bytes:
    sizes = number(-1) + number(-1)
    return tuple_of(number(3), text(order), NONE, names, fields, sizes, number(flags))


def empty_array() -> bytes:
    return call(RECONSTRUCT, NDARRAY, tuple_of(number(0)), raw_bytes(b"b"))


def array_state(element: bytes, count: int, data: bytes) -> bytes:
    return tuple_of(number(1), tuple_of(number(count)), element, FALSE, data)


GADGETS: dict[str, Builder] = {
    "scalar of an object type is the identity": lambda c: call(SCALAR, f8("O8"), ESTIMATOR),
    "random state calls what it is given": lambda c: call(
        glob("numpy.random._pickle", "__randomstate_ctor"), text(str(c)), glob("numpy", "mean")
    ),
    "generator calls what it is given": lambda c: call(
        glob("numpy.random._pickle", "__generator_ctor"), text(str(c)), ESTIMATOR
    ),
    "bit generator calls a class": lambda c: call(
        glob("numpy.random._pickle", "__bit_generator_ctor"), ESTIMATOR
    ),
    "_reconstructor with a base that is called": lambda c: call(
        glob("copyreg", "_reconstructor"), ESTIMATOR, ESTIMATOR, text("x")
    ),
    "_reconstructor of a refused base": lambda c: call(
        glob("copyreg", "_reconstructor"), ESTIMATOR, glob("builtins", "list"), list_of()
    ),
    "a codec other than latin1": lambda c: call(glob("_codecs", "encode"), text("x"), text("zip")),
    "a model is constructed": lambda c: call(ESTIMATOR, text("l2")),
    "a value is called": lambda c: call(glob("numpy", "mean"), list_of()),
    "a metric is called": lambda c: call(
        glob("sklearn.metrics._classification", "accuracy_score"), list_of(), list_of()
    ),
    "partial of check_array, then of another": lambda c: build(
        call(glob("functools", "partial"), glob("sklearn.utils.validation", "check_array")),
        tuple_of(glob("numpy", "mean"), b")", b"}", NONE),
    ),
    "partial of an allowed function": lambda c: call(
        glob("functools", "partial"), glob("numpy", "mean")
    ),
    "a default factory that is a model": lambda c: call(
        glob("collections", "defaultdict"), ESTIMATOR
    ),
    "a large bytearray": lambda c: call(glob("builtins", "bytearray"), b"\x8a\x08" + b"\x7f" * 8),
    "state on a class": lambda c: build(ESTIMATOR, dict_of(x=NONE)),
    "slots of a class": lambda c: build(ESTIMATOR, tuple_of(NONE, dict_of(fit=NONE))),
    "slots of an instance": lambda c: build(
        new(ESTIMATOR), tuple_of(NONE, dict_of(__class__=ESTIMATOR))
    ),
    "state on a list": lambda c: build(b"]", dict_of(x=NONE)),
    "a model's __class__": lambda c: build(new(ESTIMATOR), dict_of(__class__=ESTIMATOR)),
    "keywords changed after they were checked": lambda c: (
        dict_of(dtype=NONE)
        + b"q\x070"
        + build(
            call(glob("functools", "partial"), glob("sklearn.utils.validation", "check_array")),
            tuple_of(glob("sklearn.utils.validation", "check_array"), b")", b"h\x07", NONE),
        )
        + b"0h\x07"
        + text("estimator")
        + ESTIMATOR
        + b"s"
    ),
    "state set twice": lambda c: build(build(new(ESTIMATOR), dict_of(a=NONE)), dict_of(b=NONE)),
    "items into a model": lambda c: new(ESTIMATOR) + text("a") + NONE + b"s",
    "items into a class": lambda c: ESTIMATOR + NONE + b"a",
    "elements into a model": lambda c: new(ESTIMATOR) + b"(" + NONE + b"\x90",
    "the result of a call is called": lambda c: call(call(glob("builtins", "set"))),
    "arguments that are a list": lambda c: glob("builtins", "set") + b"]R",
    "a model made by NEWOBJ with arguments": lambda c: new(ESTIMATOR, NONE),
    "an array made by its class": lambda c: new(NDARRAY, tuple_of(number(1)), text("O")),
    "newObj of a foreign class": lambda c: call(
        glob("sklearn.neighbors._kd_tree", "newObj"), ESTIMATOR
    ),
    "an index of a foreign class": lambda c: call(
        glob("pandas.core.indexes.base", "_new_Index"), ESTIMATOR, b"}"
    ),
    "an index with other keywords": lambda c: call(
        glob("pandas.core.indexes.base", "_new_Index"), glob("pandas", "Index"), dict_of(cls=NONE)
    ),
    "a masked array of a foreign class": lambda c: call(
        glob("numpy.ma.core", "_mareconstruct"), ESTIMATOR, NDARRAY, tuple_of(number(0)), text("b")
    ),
    # An object type that claims to hold no objects makes pointers of an array's bytes.
    "an object type without its flags": lambda c: build(
        empty_array(),
        array_state(build(dtype("O8"), dtype_state("|", 0)), 1, raw_bytes(b"A" * 8)),
    ),
    "an element type changed after its use": lambda c: (
        dtype("V8")
        + b"q\x050"
        + build(empty_array(), array_state(b"h\x05", 1, raw_bytes(b"A" * 8)))
        + build(b"h\x05", dtype_state("|", 0))
    ),
    "fields changed after their use": lambda c: (
        b"}q\x07"
        + text("a")
        + tuple_of(f8(), number(0))
        + b"s0"
        + build(
            dtype("V8"),
            tuple_of(
                number(3),
                text("|"),
                NONE,
                tuple_of(text("a")),
                b"h\x07",
                number(8),
                number(1),
                number(16),
            ),
        )
        + b"0h\x07"
        + text("b")
        + tuple_of(f8("O8"), number(0))
        + b"s"
    ),
    "fields that overlap objects": lambda c: build(
        dtype("V8"),
        tuple_of(
            number(3),
            text("|"),
            NONE,
            tuple_of(text("a"), text("b")),
            dict_of(a=tuple_of(f8(), number(0)), b=tuple_of(f8("O8"), number(0))),
            number(8),
            number(1),
            number(27),
        ),
    ),
    "fields beyond the element": lambda c: build(
        dtype("V8"),
        tuple_of(
            number(3),
            text("|"),
            NONE,
            tuple_of(text("a")),
            dict_of(a=tuple_of(f8(), number(800))),
            number(8),
            number(1),
            number(16),
        ),
    ),
    "an element type from code": lambda c: call(
        glob("numpy", "dtype"), list_of(tuple_of(text("a"), text("O"))), FALSE, TRUE
    ),
    "a text type of a negative size": lambda c: build(dtype("S8"), dtype_state("|", 0)),
    "a time without its unit": lambda c: build(dtype("m8"), dtype_state("<", 0)),
    "an object array from a buffer": lambda c: call(
        glob("numpy._core.numeric", "_frombuffer"),
        raw_bytes(b"A" * 8),
        f8("O8"),
        tuple_of(number(1)),
        text("C"),
    ),
    "an object array with too few objects": lambda c: build(
        empty_array(), array_state(f8("O8"), 9, list_of(NONE))
    ),
    "an array of a negative size": lambda c: build(
        empty_array(), array_state(f8(), -1, raw_bytes(b""))
    ),
    "an array that reserves memory": lambda c: call(
        RECONSTRUCT, NDARRAY, tuple_of(number(2**31 - 1)), raw_bytes(b"b")
    ),
    "extension EXT1": lambda c: b"\x82\x01",
    "extension EXT2": lambda c: b"\x83\x01\x01",
    "extension EXT4": lambda c: b"\x84\x01\x01\x01\x01",
    "persistent id PERSID": lambda c: b"Pmodel\n",
    "persistent id BINPERSID": lambda c: tuple_of(text("storage"), ESTIMATOR) + b"Q",
    "out-of-band buffer": lambda c: b"\x97",
    "out-of-band read-only buffer": lambda c: b"\x97\x98",
}
for _title, _gadget in GADGETS.items():
    add(_title, lambda canary, g=_gadget: PROTO5 + g(canary) + b".")

# Made to exhaust the reader, or the loader.


@case("a memo index of four thousand million")
def _memo(canary: Path) -> bytes:
    return PROTO4 + b"Nr\xf0\xff\xff\xff."


@case("a memo index in text")
def _memo_text(canary: Path) -> bytes:
    return b"Np99999999999\n."


@case("marks without end")
def _marks(canary: Path) -> bytes:
    return PROTO4 + b"(" * 50_000 + b"t" * 50_000 + b"."


def hash_bomb() -> bytes:
    """A tuple of a tuple, twice, of a tuple, twice …: small to write, and endless to hash."""
    doubled = b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86\x94" for n in range(60))
    return b"()\x94" + doubled + b"1h\x3c"


@case("a tuple that takes a lifetime to hash")
def _hash_bomb(canary: Path) -> bytes:
    return PROTO4 + b"}" + hash_bomb() + b"Ns."


@case("such a tuple in a set")
def _hash_bomb_set(canary: Path) -> bytes:
    return PROTO4 + b"\x8f(" + hash_bomb() + b"\x90."


@case("such a tuple in a set that is called")
def _hash_bomb_call(canary: Path) -> bytes:
    return PROTO4 + call(glob("builtins", "frozenset"), list_of(hash_bomb())) + b"."


@case("trailing bytes")
def _trailing(canary: Path) -> bytes:
    return pickle.dumps([1, 2]) + b"\x00\x01garbage"


@case("a trailing line feed")
def _trailing_newline(canary: Path) -> bytes:
    return pickle.dumps([1, 2]) + b"\n"


# joblib.

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda raw: raw,
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "lzma": lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE),
    "xz": lzma.compress,
}


def dumped(thing: object, *, protocol: int = 4) -> bytes:
    file = io.BytesIO()
    joblib.dump(thing, file, protocol=protocol)
    return file.getvalue()


def object_array(canary: Path) -> np.ndarray:
    return np.array([run_system(canary), "honest"], dtype=object)


for _compressor, _compress in COMPRESSORS.items():
    add(
        f"joblib {_compressor}",
        lambda canary, c=_compress: c(dumped([np.ones(3), run_system(canary)])),
        ".joblib",
        live=True,
    )
    add(
        f"joblib {_compressor}, inside an object array",
        lambda canary, c=_compress: c(dumped({"a": np.ones(3), "b": object_array(canary)})),
        ".joblib",
        live=True,
    )
for _protocol in (2, 3, 5):
    add(
        f"joblib protocol {_protocol}, inside an object array",
        lambda canary, p=_protocol: dumped(object_array(canary), protocol=p),
        ".joblib",
        live=True,
    )

WRAPPER = glob("joblib.numpy_pickle", "NumpyArrayWrapper")


def wrapper_state(
    *, element: bytes | None = None, shape: bytes | None = None, cls: bytes = NDARRAY
) -> bytes:
    return dict_of(
        subclass=cls,
        shape=tuple_of(number(1)) if shape is None else shape,
        order=text("C"),
        dtype=f8() if element is None else element,
        allow_mmap=FALSE,
    )


EIGHT = b"\0" * 8
# Eight bytes that the scan would take for an array, and joblib for instructions, or the reverse.
WRAPPERS: dict[str, Builder] = {
    "a wrapper that is only mentioned": lambda c: list_of(new(WRAPPER)) + b".",
    "a wrapper that is reached twice": lambda c: (
        new(WRAPPER)
        + b"q\x01"
        + wrapper_state()
        + b"b"
        + EIGHT
        + b"0h\x01"
        + wrapper_state()
        + b"b"
        + system(c)
        + b"."
    ),
    "a wrapper that is doubled": lambda c: (
        new(WRAPPER) + b"2" + wrapper_state() + b"b" + EIGHT + b"0" + system(c) + b"."
    ),
    "a wrapper that is called": lambda c: (
        build(call(WRAPPER, NDARRAY, tuple_of(number(1)), text("C"), f8()), wrapper_state())
        + EIGHT
        + b"."
    ),
    "a wrapper by _reconstructor": lambda c: (
        build(
            call(glob("copyreg", "_reconstructor"), WRAPPER, glob("builtins", "object"), NONE),
            wrapper_state(),
        )
        + EIGHT
        + b"."
    ),
    "a wrapper by newObj": lambda c: (
        build(
            call(glob("sklearn.metrics._dist_metrics", "newObj"), WRAPPER),
            tuple_of(wrapper_state(), NONE),
        )
        + EIGHT
        + b"."
    ),
    "a wrapper by a class change": lambda c: (
        build(new(ESTIMATOR), tuple_of(NONE, dict_of(__class__=WRAPPER))) + EIGHT + b"."
    ),
    "a wrapper through an object scalar": lambda c: (
        build(call(SCALAR, f8("O8"), new(WRAPPER)), wrapper_state()) + EIGHT + b"."
    ),
    "a wrapper without a shape": lambda c: build(new(WRAPPER), dict_of(dtype=f8())) + EIGHT + b".",
    "a wrapper with a computed shape": lambda c: (
        build(new(WRAPPER), wrapper_state(shape=list_of(number(1)))) + EIGHT + b"."
    ),
    "a wrapper with a negative shape": lambda c: (
        build(new(WRAPPER), wrapper_state(shape=tuple_of(number(-1)))) + EIGHT + b"."
    ),
    "a wrapper whose shape overflows": lambda c: (
        build(
            new(WRAPPER),
            wrapper_state(shape=tuple_of(b"\x8a\x08" + b"\0" * 7 + b"\x40", number(4), number(1))),
        )
        + EIGHT
        + b"."
    ),
    "a wrapper of a foreign class": lambda c: (
        build(new(WRAPPER), wrapper_state(cls=ESTIMATOR)) + EIGHT + b"."
    ),
    "a wrapper of a memmap": lambda c: (
        build(new(WRAPPER), wrapper_state(cls=glob("numpy", "memmap"))) + EIGHT + b"."
    ),
    "a wrapper with an unknown element type": lambda c: (
        build(new(WRAPPER), wrapper_state(element=text("f8"))) + EIGHT + b"."
    ),
    "a wrapper of empty elements": lambda c: (
        build(
            new(WRAPPER),
            wrapper_state(
                element=build(
                    dtype("V0"),
                    tuple_of(
                        number(3), text("|"), NONE, NONE, NONE, number(0), number(1), number(0)
                    ),
                )
            ),
        )
        + b"."
    ),
    "a wrapper of another method": lambda c: build(new(WRAPPER), dict_of(read=NONE)) + b".",
}
for _title, _gadget in WRAPPERS.items():
    add(_title, lambda canary, g=_gadget: PROTO2 + g(canary), ".joblib")


@case("a structured array that holds objects", ".joblib", live=True)
def _structured(canary: Path) -> bytes:
    records = np.array([(1, run_system(canary))], dtype=[("a", "i4"), ("b", "O")])
    return dumped(records)


@case("an array inside an object array", ".joblib")
def _wrapper_in_objects(canary: Path) -> bytes:
    wrapper = NumpyArrayWrapper(np.ndarray, (1,), "C", np.dtype("f8"))
    return dumped(np.array([wrapper], dtype=object))


@case("a frame that reaches over an array", ".joblib")
def _frame_over_array(canary: Path) -> bytes:
    body = build(new(WRAPPER), wrapper_state()) + EIGHT + b"."
    return PROTO4 + b"\x95" + struct.pack("<Q", len(body)) + body


@case("a call after an array", ".joblib", live=True)
def _after_array(canary: Path) -> bytes:
    return PROTO2 + build(new(WRAPPER), wrapper_state()) + EIGHT + b"0" + system(canary) + b"."


@case("two compressed streams", ".joblib")
def _two_streams(canary: Path) -> bytes:
    return zlib.compress(pickle.dumps(1)) + zlib.compress(pickle.dumps(run_system(canary)))


@case("bytes after the compressed stream", ".joblib")
def _after_stream(canary: Path) -> bytes:
    return gzip.compress(pickle.dumps(1)) + b"garbage"


def _bomb(compress: Callable[[bytes], bytes]) -> Builder:
    return lambda canary: compress(dumped(np.zeros(1 << 20)))


#: What a file may freely grow to in the tests, so that a bomb of 8 MiB is one.
FREE_SIZE = 1 << 20
for _compressor in ("zlib", "bz2", "xz"):
    add(f"a {_compressor} bomb", _bomb(COMPRESSORS[_compressor]), ".joblib")

#: Announced sizes that no file has: damaged, rather than unsafe.
OVERSIZED = {
    "FRAME": b"\x95" + struct.pack("<Q", 1 << 60),
    "BINBYTES8": b"\x8e" + struct.pack("<Q", 1 << 60),
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 1 << 50),
    "BINUNICODE8": b"\x8d" + struct.pack("<Q", 1 << 62),
    "LONG4": b"\x8b\xff\xff\xff\x7f",
    "negative LONG4": b"\x8b\xff\xff\xff\xff",
    "BINSTRING": b"T\xff\xff\xff\x7f",
    "LONG": b"L" + b"9" * 100_000 + b"L\n",
    "array": build(new(WRAPPER), wrapper_state(shape=tuple_of(b"\x8a\x08" + b"\0" * 7 + b"\x01"))),
}
