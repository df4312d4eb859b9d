"""``.pkl`` and ``.joblib``."""

from __future__ import annotations

import pickle
import pickletools
import struct
import warnings

from modelport.core.allowed_globals import ARRAY_WRAPPER
from modelport.core.errors import InputError
from modelport.core.source import Source
from modelport.core.torch_globals import LEGACY_TORCH_MAGIC
from modelport.scan.archives.zip_archive import MAGIC as ZIP_MAGIC
from modelport.scan.base import ScanReport
from modelport.scan.pickles.compression import compression_of, decompress, peek
from modelport.scan.pickles.damage import DAMAGE, say
from modelport.scan.pickles.dry_unpickler import DryUnpickler
from modelport.scan.pickles.log import Abandoned, Log
from modelport.scan.pickles.reader import Reader

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
        except DAMAGE as error:
            if first:
                return f"the pickle is damaged or truncated at byte {reader.position}: {say(error)}"
            log.position = start
            log.note("stream", "bytes after the end", "they are not another pickle")
            return ""
        first = False
    return ""


def _starts_a_pickle(content: bytes) -> bool:
    """Whether the first instructions make sense.

    Protocol 2 and later begin with their number. Older pickles have no mark of their own, so
    their first instructions are read, without running them.
    """
    if content.startswith((ZIP_MAGIC, LEGACY_TORCH_MAGIC)):
        return False
    if content[:1] == pickle.PROTO:
        return len(content) > 1 and content[1] <= pickle.HIGHEST_PROTOCOL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escape sequences, in bytes that are no pickle
        try:
            for count, (code, _, _) in enumerate(pickletools.genops(content)):
                if code.name == "STOP":
                    return count > 0
                if count > _PEEKED_INSTRUCTIONS:
                    return True
        except (ValueError, OverflowError, struct.error):
            pass
    return False
