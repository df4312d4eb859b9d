"""The JSON documents in a ``.pt2`` file: what loading them would call, evaluate or write as code.

``torch.export.load`` (2.13) trusts these documents more than it should. It looks operators up by
any dotted path below ``torch``, ``math`` and ``operator``, so that one may be ``torch.load``; it
gives sizes to ``sympy.sympify``, which evaluates Python; it runs ``guards_code`` with ``exec``; it
imports the modules of enumerations in a tree specification; and it pastes the names of values
into the source of a Python function. So every operator, expression, guard and name is held to
the form in which ``torch.export.save`` writes it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.scan.base import Finding
from modelport.scan.torch.operators import operator_problem


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)(\.\w+)?", re.ASCII)
_PYTHON: Final = frozenset(
    {f"_operator.{name}" for name in (
        "abs", "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "index", "le", "lshift",
        "lt", "mod", "mul", "ne", "neg", "not_", "or_", "pos", "pow", "rshift", "sub", "truediv",
        "xor",
    )}
    | {f"math.{name}" for name in ("ceil", "floor", "sqrt", "trunc")}
    | {f"torch.sym_{name}" for name in (
        "constrain_range_for_size", "float", "fresh_size", "int", "ite", "max", "min", "not",
        "sqrt", "sum",
    )}
    | {"torch._sym_sqrt", "torch._C._set_grad_enabled"}
)  # fmt: skip
# Operators that take whole graphs. The others run kernels from text or Python objects.
_HIGHER_ORDER: Final = _words(
    "associative_scan autocast cond map map_impl run_const_graph scan while_loop"
    " wrap_with_autocast wrap_with_set_grad_enabled"
)
# Without brackets, quotes and line ends, which it takes to call anything.
_NAME = re.compile(r"[\w.\- +/:]*")
_WORD = re.compile(r"\w*", re.ASCII)
_NAME_KEYS: Final = frozenset(
    {"forward_arg_names", "keyword", "user_inputs_to_mutate", "buffer_mutated"}
)
_NAME_ENDINGS: Final = ("name", "fqn")
_SPEC_KEYS: Final = frozenset({"in_spec", "out_spec"})

_FUNCTIONS: Final = _words(
    "Abs Add And BitwiseFn_bitwise_and BitwiseFn_bitwise_or BooleanFalse BooleanTrue CeilDiv"
    " CeilToInt CleanDiv Eq Equality Float FloatPow FloatTrueDiv FloorDiv FloorToInt Ge"
    " GreaterThan Gt Half Identity IntTrueDiv Integer IsNonOverlappingAndDenseIndicator LShift Le"
    " LessThan Lt Max Min Mod ModularIndexing Mul Ne NegativeOne Not One Or Piecewise Pow"
    " PowByNatural PythonMod RShift Rational RoundDecimal RoundToInt StrictGreaterThan"
    " StrictLessThan Symbol ToFloat TruncToFloat TruncToInt Unequality Where Zero"
)
_GUARD_NAMES: Final = _FUNCTIONS | {"L", "args", "inf", "math", "abs", "max", "min"}
_GUARD_ATTRIBUTES: Final = frozenset(
    {"ceil", "floor", "inf", "isnan", "shape", "size", "sqrt", "storage_offset", "stride"}
)
_PLAIN_NODES: Final = (
    ast.BinOp, ast.BoolOp, ast.Compare, ast.Expression, ast.Load, ast.Tuple, ast.UnaryOp,
    ast.boolop, ast.cmpop, ast.operator, ast.unaryop,
)  # fmt: skip
_MOST_EXPRESSION: Final = 100_000
_UNREADABLE: Final = (SyntaxError, ValueError, MemoryError, RecursionError)


def check_document(
    content: bytes, member: str, where: str
) -> tuple[dict[str, None], list[Finding], dict[str, bool]]:
    """Check one JSON document of the archive.

    Returns
    -------
    tuple
        The operators by name, in order; the findings; and the files that it refers to, with
        whether they are pickles.

    Raises
    ------
    InputError
        When it is not JSON.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{member} is damaged: {error}", where=where, hint="save the model again"
        ) from error
    checker = _Checker(member)
    checker.walk(document)
    return checker.operators, list(checker.findings.values()), checker.payloads


