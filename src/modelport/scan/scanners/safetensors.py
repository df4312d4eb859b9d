"""``.safetensors``: a size, a JSON header, and raw numbers.

Such a file cannot run code. What can be wrong with it is its header: places outside the file,
tensors that overlap, sizes that do not fit the shapes. The rules are those of the format's own
reader (``safetensors/src/tensor.rs``): little-endian, at most 100 MB of header, no gaps.
"""

from __future__ import annotations

import json
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.core.source import Source
from modelport.scan.base import ScanReport
from modelport.scan.pickles.dtypes import element_count

_LENGTH: Final = 8
_MOST_HEADER: Final = 100_000_000
_METADATA: Final = "__metadata__"
#: Bits per element.
_BITS: Final = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(
        ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0"), 8
    ),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


class SafetensorsScanner:
    """Checks the header against the file."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        size = int.from_bytes(source.content[:_LENGTH], "little")
        return source.content[_LENGTH : _LENGTH + 1] == b"{" and 2 <= size <= _MOST_HEADER

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        where = str(source.path or source.name)
        problem = _problem(source.content)
        if problem:
            raise InputError(
                f"not a safetensors file, or truncated: {problem}",
                where=where,
                hint="save or download the file again",
            )
        return ScanReport("safetensors")


def _problem(content: bytes) -> str:
    """What is wrong with the file; empty for a good one."""
    size = int.from_bytes(content[:_LENGTH], "little")
    start = _LENGTH + size
    if start > len(content):
        return f"a header of {size} bytes is announced and {len(content)} are there"
    try:
        header = json.loads(content[_LENGTH:start], object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        return f"its header is no JSON: {error}"
    if not isinstance(header, dict):
        return "its header is no JSON object"
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or any(type(v) is not str for v in metadata.values()):
        return "its metadata are not texts"
    spans = []
    for name, entry in header.items():
        span = _span(entry)
        if span is None:
            return f"tensor {name!r} has no type, shape and place that fit each other"
        spans.append((*span, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            return f"tensor {name!r} overlaps another, or leaves a gap"
        position = end
    left = len(content) - start - position
    return f"its tensors end {left} bytes before the file" if left else ""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two entries of one name they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _span(entry: object) -> tuple[int, int] | None:
    """Where a tensor's bytes begin and end; None when its entry is not as the format has it."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        return None
    shape, offsets = entry["shape"], entry["data_offsets"]
    bits = _BITS.get(entry["dtype"], 0) if isinstance(entry["dtype"], str) else 0
    count = element_count(tuple(shape)) if isinstance(shape, list) else None
    if not bits or count is None or not isinstance(offsets, list) or len(offsets) != 2:
        return None
    begin, end = offsets
    if type(begin) is not int or type(end) is not int or (end - begin) * 8 != count * bits:
        return None
    return begin, end
