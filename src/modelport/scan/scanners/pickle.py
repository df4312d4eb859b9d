"""``.pkl`` and ``.joblib``."""

from __future__ import annotations

import pickle
import pickletools
import struct
from typing import Final

from modelport.core.allowed_globals import ARRAY_WRAPPER
from modelport.core.errors import InputError
from modelport.core.source import Source
from modelport.scan.base import ScanReport
from modelport.scan.compression import compression_of, decompress, peek
from modelport.scan.dry_unpickler import DryUnpickler
from modelport.scan.log import Abandoned, Log
from modelport.scan.reader import Reader

# What Python's unpickler raises for streams that are no pickles.
_DAMAGE: Final = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
)
_PEEKED_INSTRUCTIONS = 200


class PickleScanner:
    """Reads every pickle in the file, and steps over the arrays that joblib puts between.

    A finding is a name off the allow-list, a call or a state that honest files do not have, or
    anything that could make a loader read the file differently than the scan does.
    """

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        kind = compression_of(source.content)
        if not kind:
            return _starts_a_pickle(source.content)
        beginning = peek(source.content, kind)
        # These marks are long enough to mean what they say; their stream may be damaged.
        return _starts_a_pickle(beginning) if beginning else kind in ("gzip", "xz", "lz4", "zfile")

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        content, where = source.content, str(source.path or source.name)
        log = Log()
        kind = compression_of(content)
        if kind:
            outcome = decompress(content, kind, where=where)
            content = outcome.content
            if outcome.problem:
                log.note("file", f"the {kind} compression", outcome.problem)
        damage = _read_all(content, log)
        if damage and not log.findings:
            raise InputError(damage, where=where, hint="save the model again")
        joblib = bool(kind) or ".".join(ARRAY_WRAPPER) in log.names
        return ScanReport(
            format="joblib" if joblib else "pickle",
            globals=tuple(log.names),
            findings=tuple(log.findings),
            damage=damage,
        )


def _read_all(content: bytes, log: Log) -> str:
    """Read all pickles of the stream; returns what is damaged about the first one."""
    reader = Reader(content)
    first = True
    while first or reader.remaining:
        start = reader.position
        try:
            DryUnpickler(reader, log).load()
        except Abandoned:
            return ""
        except _DAMAGE as error:
            if first:
                return (
                    f"the pickle is damaged or truncated at byte {reader.position}: {_say(error)}"
                )
            log.position = start
            log.note("stream", "bytes after the end", "they are not another pickle")
            return ""
        first = False
    return ""


def _say(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is not an instruction"
    if isinstance(error, IndexError):
        return "an instruction finds nothing on the stack"
    return str(error) or type(error).__name__


def _starts_a_pickle(content: bytes) -> bool:
    """Whether the first instructions make sense.

    Protocol 2 and later begin with their number. Older pickles have no mark of their own, so
    their first instructions are read, without running them.
    """
    if content[:1] == pickle.PROTO:
        return len(content) > 1 and content[1] <= pickle.HIGHEST_PROTOCOL
    try:
        for count, (code, _, _) in enumerate(pickletools.genops(content)):
            if code.name == "STOP":
                return count > 0
            if count > _PEEKED_INSTRUCTIONS:
                return True
    except (ValueError, OverflowError, struct.error):
        pass
    return False