class _Checker:
    def __init__(self, member: str) -> None:
        self._member = member
        self.operators: dict[str, None] = {}
        self.findings: dict[str, Finding] = {}
        self.payloads: dict[str, bool] = {}
        self._rules: dict[str, Callable[[str], None]] = {
            "target": self._target,
            "as_operator": self._target,
            "expr_str": self._expression,
            "guards_code": self._guard,
            **dict.fromkeys(_NAME_KEYS, self._name),
            **dict.fromkeys(_SPEC_KEYS, self._specification),
        }

    def walk(self, document: object) -> None:
        """Visit every value, by the key that it stands under."""
        waiting: list[tuple[str, object]] = [("", document)]
        while waiting:
            key, value = waiting.pop()
            if isinstance(value, dict):
                if "path_name" in value:
                    self.payloads[str(value["path_name"])] = bool(value.get("use_pickle"))
                waiting.extend(reversed(value.items()))
                # Names of values are keys too.
                for name in value:
                    self._name(name)
            elif isinstance(value, list):
                waiting.extend((key, item) for item in reversed(value))
            elif isinstance(value, str) and key in self._rules:
                self._rules[key](value)
            elif isinstance(value, str) and key.endswith(_NAME_ENDINGS):
                self._name(value)
            elif isinstance(value, str) and "__enum__" in value:
                self._note("__enum__", "imports a module by its name")

    def _name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            self._note(repr(name[:80]), "not a plain name; names become code")

    def _target(self, target: str) -> None:
        self.operators[target] = None
        if target in _PYTHON or _WORD.fullmatch(target):
            return
        match = _OPERATOR.fullmatch(target)
        if match is None:
            self._note(target[:80], "not an operator; loading it would look it up in Python")
        elif match[1] == "higher_order":
            if match[2] not in _HIGHER_ORDER:
                self._note(target, "an operator that runs kernels or objects of its own")
        elif why := operator_problem(match[1], match[2]):
            self._note(target, why)

    def _expression(self, text: str) -> None:
        if not _is_expression(text):
            self._note(repr(text[:80]), "not a size as PyTorch writes it; sizes are evaluated")

    def _guard(self, text: str) -> None:
        if not _is_guard(text):
            self._note(repr(text[:80]), "not a guard as PyTorch writes it; guards become code")

    def _specification(self, text: str) -> None:
        """A tree specification is JSON in JSON, and so are the contexts in it."""
        waiting: list[Any] = [text]
        while waiting:
            value = waiting.pop()
            if isinstance(value, list):
                waiting.extend(value)
            elif isinstance(value, dict):
                if "__enum__" in value:
                    self._note("__enum__", "imports a module by its name")
                waiting.extend(value)
                waiting.extend(value.values())
            elif isinstance(value, str) and not _NAME.fullmatch(value):
                try:
                    inner = json.loads(value)
                except (ValueError, RecursionError):
                    inner = value
                if isinstance(inner, str):
                    self._name(inner)
                else:
                    waiting.append(inner)

    def _note(self, what: str, why: str) -> None:
        self.findings.setdefault(what, Finding("call", what, self._member, why))


def _parsed(text: str) -> list[ast.AST] | None:
    if len(text) > _MOST_EXPRESSION or not text.isascii() or "\n" in text:
        return None
    try:
        return list(ast.walk(ast.parse(text, mode="eval")))
    except _UNREADABLE:
        return None


def _is_expression(text: str) -> bool:
    """Whether it is made of numbers, symbols and known functions.

    A text is only good as a symbol's name: given to any other function, it would be evaluated.
    """
    nodes = _parsed(text)
    if nodes is None:
        return False
    symbols = set()
    for node in nodes:
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
                return False
            if node.func.id == "Symbol" and node.args:
                symbols.add(id(node.args[0]))
            if any(not isinstance(word.value, ast.Constant) for word in node.keywords):
                return False
    return all(_is_plain(node, id(node) in symbols) for node in nodes)


def _is_plain(node: ast.AST, is_symbol: bool) -> bool:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return is_symbol and _WORD.fullmatch(node.value) is not None
        return isinstance(node.value, int | float)
    if isinstance(node, ast.Name):
        return not node.id.startswith("_")
    return isinstance(node, (*_PLAIN_NODES, ast.Call, ast.keyword))


def _is_guard(text: str) -> bool:
    """Whether it compares sizes of inputs, and does nothing else."""
    nodes = _parsed(text)
    if nodes is None:
        return False
    for node in nodes:
        if isinstance(node, ast.Constant):
            good = not isinstance(node.value, str) or _WORD.fullmatch(node.value) is not None
        elif isinstance(node, ast.Name):
            good = node.id in _GUARD_NAMES
        elif isinstance(node, ast.Attribute):
            good = node.attr in _GUARD_ATTRIBUTES
        elif isinstance(node, ast.Call):
            good = not node.keywords and isinstance(node.func, ast.Name | ast.Attribute)
        else:
            good = isinstance(node, (*_PLAIN_NODES, ast.Subscript))
        if not good:
            return False
    return True
