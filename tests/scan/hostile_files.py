"""Hostile files of PyTorch, NumPy and the archives around models, each made to do harm.

As in `hostile`, every builder takes the path of a canary, which exists afterwards if code ran or
a file was written. A case names the loader that would have brought it to life; a test proves for
each of those that the canary really appears, so that "no canary" means something.
"""

import io
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import hostile
from .hostile import Reduced, call, code, dict_of, glob, run_system, text, touch, tuple_of

Content = bytes | dict[str, bytes]


@dataclass(frozen=True)
class Case:
    """One hostile file or folder.

    Parameters
    ----------
    name : str
        Of the file; no suffix for a folder.
    build : callable
        Makes its content for a canary.
    live : str
        The loader in `LOADERS` that brings it to life; empty where none does, or where the harm
        is another one.
    damage : bool
        True where it is refused as damaged or as not convertible (exit code 2), not as unsafe.
    """

    name: str
    build: Callable[[Path], Content]
    live: str = ""
    damage: bool = False


CASES: dict[str, Case] = {}


def case(title: str, name: str, *, live: str = "", damage: bool = False):
    def register(build):
        assert title not in CASES
        CASES[title] = Case(name, build, live, damage)
        return build

    return register


#: What an unsuspecting person would run, by the path of the file.
LOADERS = {
    "torch": "torch.load(path, weights_only=False)",
    "script": "torch.jit.load(path)(torch.ones(2, 4))",
    "script load": "torch.jit.load(path)",
    "export": "torch.export.load(path)",
    "export call": "torch.export.load(path).module()(torch.ones(3, 4))",
    "numpy": "[a for a in np.atleast_1d(np.load(path, allow_pickle=True))]",
    "npz": "dict(np.load(path, allow_pickle=True))",
    "tar": "tarfile.open(path).extractall(os.path.dirname(path) + '/out', filter='fully_trusted')",
    "pickle": "pickle.load(open(path, 'rb'))",
    "mlflow": "pickle.load(open(path + '/model.pkl', 'rb'))",
    "mlflow custom": "pickle.load(open(path + '/python_model.pkl', 'rb'))",
    "mlflow torch": "torch.load(path + '/data/model.pth', weights_only=False)",
    "mar": "torch.load(zipfile.ZipFile(path).open('model.pt'), weights_only=False)",
    "zipped pickle": "pickle.loads(zipfile.ZipFile(path).read('model/model.pkl'))",
    "tarred pickle": "pickle.loads(tarfile.open(path).extractfile('model.pkl').read())",
}


# Zip files, written member by member.


def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def edited(content: bytes, changes: dict[str, bytes]) -> bytes:
    """The archive with members replaced or added, by the end of their names."""
    members = unzipped(content)
    root = next(iter(members)).partition("/")[0]
    for end, replacement in changes.items():
        members[f"{root}/{end}"] = replacement
    return zipped(members)


def saved(thing: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file, **options)
    return file.getvalue()


def layer() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()


@cache
def weights() -> bytes:
    return saved(layer().state_dict())


def with_pickle(instructions: bytes) -> bytes:
    return edited(weights(), {"data.pkl": hostile.PROTO2 + instructions + b"."})


# torch.save


@case("torch: os.system", "model.pt", live="torch")
def _torch_system(canary):
    return saved(run_system(canary))


@case("torch: os.system among weights", "model.pth", live="torch")
def _torch_in_weights(canary):
    return saved({**layer().state_dict(), "epoch": run_system(canary)})


@case("torch: os.system in a layer", "model.pth", live="torch")
def _torch_in_layer(canary):
    model = layer()
    model.note = run_system(canary)
    return saved(model)


@case("torch: under another ending", "model.onnx", live="torch")
def _torch_other_ending(canary):
    return saved(run_system(canary))


@case("torch: compressed", "model.pt", live="torch")
def _torch_compressed(canary):
    return zipped(unzipped(saved(run_system(canary))), method=zipfile.ZIP_DEFLATED)


