"""Reading the pickles of PyTorch's formats without importing, constructing or calling anything."""

from __future__ import annotations

import re
from typing import Any, Final

from modelport.core.torch_globals import STORAGES, is_storage, torch_refusal
from modelport.scan.pickles.dry_unpickler import REFUSED, DryUnpickler
from modelport.scan.pickles.log import Log
from modelport.scan.pickles.reader import Reader
from modelport.scan.pickles.standins import Made, Named
from modelport.scan.pickles.torch_calls import (
    Storage,
    is_bare_instance,
    is_storage_id,
    torch_call_problem,
)

_SCRIPT_CLASS = re.compile(r"__torch__(\.\w+)*", re.ASCII)
#: Compiled classes that a TorchScript file may hold; others open files and connections.
CUSTOM_CLASSES = re.compile(
    r"__torch__\.torch\.classes\.(quantized|rnn|sparse|xnnpack|mkldnn)\.\w+", re.ASCII
)
_CUSTOM: Final = "__torch__.torch.classes."
_SCRIPT_HELPERS: Final = frozenset(
    f"torch.jit._pickle.{name}"
    for name in (
        "build_boollist", "build_doublelist", "build_intlist", "build_tensor_from_id",
        "build_tensorlist", "restore_type_tag",
    )
)  # fmt: skip


class TorchUnpickler(DryUnpickler):
    """Read a pickle of ``torch.save``.

    Parameters
    ----------
    reader : Reader
    log : Log

    Attributes
    ----------
    storages : dict of str to Storage
        Those that the pickle refers to.
    """

    def __init__(self, reader: Reader, log: Log) -> None:
        super().__init__(reader, log)
        self.storages: dict[str, Storage] = {}

    def name_problem(self, module: str, name: str) -> str:
        """See `DryUnpickler.name_problem`; PyTorch moved a module once."""
        return torch_refusal("torch._tensor" if module == "torch.tensor" else module, name)

    def call_problem(self, callee: Named, arguments: tuple[Any, ...]) -> str:
        """See `DryUnpickler.call_problem`."""
        problem = torch_call_problem(callee, arguments)
        return super().call_problem(callee, arguments) if problem is None else problem

    def new_problem(self, cls: Named, arguments: tuple[Any, ...]) -> str:
        """See `DryUnpickler.new_problem`."""
        return "" if is_bare_instance(cls, arguments) else super().new_problem(cls, arguments)

    def state_problem(self, made: Made, state: object) -> str:
        """See `DryUnpickler.state_problem`; a ``state_dict`` keeps its versions as an attribute."""
        if made.by.full == "collections.OrderedDict" and not made.built:
            plain = type(state) is dict and state.keys() <= {"_metadata"}
            return "" if plain else "set to a state that no honest file gives it"
        return super().state_problem(made, state)

    def persistent_load(self, pid: Any) -> Named | Made:
        """A storage, or in old files the class of a module with its source code.

        PyTorch compares that code with the installed one, and does not run it.
        """
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] in ("module", b"module"):
            return pid[1] if isinstance(pid[1], Named) else super().persistent_load(pid)
        if not is_storage_id(pid) or not is_storage(pid[1].module, pid[1].name):
            return super().persistent_load(pid)
        _, cls, key, _, count, *view = pid
        element = STORAGES.get(cls.name.removesuffix("Storage"), 1)
        known = self.storages.setdefault(
            str(key), Storage(cls, key=str(key), size=count * element, element=element)
        )
        if known.size != count * element or known.element != element:
            self.log.note("array", f"storage {key}", "announced twice, with different sizes")
            return REFUSED
        return _view(known, view[0]) if view and view[0] is not None else known


def _view(storage: Storage, view: object) -> Storage:
    """Part of a storage, as old files have it: ``(key, offset, size)``."""
    if isinstance(view, tuple) and len(view) == 3 and all(type(n) is int for n in view[1:]):
        _, offset, count = view
        if offset >= 0 and count >= 0 and (offset + count) * storage.element <= storage.size:
            size = count * storage.element
            return Storage(storage.by, key=storage.key, size=size, element=storage.element)
    return Storage(storage.by, key=storage.key, size=0, element=storage.element)


class ScriptUnpickler(TorchUnpickler):
    """Read a pickle of a TorchScript file.

    PyTorch reads these in C++, where a name can only mean a class of the file's own code, one of
    a few helpers, or a compiled class; it never is a Python object.
    """

    def name_problem(self, module: str, name: str) -> str:
        """See `DryUnpickler.name_problem`."""
        full = f"{module}.{name}"
        if full.startswith(_CUSTOM) and not CUSTOM_CLASSES.fullmatch(full):
            return "a compiled class that may open files or connections"
        if full in _SCRIPT_HELPERS or _SCRIPT_CLASS.fullmatch(full):
            return ""
        return super().name_problem(module, name)

    def call_problem(self, callee: Named, arguments: tuple[Any, ...]) -> str:
        """See `DryUnpickler.call_problem`."""
        if callee.module == "__torch__" or callee.module.startswith(("__torch__.", "torch.jit.")):
            return ""
        return super().call_problem(callee, arguments)

    def new_problem(self, cls: Named, arguments: tuple[Any, ...]) -> str:
        """See `DryUnpickler.new_problem`."""
        if cls.module == "__torch__" or cls.module.startswith("__torch__."):
            return ""
        return super().new_problem(cls, arguments)

    def state_problem(self, made: Made, state: object) -> str:
        """See `DryUnpickler.state_problem`: a ``__setstate__`` is TorchScript code too."""
        if made.by.module == "__torch__" or made.by.module.startswith("__torch__."):
            return ""
        return super().state_problem(made, state)
