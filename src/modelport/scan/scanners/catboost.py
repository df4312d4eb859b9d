"""CatBoost's own files: ``.cbm`` and JSON."""

from __future__ import annotations

from modelport.core.errors import InputError
from modelport.core.source import Source
from modelport.scan.base import ScanReport
from modelport.scan.trees.catboost_model import MAGIC, check_catboost


class CatboostScanner:
    """Recognises a model by what is in it, and checks that all of it is there."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        content = source.content
        return content.startswith(MAGIC) or (
            content[:1] == b"{" and b'"features_info"' in content and b'trees"' in content
        )

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        try:
            check_catboost(source.content)
        except ValueError as error:
            raise InputError(
                f"not a CatBoost model, or truncated: {error}",
                where=str(source.path or source.name),
                hint="save or download the file again",
            ) from error
        return ScanReport(format="catboost")
