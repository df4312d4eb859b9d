"""JSON as TensorFlow Serving's parser reads it, for bodies that strict parsers refuse.

RapidJSON with ``kParseNanAndInfFlag``: ``NaN``, ``Inf`` and ``Infinity`` are numbers, and what
follows the first value is not looked at. Source: ``tensorflow/serving`` (``json_tensor.cc``).
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from modelport.core.errors import InputError

#: A string, which is passed over and always matches to its end, or a short infinity.
_SHORT_INFINITY: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|\bInf\b', re.DOTALL)

_WHITESPACE: Final = re.compile(r"[ \t\n\r]*")


def parse_leniently(body: bytes) -> dict[str, Any]:
    """The object that a body starts with.

    Raises
    ------
    InputError
        In TensorFlow Serving's words, with the offset of what is wrong.
    """
    # What follows the first value may be anything, also no text.
    text = body.decode("utf-8-sig", "surrogateescape")
    if "Inf" in text:
        text = _SHORT_INFINITY.sub(_infinity, text)
    start = _WHITESPACE.match(text).end()  # type: ignore[union-attr]
    if start == len(text):
        raise InputError("JSON Parse error: The document is empty")
    try:
        document, end = json.JSONDecoder().raw_decode(text, start)
        text[start:end].encode()
        if "\\u" in text:
            # Python alone accepts half a surrogate pair, which is no text that can be encoded.
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except UnicodeEncodeError as error:
        raise InputError("JSON Parse error: Invalid encoding in string.") from error
    except RecursionError as error:
        raise InputError("JSON Parse error: nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise InputError("JSON Parse error: Number too big to be stored in double.") from error
    if not isinstance(document, dict):
        raise InputError("body is not a JSON object")
    return document


def _infinity(match: re.Match[str]) -> str:
    found = match[0]
    return "Infinity" if found == "Inf" else found
