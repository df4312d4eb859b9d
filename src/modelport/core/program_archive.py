"""What a ``torch.export`` archive may hold, for it to be loaded without running anybody's code.

``torch.export.load`` unpickles some records without restriction, loads compiled libraries, hands
expressions to ``sympy.sympify`` (which evaluates them as Python) and looks up the functions of a
graph by dotted name from ``torch`` (from where ``torch.os.system`` can be reached). So everything
that it would read is checked first. Standard library only: scanning must not load PyTorch.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any, Final

from modelport.core.errors import InputError, UnsafeError

#: Records that a program with plain tensors consists of, below the archive's top folder.
_RECORDS: Final = re.compile(
    r"data/(weights|constants)/((weight|tensor)_\d+|model_(weights|constants)_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json|extra/[^/]+"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
)

#: Unpickled without restriction, when the restricted way fails.
_EXAMPLES: Final = "data/sample_inputs/model.pt"

#: Operators of PyTorch, and arithmetic on sizes. Nothing else is ever in an exported graph.
_TARGETS: Final = re.compile(
    r"torch\.ops\.(aten|prim|prims|higher_order|quantized|quantized_decomposed|torchvision)"
    r"(\.\w+)+"
    r"|torch\._higher_order_ops(\.\w+)+"
    r"|torch\.(sym_\w+|_sym_sqrt)|torch\.utils\._sympy\.functions\.\w+"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor"
    r"|not_|getitem|lshift|rshift|inv|invert)"
    r"|math\.(ceil|floor|trunc|sqrt)"
)

#: Sizes: symbols, numbers, arithmetic, and the functions that PyTorch has for them.
_SYMBOL: Final = re.compile(r"[a-zA-Z]\w*")
_EXPRESSION: Final = re.compile(r"([\w\s+\-*/%(),<>=&|~!']|(?<=\d)\.(?=\d))*")
_FUNCTIONS: Final = frozenset(
    re.findall(
        r"\w+",
        """
        Mod PythonMod FloorDiv CleanDiv Max Min CeilDiv Pow PowByNatural FloatPow FloatTrueDiv
        IntTrueDiv ModularIndexing Where Identity ToFloat TruncToInt TruncToFloat CeilToInt
        FloorToInt RoundToInt RoundDecimal IsNonOverlappingAndDenseIndicator
        BitwiseFn_bitwise_and BitwiseFn_bitwise_or OpaqueUnaryFn_sqrt floor ceiling Abs Add Mul
        Eq Ne Lt Le Gt Ge And Or Not Piecewise Equality Unequality LessThan StrictLessThan
        GreaterThan StrictGreaterThan Integer Float Rational Symbol oo int_oo True False
        positive nonnegative negative integer real precision evaluate
        """,
    )
)
_SIZE: Final = re.compile(r"[suzif]\d+|u\d+|zuf\d+|zf\d+|Dim\w*|_\w+|\d+")


def check_program_archive(content: bytes, where: str = "", *, examples: bool = False) -> None:
    """Refuse an archive whose loading could run code.

    Parameters
    ----------
    content : bytes
        A file of ``torch.export.save``.
    where : str
        For messages.
    examples : bool
        Whether it may have example inputs: these are pickled, and the caller has checked them.

    Raises
    ------
    UnsafeError
        Naming what it found.
    InputError
        When the archive is damaged, or of a format that PyTorch has given up.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [info.filename for info in archive.infolist()]
            if len(names) != len(set(names)):
                raise UnsafeError("two records of the archive have one name", where=where)
            top = _top_folder(names, where)
            for name in names:
                record = name.removeprefix(top)
                if not _RECORDS.fullmatch(record):
                    raise UnsafeError(f"unexpected record in the archive: {name}", where=where)
                if record == _EXAMPLES and not examples and archive.getinfo(name).file_size:
                    raise UnsafeError(f"the archive has pickled examples: {name}", where=where)
                if record.endswith("_config.json"):
                    _check_payloads(json.loads(archive.read(name)), where)
                elif record == "models/model.json":
                    _check_program(json.loads(archive.read(name)), where)
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, RecursionError) as error:
        raise InputError(f"the archive is damaged: {error}", where=where) from error


def _top_folder(names: list[str], where: str) -> str:
    top = next(
        (n.removesuffix("archive_format") for n in names if n.endswith("archive_format")), ""
    )
    if not top or top.count("/") != 1:
        raise InputError(
            "the archive was not written by torch.export.save of PyTorch 2.8 or newer",
            where=where,
            hint="export the model again with a newer PyTorch",
        )
    return top


def _check_payloads(config: Any, where: str) -> None:
    for name, payload in config["config"].items():
        if payload.get("use_pickle") or not re.fullmatch(
            r"(weight|tensor)_\d+", str(payload["path_name"])
        ):
            raise UnsafeError(
                f"the archive keeps {name} as a pickle or custom object",
                where=where,
                hint="save plain tensors only",
            )


def _check_program(program: Any, where: str) -> None:
    for key, value in _walk(program):
        if key == "target" and isinstance(value, str) and not _TARGETS.fullmatch(value):
            raise UnsafeError(f"the program calls {value}, which is no operator", where=where)
        if key == "expr_str" and isinstance(value, str) and not _is_size(value):
            raise UnsafeError(f"a size in the program is no formula: {value!r}", where=where)
        if key == "range_constraints" and isinstance(value, dict):
            for symbol in value:
                if not _is_size(symbol):
                    raise UnsafeError(f"a size has no proper name: {symbol!r}", where=where)


def _is_size(expression: str) -> bool:
    if not _EXPRESSION.fullmatch(expression) or "__" in expression:
        return False
    words = _SYMBOL.findall(expression)
    return all(word in _FUNCTIONS or _SIZE.fullmatch(word) for word in words)


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
