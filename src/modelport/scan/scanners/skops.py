"""``.skops``: a zip archive with a JSON schema, and arrays beside it.

skops tells which types a file asks for beyond its own list; those are held to modelport's rules.
What skops does not look at is the archive: names that leave it, and sizes.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from skops.io import get_untrusted_types

from modelport.adapters import suffix_of
from modelport.core.allowed_globals import is_model_class, is_value, refusal
from modelport.core.errors import InputError, LimitError, ModelportError
from modelport.core.source import Source
from modelport.scan.archives.zip_archive import (
    MAGIC,
    ZipArchive,
    member_finding,
    member_names,
    open_zip,
)
from modelport.scan.base import Finding, ScanReport

SCHEMA: Final = "schema.json"
#: Members may be read to this size; beyond it the readings are bounded as well.
FREE_SIZE: Final = 256 << 20
_MOST_READINGS: Final = 4

# skops names its members after object ids and random UUIDs.
_MEMBER = re.compile(r"[A-Za-z0-9-]{1,64}\.(npy|npz|bin)", re.ASCII)
# skops makes these by their constructors and never sets a state on them; their arguments are
# types that are checked themselves.
_CONSTRUCTED: Final = frozenset(
    {
        "builtins.object",
        "collections.Counter",
        "collections.OrderedDict",
        "collections.deque",
        "datetime.date",
        "datetime.datetime",
        "datetime.time",
        "datetime.timedelta",
        "datetime.timezone",
        "decimal.Decimal",
        "functools.partial",
        "numpy.dtype",
    }
)


class SkopsScanner:
    """Checks the archive first, then every type that its schema names."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        names = member_names(source.content)
        if names:
            return SCHEMA in names
        # Damaged, so that only the ending can tell.
        return (
            source.content.startswith(MAGIC)
            and source.path is not None
            and suffix_of(source.path) == ".skops"
        )

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        where = str(source.path or source.name)
        try:
            archive = open_zip(source.content, where)
            findings = _check_members(archive)
            if findings:  # skops would read the members; it must not
                return ScanReport("skops", findings=tuple(findings))
            _check_references(archive, where)
            names = get_untrusted_types(data=source.content)
        except ModelportError:
            raise
        except RecursionError as error:
            raise LimitError("the schema is nested too deep", where=where) from error
        except Exception as error:  # skops raises what its nodes happen to run into
            raise InputError(
                f"the skops file is damaged or truncated: {error!r}",
                where=where,
                hint="save the model again",
            ) from error
        findings += [
            Finding("global", name, SCHEMA, why) for name in names if (why := _refusal(name))
        ]
        return ScanReport("skops", globals=tuple(names), findings=tuple(findings))


def _refusal(full: str) -> str:
    """Why a type is refused. skops may call what it names, with any arguments."""
    module, _, name = full.rpartition(".")
    if is_model_class(module, name) or is_value(module, name) or full in _CONSTRUCTED:
        return ""
    return refusal(module, name) or "it may be called only by a pickle, where calls are checked"


def _check_members(archive: ZipArchive) -> list[Finding]:
    return [
        *archive.findings,
        *(
            member_finding(name, "not a member that skops writes")
            for name in archive.sizes
            if name != SCHEMA and not _MEMBER.fullmatch(name)
        ),
    ]


def _check_references(archive: ZipArchive, where: str) -> None:
    """Bound what skops reads: it reads a member anew for each place that names it."""
    sizes = archive.sizes
    total, waiting = 0, [json.loads(archive.read(SCHEMA))]
    while waiting:
        part: Any = waiting.pop()
        if isinstance(part, dict):
            file = part.get("file")
            total += sizes.get(file, 0) if isinstance(file, str) else 0
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    most = max(FREE_SIZE, _MOST_READINGS * sum(sizes.values()))
    if total > most:
        raise LimitError(f"members are read to more than {most} bytes", where=where)