@case("torch: code of a graph module", "model.pt", live="torch")
def _torch_graph_module(canary):
    body = {"_code": f"{code(canary)}\ndef forward(self): pass"}
    function = glob("torch.fx.graph_module", "reduce_graph_module")
    return with_pickle(call(function, dict_of(**{k: text(v) for k, v in body.items()}), text("")))


@case("torch: a pickle in a storage", "model.pt", live="torch")
def _torch_from_bytes(canary):
    inner = saved(run_system(canary), _use_new_zipfile_serialization=False)
    return with_pickle(call(glob("torch.storage", "_load_from_bytes"), hostile.raw_bytes(inner)))


@case("torch: a function for a tensor's type", "model.pt", live="torch")
def _torch_from_type(canary):
    arguments = (glob("os", "system"), glob("torch", "Tensor"), tuple_of(text(touch(canary))))
    return with_pickle(call(glob("torch._tensor", "_rebuild_from_type_v2"), *arguments, b"N"))


@case("torch: a restricted function for a tensor's type", "model.pt")
def _torch_from_type_allowed(canary):
    arguments = (glob("torch", "device"), glob("torch", "Tensor"), tuple_of(text("cpu")))
    return with_pickle(call(glob("torch._tensor", "_rebuild_from_type_v2"), *arguments, b"N"))


@case("torch: a class of the training program", "model.pt")
def _torch_main(canary):
    return with_pickle(hostile.new(glob("__main__", "Net")))


@case("torch: a hub", "model.pt")
def _torch_hub(canary):
    return with_pickle(call(glob("torch.hub", "load"), text("someone/repository"), text("model")))


@case("torch: an extension compiled while loading", "model.pt")
def _torch_extension(canary):
    name = glob("torch.utils.cpp_extension", "load_inline")
    return with_pickle(call(name, text("x"), text("int main() {}")))


def view(*, offset: int = 0, size: int = 3, stride: int = 1, count: int = 3) -> bytes:
    """A tensor of a storage of `count` numbers."""
    number = hostile.number
    storage = tuple_of(
        text("storage"), glob("torch", "FloatStorage"), text("0"), text("cpu"), number(count)
    )
    return call(
        glob("torch._utils", "_rebuild_tensor_v2"),
        storage + b"Q",
        number(offset),
        tuple_of(number(size)),
        tuple_of(number(stride)),
        hostile.FALSE,
        call(glob("collections", "OrderedDict")),
    )


VIEWS = {
    "beyond its storage": {"size": 1000},
    "before its storage": {"offset": -1},
    "with a stride out of its storage": {"stride": 1 << 28},
    "with a negative stride": {"stride": -1},
}
for _title, _how in VIEWS.items():
    case(f"torch: a tensor {_title}", "model.pt")(lambda canary, h=_how: with_pickle(view(**h)))


@case("torch: a storage that is larger than the file", "model.pt", damage=True)
def _torch_storage(canary):
    return with_pickle(view(count=1 << 20, size=1 << 20))


@case("torch: a storage announced in two sizes", "model.pt")
def _torch_two_sizes(canary):
    return with_pickle(tuple_of(view(), view(count=1, size=1)))


@case("torch: a persistent id that is none", "model.pt")
def _torch_persistent(canary):
    return with_pickle(tuple_of(text("module"), text("x")) + b"Q")


@case("torch: two pickles of one name", "model.pt")
def _torch_doubled(canary):
    file = io.BytesIO(weights())
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", pickle.dumps(run_system(canary), 2))
    return file.getvalue()


@case("torch: another pickle in another folder", "model.pt")
def _torch_second_root(canary):
    members = unzipped(weights())
    return zipped({**members, "other/data.pkl": pickle.dumps(run_system(canary), 2)})


@case("torch: a name in upper case", "model.pt")
def _torch_case(canary):
    members = unzipped(weights())
    evil = {"archive/DATA.PKL": pickle.dumps(run_system(canary), 2)}
    return zipped({**evil, **members})


