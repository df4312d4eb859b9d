"""XGBoost's own files: JSON, UBJSON, and the binary format of before version 3.1."""

from __future__ import annotations

from typing import Any, Final

from modelport.core.errors import InputError, UnsupportedError
from modelport.core.source import Source
from modelport.scan.base import ScanReport
from modelport.scan.trees.xgboost_model import check_xgboost, load_xgboost

# The first keys of a model: "learner" stands early, sorted before "version".
_PEEKED: Final = 4096
_LEARNER_UBJSON: Final = b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner"
_BINARY: Final = (b"binf", b"bs64")


class XgboostScanner:
    """Reads the whole model: its loader trusts every number in it."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        content = source.content
        if content.startswith((_LEARNER_UBJSON, *_BINARY)):
            return True
        beginning = content[:_PEEKED]
        return beginning[:1] == b"{" and (
            b'"learner"' in beginning or (b'"version"' in beginning and b'"learner"' in content)
        )

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        where = str(source.path or source.name)
        if source.content.startswith(_BINARY):
            raise UnsupportedError(
                "XGBoost's old binary format, which its version 3.1 has dropped",
                where=where,
                hint="load it with XGBoost 2 and save it as model.json or model.ubj",
            )
        try:
            document = load_xgboost(source.content)
            check_xgboost(document)
        except ValueError as error:
            raise InputError(
                f"not an XGBoost model, or truncated: {error}",
                where=where,
                hint="save or download the file again",
            ) from error
        return ScanReport(format="xgboost", details=_version(document))


def _version(document: Any) -> dict[str, int]:
    parts = document.get("version", ())
    return dict(zip(("major", "minor"), (int(part) for part in parts), strict=False))
