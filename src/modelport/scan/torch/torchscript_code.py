"""The code in a TorchScript file: which operators it calls.

TorchScript is written in Python's syntax, so that Python's own parser reads it; PyTorch compiles
it for a machine that knows tensors and operators only (``torch/csrc/jit/serialization/
import_source.cpp``). Names mean: ``torch.X`` the operator ``aten::X``, ``ops.N.X`` the operator
``N::X``, ``__torch__.…`` a class or function of the same file. A method of a value may be an
operator too.
"""

from __future__ import annotations

import ast
import warnings
from typing import Final

from modelport.core.errors import LimitError
from modelport.scan.base import Finding
from modelport.scan.pickles.torch_unpickler import CUSTOM_CLASSES
from modelport.scan.torch.operators import DANGEROUS_METHODS, operator_problem

MOST_CODE: Final = 64 << 20
_CUSTOM: Final = "__torch__.torch.classes."
# `torch.jit`'s importer makes values of these modules, and they may stand for nothing else.
_ROOTS: Final = frozenset({"torch", "ops"})
# Others might end a line or a comment for one parser, and not for another.
_PRINTABLE: Final = frozenset(range(0x20, 0x7F)) | {0x0A}
_UNREADABLE: Final = (SyntaxError, ValueError, MemoryError, RecursionError)


def check_code(code: bytes, member: str, where: str) -> tuple[dict[str, None], list[Finding]]:
    """Find the operators that one file of TorchScript code calls.

    Parameters
    ----------
    code : bytes
    member : str
        Its name in the archive, for findings.
    where : str
        The archive, for errors.

    Returns
    -------
    tuple
        The operators by name (``aten::conv2d``), in order; and the findings.

    Raises
    ------
    LimitError
        When it is longer than any model's code.
    """
    if len(code) > MOST_CODE:
        raise LimitError(f"{member} is longer than {MOST_CODE} bytes", where=where)
    if not _PRINTABLE.issuperset(code):
        why = "it has characters that PyTorch does not write"
        return {}, [Finding("file", repr(member), "TorchScript code", why)]
    try:
        # Python would warn of what it finds odd in code that it is not going to run.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code.decode("ascii"))
    except _UNREADABLE as error:
        why = f"it cannot be read, and so not be checked: {error}"
        return {}, [Finding("file", repr(member), "TorchScript code", why)]
    reader = _Reader(member)
    reader.read(tree)
    return reader.operators, list(reader.findings.values())


class _Reader:
    def __init__(self, member: str) -> None:
        self._member = member
        self.operators: dict[str, None] = {}
        self.findings: dict[str, Finding] = {}

    def read(self, tree: ast.Module) -> None:
        """Visit every node; a chain of attributes is one name, and is visited once."""
        waiting: list[ast.AST] = [tree]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Attribute):
                root, path = _chain(node)
                self._note_name(root, path, node)
                if not isinstance(root, ast.Name):
                    waiting.append(root)
                continue
            if isinstance(node, ast.Name) and node.id in _ROOTS:
                self._note(node.id, node, "used without naming an operator")
            elif isinstance(node, ast.Import | ast.ImportFrom | ast.Lambda | ast.Await):
                self._note(type(node).__name__, node, "not a part of TorchScript")
            elif isinstance(node, ast.Call) and _is_getattr(node):
                self._note_getattr(node)
            # Arguments and fields may be called like modules: `torch` is not shadowed by them.
            waiting.extend(ast.iter_child_nodes(node))

    def _note_name(self, root: ast.AST, path: list[str], node: ast.AST) -> None:
        if isinstance(root, ast.Name):
            full = ".".join([root.id, *path])
            if root.id == "torch":
                return self._note_operator("aten", path, node)
            if root.id == "ops":
                return self._note_operator(path[0], path[1:], node)
            if full.startswith(_CUSTOM) and not CUSTOM_CLASSES.fullmatch(full):
                return self._note(full, node, "a compiled class that may open files")
            if root.id == "__torch__":
                return None
        for method in path:
            self._note_method(method, node)
        return None

    def _note_operator(self, namespace: str, path: list[str], node: ast.AST) -> None:
        full = f"{namespace}::{'.'.join(path)}"
        self.operators[full] = None
        problem = operator_problem(namespace, path[0] if len(path) == 1 else "")
        if problem:
            self._note(full, node, problem)

    def _note_method(self, method: str, node: ast.AST) -> None:
        if method in DANGEROUS_METHODS:
            self._note(DANGEROUS_METHODS[method], node, "an operator that touches files or memory")

    def _note_getattr(self, node: ast.Call) -> None:
        for argument in node.args[1:2]:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                self._note_method(argument.value, node)
            else:
                self._note("getattr", node, "of a name that is not written in the file")

    def _note(self, what: str, node: ast.AST, why: str) -> None:
        line = getattr(node, "lineno", 0)
        self.findings.setdefault(what, Finding("call", what, f"{self._member}:{line}", why))


def _chain(node: ast.Attribute) -> tuple[ast.AST, list[str]]:
    """``a.b.c`` as its root and ``["b", "c"]``."""
    path: list[str] = []
    root: ast.AST = node
    while isinstance(root, ast.Attribute):
        path.append(root.attr)
        root = root.value
    return root, path[::-1]


def _is_getattr(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "getattr"