@case("torch: all names in upper case", "model.pt", live="torch")
def _torch_upper_case(canary):
    members = unzipped(saved(run_system(canary)))
    return zipped({name.upper(): content for name, content in members.items()})


@case("torch: an empty folder first", "model.pt", damage=True)
def _torch_folder(canary):
    evil = {"evil/": b"", **unzipped(weights())}
    return zipped({**evil, "evil/data": pickle.dumps(run_system(canary), 2)})


@case("torch: other checksums", "model.pt", damage=True)
def _torch_crc(canary):
    content = bytearray(saved(run_system(canary)))
    start = content.find(b"PK\x01\x02")
    content[start + 16] ^= 0xFF
    return bytes(content)


@case("torch: marked as encrypted", "model.pt", damage=True)
def _torch_encrypted(canary):
    content = bytearray(saved(run_system(canary)))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(mark) + offset] |= 1
    return bytes(content)


@case("torch: another name in the local header", "model.pt")
def _torch_local_name(canary):
    content = bytearray(saved(run_system(canary)))
    start = content.find(b"archive/data.pkl")
    content[start : start + 7] = b"hidden_"
    return bytes(content)


@case("torch: bytes before the archive", "model.pt", live="pickle")
def _torch_prepended(canary):
    return pickle.dumps(run_system(canary), 2) + weights()


@case("torch: bytes after the archive", "model.pt")
def _torch_appended(canary):
    return weights() + pickle.dumps(run_system(canary), 2)


@case("torch: bytes between members", "model.pt")
def _torch_between(canary):
    content, gap = weights(), pickle.dumps(run_system(canary), 2)
    start = content.find(b"PK\x01\x02")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = len(content) - start
        assert archive.start_dir == start
    end = content.rfind(b"PK\x05\x06")
    moved = bytearray(content[:start] + gap + content[start:])
    position = end + len(gap) + 16
    moved[position : position + 4] = struct.pack("<L", start + len(gap))
    locator = content.find(b"PK\x06\x06", start)
    if locator >= 0:
        at = locator + len(gap) + 48
        moved[at : at + 8] = struct.pack("<Q", start + len(gap))
        at = content.find(b"PK\x06\x07", start) + len(gap) + 8
        moved[at : at + 8] = struct.pack("<Q", locator + len(gap))
    assert size > 0
    return bytes(moved)


@case("torch: something in the comment", "model.pt")
def _torch_comment(canary):
    file = io.BytesIO(weights())
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = zipped({"data.pkl": pickle.dumps(run_system(canary), 2)})[:60_000]
    return file.getvalue()


# torch.save before 1.6


def legacy(*pickles: bytes) -> bytes:
    return b"".join(pickles)


def _legacy_parts() -> list[bytes]:
    """Magic number, version, system: what comes before the object."""
    return [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"a": 1})]


@case("legacy torch: os.system", "model.pth", live="torch")
def _legacy_system(canary):
    return saved(run_system(canary), _use_new_zipfile_serialization=False)


@case("legacy torch: in the header", "model.pth", live="torch")
def _legacy_header(canary):
    magic, version, _ = _legacy_parts()
    return legacy(magic, version, pickle.dumps(run_system(canary), 2), pickle.dumps({}, 2))


@case("legacy torch: in the list of storages", "model.pth", live="torch")
def _legacy_keys(canary):
    return legacy(*_legacy_parts(), pickle.dumps({}, 2), pickle.dumps([run_system(canary)], 2))


@case("legacy torch: after the storages", "model.pth")
def _legacy_after(canary):
    content = saved(layer().state_dict(), _use_new_zipfile_serialization=False)
    return content + pickle.dumps(run_system(canary), 2)


@case("legacy torch: a plain pickle", "model.pth", live="torch")
def _legacy_plain(canary):
    return pickle.dumps(run_system(canary), 2)


@case("legacy torch: a truncated storage", "model.pth", damage=True)
def _legacy_truncated(canary):
    return saved(layer().state_dict(), _use_new_zipfile_serialization=False)[:-9]


@case("legacy torch: in a tar archive", "model.pt", live="torch", damage=True)
def _legacy_tar(canary):
    parts = {"storages": pickle.dumps(0, 2) + pickle.dumps([], 2), "tensors": pickle.dumps(0, 2)}
    return tarred({**parts, "pickle": pickle.dumps(run_system(canary), 2)})


# TorchScript


@cache
def scripted() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(layer()), file)
    return file.getvalue()


def script(body: str, *, before: str = "", state: bool = False) -> bytes:
    """A module of one method, written as text."""
    lines = [
        *(before.splitlines()),
        "class Net(Module):",
        "  __parameters__ = []",
        "  __buffers__ = []",
        "  training : bool",
        "  def forward(self: __torch__.Net,",
        "    x: Tensor) -> Tensor:",
        *(f"    {line}" for line in body.splitlines()),
        "    return x",
    ]
    if state:
        lines += [
            "  def __getstate__(self: __torch__.Net) -> Tensor:",
            "    return torch.ones([1])",
            "  def __setstate__(self: __torch__.Net,",
            "    x: Tensor) -> NoneType:",
            *(f"    {line}" for line in body.splitlines()),
            "    self.training = False",
            "    return None",
        ]
    made = hostile.new(glob("__torch__", "Net"))
    content = view(size=1, count=1) if state else dict_of(training=hostile.FALSE)
    members = {
        "model/data.pkl": hostile.PROTO2 + hostile.build(made, content) + b".",
        "model/code/__torch__.py": "\n".join(lines).encode() + b"\n",
        "model/constants.pkl": hostile.PROTO2 + b").",
        "model/version": b"3\n",
    }
    if state:
        members["model/data/0"] = struct.pack("<f", 1)
    return zipped(members)


SCRIPTS = {
    "torch.save": "torch.save([x], {})",
    "ops.aten.save": "ops.aten.save(x, {})",
    "ops.aten.save over lines": "_0 = (ops . aten .\n  save(x, {}))",
    "torch.from_file": "x = torch.from_file({}, True, 16)",
}
for _title, _body in SCRIPTS.items():
    case(f"torchscript: {_title}", "model.pt", live="script")(
        lambda canary, b=_body: script(b.replace("{}", json.dumps(str(canary))))
    )


@case("torchscript: while it loads", "model.pt", live="script load")
def _script_setstate(canary):
    return script(f"torch.save([x], {json.dumps(str(canary))})", state=True)


OTHER_SCRIPTS = {
    "a method": 'x.save("model.pt")',
    "getattr of a method": '_0 = getattr(x, "save")',
    "getattr of a computed name": "_0 = getattr(x, y)",
    "a library's operator": "_0 = ops.someone.run(x)",
    "an operator that runs Python": "ops.prim.PythonOp(x)",
    "another machine": 'ops.prim.rpc_sync("host", "f")',
    "a socket": "_0 = __torch__.torch.classes.dist_c10d.TCPStore(1)",
    "torch as a value": "y = torch",
    "an import": "import os",
    "no Python": "^Evil()(x)",
}
for _title, _body in OTHER_SCRIPTS.items():
    case(f"torchscript: {_title}", "model.pt")(lambda canary, b=_body: script(b))


@case("torchscript: code in upper case", "model.pt", live="script")
def _script_upper_case(canary):
    members = unzipped(script(f"torch.save([x], {json.dumps(str(canary))})"))
    return zipped({name.replace("code/", "CODE/"): part for name, part in members.items()})


@case("torchscript: a line that only Python ends", "model.pt")
def _script_carriage_return(canary):
    return script("y = 1 #\r + 1")


@case("torchscript: an older format beside", "model.pt")
def _script_older(canary):
    return edited(scripted(), {"model.json": b"{}"})


@case("torchscript: os.system in its pickle", "model.pt")
def _script_pickle(canary):
    return edited(scripted(), {"data.pkl": pickle.dumps(run_system(canary), 2)})


@case("torchscript: os.system in its constants", "model.pt")
def _script_constants(canary):
    return edited(scripted(), {"constants.pkl": pickle.dumps(run_system(canary), 2)})


@case("torchscript: a compiled class that opens connections", "model.pt")
def _script_class(canary):
    made = hostile.new(glob("__torch__.torch.classes.dist_c10d", "TCPStore"))
    return edited(scripted(), {"data.pkl": hostile.PROTO2 + made + b"."})


# torch.export


@cache
def exported() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = torch.export.Dim("rows", min=2, max=64)
        program = torch.export.export(layer(), (torch.ones(3, 4),), dynamic_shapes=({0: rows},))
        torch.export.save(program, file)
    return file.getvalue()


def program(change: Callable[[dict], object]) -> bytes:
    """The exported program with its document changed."""
    members = unzipped(exported())
    (name,) = (name for name in members if name.endswith("models/model.json"))
    document = json.loads(members[name])
    change(document)
    members[name] = json.dumps(document).encode()
    return zipped(members)


def replaced(old: str, new: str) -> bytes:
    """The exported program with a text changed wherever it stands in the document."""
    members = unzipped(exported())
    (name,) = (name for name in members if name.endswith("models/model.json"))
    escaped = json.dumps(new)[1:-1].encode()
    assert old.encode() in members[name]
    members[name] = members[name].replace(old.encode(), escaped)
    return zipped(members)


def python_of(canary: Path) -> str:
    """An expression that leaves a canary."""
    return f"__import__('os').system({touch(canary)!r})"


@case("pt2: os.system in the sample inputs", "model.pt2", live="export")
def _pt2_inputs(canary):
    return edited(exported(), {"data/sample_inputs/model.pt": saved(run_system(canary))})


def _pickled_weight(content: bytes) -> bytes:
    members = unzipped(exported())
    (name,) = (name for name in members if name.endswith("model_weights_config.json"))
    document = json.loads(members[name])
    first = next(iter(document["config"].values()))
    first["use_pickle"] = True
    members[name] = json.dumps(document).encode()
    members[name.replace("model_weights_config.json", first["path_name"])] = content
    return zipped(members)


@case("pt2: os.system in a weight", "model.pt2", live="export")
def _pt2_weight(canary):
    return _pickled_weight(saved(run_system(canary)))


@case("pt2: a weight that is a plain pickle", "model.pt2", live="export")
def _pt2_plain_weight(canary):
    return _pickled_weight(pickle.dumps(run_system(canary), 2))


@case("pt2: an opaque object", "model.pt2", live="export")
def _pt2_opaque(canary):
    config = {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}}
    config["x"]["tensor_meta"] = None
    return edited(
        exported(),
        {
            "data/constants/model_constants_config.json": json.dumps({"config": config}).encode(),
            "data/constants/opaque_obj_0": pickle.dumps(run_system(canary)),
        },
    )


@case("pt2: a size that is evaluated", "model.pt2", live="export")
def _pt2_size(canary):
    symbol = "Symbol('s31', positive=True, integer=True)"
    return program(lambda d: _set_expressions(d, python_of(canary), symbol))


def _set_expressions(node: object, text_: str, symbol: str) -> None:
    if isinstance(node, dict):
        if "expr_str" in node:
            node["expr_str"] = text_
        for value in node.values():
            _set_expressions(value, text_, symbol)
    elif isinstance(node, list):
        for value in node:
            _set_expressions(value, text_, symbol)


@case("pt2: a size that hides its text", "model.pt2")
def _pt2_size_text(canary):
    hidden = f"Add({python_of(canary)!r}, 1)"
    return program(lambda d: _set_expressions(d, hidden, ""))


@case("pt2: a guard that is code", "model.pt2", live="export call")
def _pt2_guard(canary):
    return program(lambda d: d.update(guards_code=[f"{python_of(canary)} == 0"]))


@case("pt2: an input that is code", "model.pt2")
def _pt2_name(canary):
    def change(document):
        # It becomes a parameter of a Python function, with this default.
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        signature["forward_arg_names"] = [f"input={python_of(canary)}"]

    return program(change)


@case("pt2: a function of Python", "model.pt2")
def _pt2_target(canary):
    def change(document):
        node = document["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.os.system"
        node["inputs"] = [{"name": "command", "arg": {"as_string": touch(canary)}, "kind": 1}]

    return program(change)


@case("pt2: a tree that imports a module", "model.pt2")
def _pt2_enum(canary):
    member = {"__enum__": True, "fqn": "antigravity:X", "name": "X"}
    spec = {"type": "builtins.dict", "context": json.dumps([member]), "children_spec": []}

    def change(document):
        _specifications(document, json.dumps([1, spec]))

    return program(change)


def _specifications(node: object, specification: str) -> None:
    if isinstance(node, dict):
        if "in_spec" in node:
            node["in_spec"] = specification
        for value in node.values():
            _specifications(value, specification)
    elif isinstance(node, list):
        for value in node:
            _specifications(value, specification)


PROGRAMS = {
    "torch.load": "torch.load",
    "a deeper path": "torch.serialization.os.system",
    "an attribute of an operator": "torch.ops.aten.linear.default.__globals__",
    "operator.methodcaller": "_operator.methodcaller",
    "operator.attrgetter": "_operator.attrgetter",
    "a library loader": "torch.ops.load_library",
    "a file mapper": "torch.ops.aten.from_file.default",
    "a kernel from text": "torch.ops.higher_order.triton_kernel_wrapper_mutation",
    "a library's operator": "torch.ops.someone.run.default",
    "an extension": "#someone:x",
}
for _title, _target in PROGRAMS.items():
    case(f"pt2: {_title}", "model.pt2")(
        lambda canary, t=_target: replaced("torch.ops.aten.relu.default", t)
    )


@case("pt2: compiled code", "model.pt2")
def _pt2_compiled(canary):
    return edited(exported(), {"data/aotinductor/model/x.wrapper.so": b"\x7fELF"})


@case("pt2: a missing weight", "model.pt2", damage=True)
def _pt2_missing(canary):
    members = unzipped(exported())
    del members[next(name for name in members if name.endswith("weights/weight_0"))]
    return zipped(members)


# NumPy


def array_file(thing: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([thing], dtype=object), allow_pickle=True)
    return file.getvalue()


@case("numpy: an array of objects", "x.npy", live="numpy")
def _npy(canary):
    return array_file(run_system(canary))


@case("numpy: an honest array of objects", "x.npy")
def _npy_objects(canary):
    return array_file({"a": 1})


@case("numpy: in an archive", "x.npz", live="npz")
def _npz(canary):
    return zipped({"a.npy": array_file(run_system(canary))})


@case("numpy: bytes after the array", "x.npy")
def _npy_after(canary):
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue() + pickle.dumps(run_system(canary))


@case("numpy: a header that is code", "x.npy", damage=True)
def _npy_header(canary):
    header = f"{{'descr': {python_of(canary)}, 'fortran_order': False, 'shape': (1,)}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 8


@case("numpy: a shape larger than the file", "x.npy", damage=True)
def _npy_shape(canary):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


# safetensors


def tensors(header: str | dict, data: bytes = b"") -> bytes:
    raw = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(begin: int, end: int, count: int = 1, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": [count], "data_offsets": [begin, end]}


SAFETENSORS = {
    "beyond the file": tensors({"a": entry(0, 400, 100)}, b"\0" * 4),
    "overlapping": tensors({"a": entry(0, 8, 2), "b": entry(4, 12, 2)}, b"\0" * 12),
    "with a gap": tensors({"a": entry(0, 4), "b": entry(8, 12)}, b"\0" * 12),
    "of another size than their shape": tensors({"a": entry(0, 4, 2)}, b"\0" * 4),
    "of no type": tensors({"a": entry(0, 4, 1, "OBJECT")}, b"\0" * 4),
    "of one name": tensors('{"a": %s, "a": %s}' % ((json.dumps(entry(0, 4)),) * 2), b"\0" * 4),
    "with bytes behind": tensors({"a": entry(0, 4)}, b"\0" * 4 + pickle.dumps(1)),
    "with a negative place": tensors({"a": entry(-4, 0)}, b"\0" * 4),
    "with a header of no end": struct.pack("<Q", 90_000_000) + b"{}",
}
for _title, _content in SAFETENSORS.items():
    case(f"safetensors: tensors {_title}", "x.safetensors", damage=True)(
        lambda canary, c=_content: c
    )


# Archives


def tarred(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def tar_member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


ZIP_SLIPS = ["../../evil.pkl", "/tmp/evil.pkl", "..\\evil.pkl", "C:/evil.pkl", "a/../../evil.pkl"]
for _name in ZIP_SLIPS:
    case(f"zip: a member {_name}", "model.zip")(
        lambda canary, n=_name: zipped({"model.pkl": pickle.dumps(1), n: b"x"})
    )


@case("zip: a symbolic link", "model.zip")
def _zip_link(canary):
    link = zipfile.ZipInfo("model.pkl")
    link.external_attr = 0o120777 << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(link, str(canary))
    return file.getvalue()


@case("zip: a hostile pickle", "model.zip", live="zipped pickle")
def _zip_pickle(canary):
    return zipped({"model/model.pkl": pickle.dumps(run_system(canary))})


@case("zip: an archive in an archive", "model.zip")
def _zip_zip(canary):
    inner = zipped({"model/model.pkl": pickle.dumps(run_system(canary))})
    return zipped({"a.zip": zipped({"b.zip": inner})})


@case("zip: archives without end", "model.zip", damage=True)
def _zip_nested(canary):
    content = zipped({"model.pkl": pickle.dumps(run_system(canary))})
    for _ in range(9):
        content = zipped({"model.zip": content})
    return content


@case("zip: a password", "model.zip", damage=True)
def _zip_password(canary):
    content = bytearray(_zip_pickle(canary))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(mark) + offset] |= 1
    return bytes(content)


@case("zip: members that overlap", "model.zip")
def _zip_overlap(canary):
    content = bytearray(zipped({"a.pkl": pickle.dumps(1), "b.pkl": pickle.dumps(1)}))
    second = content.rfind(b"PK\x01\x02")
    content[second + 42 : second + 46] = struct.pack("<L", 0)
    return bytes(content)


@case("tar: a member out of its folder", "model.tar", live="tar")
def _tar_slip(canary):
    relative = os.path.relpath(canary, canary.parent / "x" / "out")
    return tarred({"model.pkl": pickle.dumps(1), relative: b"x"})


@case("tar: an absolute member", "model.tar.gz", live="tar")
def _tar_absolute(canary):
    return tarred({"model.pkl": pickle.dumps(1), str(canary): b"x"}, "w:gz")


@case("tar: through a symbolic link", "model.tar.gz", live="tar")
def _tar_link(canary):
    link = tar_member("out", tarfile.SYMTYPE, str(canary.parent))
    return tarred({"model.pkl": pickle.dumps(1), "out": link, f"out/{canary.name}": b"x"}, "w:gz")


@case("tar: a hard link", "model.tar")
def _tar_hard_link(canary):
    return tarred({"model.pkl": tar_member("model.pkl", tarfile.LNKTYPE, "/etc/passwd")})


@case("tar: a device", "model.tar")
def _tar_device(canary):
    return tarred({"model.pkl": tar_member("model.pkl", tarfile.CHRTYPE)})


@case("tar: a hostile pickle", "model.tar.gz", live="tarred pickle")
def _tar_pickle(canary):
    return tarred({"model.pkl": pickle.dumps(run_system(canary))}, "w:gz")


@case("tar: bytes after its end", "model.tar")
def _tar_after(canary):
    return tarred({"model.pkl": pickle.dumps(1)}) + pickle.dumps(run_system(canary))


@case("tar: bytes after the compression", "model.tar.gz")
def _tar_gz_after(canary):
    content = tarred({"model.pkl": pickle.dumps(1)}, "w:gz")
    return content + pickle.dumps(run_system(canary))


# MLflow and TorchServe

MLMODEL = """\
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.{flavor}
    model_path: {data}
    predict_fn: predict
    python_version: 3.11.7
  {flavor}:
    code: null
    {key}: {data}
mlflow_version: 3.17.2
model_uuid: 93e5f64fe34c43c982cc758c638f3b26
"""
CUSTOM = """\
flavors:
  python_function:
    cloudpickle_version: 3.1.2
    code: null
    loader_module: mlflow.pyfunc.model
    python_model: python_model.pkl
    python_version: 3.11.7
mlflow_version: 3.17.2
"""


def mlmodel(flavor: str, key: str, data: str) -> bytes:
    return MLMODEL.format(flavor=flavor, key=key, data=data).encode()


@case("mlflow: a hostile pickle", "sklearn", live="mlflow")
def _mlflow(canary):
    description = mlmodel("sklearn", "pickled_model", "model.pkl")
    return {"MLmodel": description, "model.pkl": pickle.dumps(run_system(canary))}


@case("mlflow: a hostile PyTorch file", "pytorch", live="mlflow torch")
def _mlflow_torch(canary):
    description = mlmodel("pytorch", "model_data", "data")
    return {"MLmodel": description, "data/model.pth": saved(run_system(canary))}


@case("mlflow: Python code", "custom", live="mlflow custom", damage=True)
def _mlflow_custom(canary):
    return {"MLmodel": CUSTOM.encode(), "python_model.pkl": pickle.dumps(run_system(canary))}


@case("mlflow: a model out of its folder", "outside", damage=True)
def _mlflow_outside(canary):
    description = mlmodel("sklearn", "pickled_model", "../model.pkl")
    return {"MLmodel": description, "model.pkl": pickle.dumps(1)}


@case("mlflow: YAML that makes objects", "yaml", damage=True)
def _mlflow_yaml(canary):
    description = f"flavors: !!python/object/apply:os.system [{touch(canary)}]\n"
    return {"MLmodel": description.encode(), "model.pkl": pickle.dumps(1)}


@case("mlflow: zipped", "model.zip")
def _mlflow_zipped(canary):
    files = _mlflow(canary)
    return zipped({f"model/{name}": content for name, content in files.items()})


def manifest(**model: str) -> bytes:
    document = {"model": {"modelName": "x", "modelVersion": "1.0", **model}, "runtime": "python"}
    return json.dumps(document).encode()


@case("mar: a hostile PyTorch file", "model.mar", live="mar")
def _mar(canary):
    described = manifest(serializedFile="model.pt", handler="image_classifier")
    return zipped({"model.pt": saved(run_system(canary)), "MAR-INF/MANIFEST.json": described})


@case("mar: a model made by code", "model.mar", damage=True)
def _mar_code(canary):
    described = manifest(serializedFile="model.pt", modelFile="model.py", handler="handler.py")
    return zipped(
        {
            "model.pt": weights(),
            "model.py": code(canary).encode(),
            "handler.py": code(canary).encode(),
            "MAR-INF/MANIFEST.json": described,
        }
    )


@case("mar: a model out of its archive", "model.mar")
def _mar_outside(canary):
    described = manifest(serializedFile="../model.pt", handler="handler.py")
    return zipped({"model.pt": weights(), "MAR-INF/MANIFEST.json": described})


# The pickles of `hostile`, as joblib writes them and under every ending.

for _number, _suffix in enumerate((".pt", ".pth", ".ckpt", ".h5", ".keras", ".npy", ".zip")):
    case(f"pickle: called {_suffix}", f"model{_suffix}", live="pickle")(
        lambda canary, n=_number % 6: pickle.dumps(run_system(canary), n)
    )


def write(folder: Path, case_: Case, canary: Path) -> Path:
    """Write a case into the folder."""
    path = folder / case_.name
    content = case_.build(canary)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        for name, part in content.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(part)
    return path


assert Reduced  # pickles of it name no class of these tests
